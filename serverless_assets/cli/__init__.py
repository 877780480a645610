"""The command line: `serverless --help`."""

import gc
import os
import sys
from contextlib import suppress
from typing import NoReturn

from serverless_assets.cli.main import main

__all__ = ["entry_point", "main"]


def entry_point() -> NoReturn:
    """Run a command, and end the process as soon as it is done.

    Without Python's own shutdown, which takes a second after a run, and in which DuckDB's bindings print
    pages on objects that they call leaked.
    """
    # By default Python collects garbage after every 700 new objects: a second for the million of the imports.
    gc.set_threshold(200_000, 50, 50)
    code: object = 0
    try:
        main()
    except SystemExit as end:
        code = end.code
    if isinstance(code, str):
        print(code, file=sys.stderr)
    with suppress(OSError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code if isinstance(code, int) else int(code is not None))
