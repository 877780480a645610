"""One forecast in a process of its own: `python -m modal_forecast.worker < request > answer`.

Reads one request from stdin to its end and writes one answer to stdout; what it is doing goes to stderr, line
by line. Exits with 0 if there is an answer, which may be a refusal in words, and not with 0 if it crashed.
"""

import os
import sys
from typing import BinaryIO

from modal_forecast.lean_imports import prepare_lean_process


def main() -> int:
    answer_pipe = reserve_stdout()
    prepare_lean_process()
    from modal_forecast.handler import handle

    answer = handle(sys.stdin.buffer.read(), log_to_stderr)
    with answer_pipe:
        answer_pipe.write(answer)
    return 0


def reserve_stdout() -> BinaryIO:
    """The real stdout. Whatever else is printed from now on, by Python or by a C library, goes to stderr."""
    answer_pipe = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    return answer_pipe


def log_to_stderr(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
