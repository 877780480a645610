"""Import Prophet without what it loads but a forecast never uses.

Peak memory of a worker that forecasts 180 days from 1,100, Stan's 8 MiB included, and its CPU seconds:
    179 MiB, 1.1 s    everything loaded
    148 MiB, 0.9 s    without matplotlib and plotly
    140 MiB, 0.8 s    and pandas without pyarrow
Without compiled bytecode the imports take another second and 15 MiB.
"""

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from prophet import Prophet

# `logging` does not pass `disabled` on to children, so each is named.
CHATTY_LOGGERS = ("prophet", "prophet.models", "prophet.plot", "cmdstanpy")


@contextmanager
def hidden(*modules: str) -> Iterator[None]:
    """Make `import m` fail inside the block for each of `modules` that is not loaded yet.

    `sys.modules` forgets about it afterwards, so that other code in this process imports them as ever.
    """
    absent = [name for name in modules if name not in sys.modules]
    for name in absent:
        sys.modules[name] = None  # type: ignore[assignment]  # how the import system spells "not found"
    try:
        yield
    finally:
        for name in absent:
            if name in sys.modules and sys.modules[name] is None:
                del sys.modules[name]


@contextmanager
def silenced(*loggers: str) -> Iterator[None]:
    """Switch the named loggers off inside the block."""
    before = {name: logging.getLogger(name).disabled for name in loggers}
    for name in loggers:
        logging.getLogger(name).disabled = True
    try:
        yield
    finally:
        for name, disabled in before.items():
            logging.getLogger(name).disabled = disabled


def load_prophet() -> "type[Prophet]":
    """The Prophet class. Its plotting is missing if this is the first import of Prophet in the process."""
    with hidden("matplotlib", "plotly"), silenced(*CHATTY_LOGGERS):
        from prophet import Prophet
    return Prophet


def prepare_lean_process() -> None:
    """Load pandas without pyarrow, and keep Arrow and OpenBLAS from reserving address space.

    Call it before anything imports pandas or pyarrow, and only in a process of its own: pandas cannot read or
    write Arrow there afterwards. pyarrow itself works, also to and from numpy.
    """
    # A limit such as `ulimit -v` counts what is reserved: 1 GiB by Arrow's default pool, and 40 MiB by each
    # further thread of OpenBLAS, which gains nothing from them on matrices as small as Prophet's.
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    with hidden("pyarrow"):
        import pandas  # noqa: F401
