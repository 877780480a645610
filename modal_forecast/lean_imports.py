"""Load into a worker only what a forecast uses.

Peak memory of a worker that forecasts 180 days from 1,100, Stan's 8 MiB included, and its CPU seconds:
    162 MiB, 2.2 s    with Prophet's package and what it loads
    126 MiB, 1.7 s    without matplotlib and plotly, and pandas without pyarrow
     94 MiB, 0.9 s    without any pandas (models/prophet.py runs Prophet's Stan program itself)
"""

import os
import sys


def prepare_lean_process() -> None:
    """Keep pandas out, and Arrow and OpenBLAS from reserving address space.

    Call it before anything imports numpy or pyarrow, and only in a process of its own: pandas cannot be
    imported there afterwards. Arrow imports it wherever it meets an array, just in case.

    A limit such as `ulimit -v` counts what is reserved: 1 GiB by Arrow's default pool, and 40 MiB by each
    further thread of OpenBLAS, which gains nothing from them on matrices as small as a forecast's.
    """
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    if not any(isinstance(finder, _NoPandas) for finder in sys.meta_path):
        sys.meta_path.insert(0, _NoPandas())


class _NoPandas:
    """Says that pandas is not installed. None in sys.modules will not do: Arrow takes that for a module."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if name == "pandas":
            raise ModuleNotFoundError("pandas is kept out of this process", name=name)
