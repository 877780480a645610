"""One forecast in a process of its own: `python -m modal_forecast.worker < request > answer`.

Reads one request from stdin to its end and writes one answer to stdout; the log goes to stderr, line by line.
Exits with 0 if there is an answer, which may be a refusal, and with another code if it crashed.
"""

import os
import sys
from typing import BinaryIO


def main() -> int:
    # The real stdout. Whatever else is printed from now on, by Python or by a C library, goes to stderr.
    answer_pipe: BinaryIO = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    block_pandas()
    from modal_forecast.handler import handle

    answer = handle(sys.stdin.buffer.read(), lambda line: print(line, file=sys.stderr, flush=True))
    with answer_pipe:
        answer_pipe.write(answer)
    return 0


def block_pandas() -> None:
    """Block the import of pandas in this process, and keep Arrow and OpenBLAS from reserving address space.

    Call it before anything imports numpy or pyarrow, and only in a process of its own: pandas cannot be
    imported there afterwards. Arrow imports it for every array that it converts. Peak memory of a worker that
    forecasts 180 days from 1,100, Stan's 8 MiB included, and its cpu seconds:
        126 MiB, 1.7 s    with pandas
         94 MiB, 0.9 s    without

    A limit such as `ulimit -v` counts what is reserved: 1 GiB by Arrow's default pool, and 40 MiB by each
    further thread of OpenBLAS, which gains nothing from them on matrices as small as a forecast's.
    """
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    if not any(isinstance(finder, _PandasBlocker) for finder in sys.meta_path):
        sys.meta_path.insert(0, _PandasBlocker())


class _PandasBlocker:
    """Reports pandas as not installed. Arrow would take None in sys.modules for a module."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if name == "pandas":
            raise ModuleNotFoundError("pandas is kept out of this process", name=name)


if __name__ == "__main__":
    sys.exit(main())
