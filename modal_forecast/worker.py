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
    reserve_little_memory()
    from modal_forecast.handler import handle

    answer = handle(sys.stdin.buffer.read(), lambda line: print(line, file=sys.stderr, flush=True))
    with answer_pipe:
        answer_pipe.write(answer)
    return 0


def reserve_little_memory() -> None:
    """Keep Arrow and OpenBLAS from reserving address space. Call it before numpy or pyarrow are imported.

    A limit such as `ulimit -v` counts what is reserved: 1 GiB by Arrow's default pool, and 40 MiB by each
    further thread of OpenBLAS, which gains nothing from them on matrices as small as a forecast's.
    """
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


if __name__ == "__main__":
    sys.exit(main())
