"""Run a command that ends with its caller, however that ends: the caller holds on to this process's input."""

import subprocess
import sys
from collections.abc import Sequence
from threading import Thread

SECONDS_TO_END = 10.0


def main(command: Sequence[str]) -> int:
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    Thread(target=_end_with_caller, args=[process], daemon=True).start()
    return process.wait()


def _end_with_caller(process: subprocess.Popen[bytes]) -> None:
    sys.stdin.buffer.read()
    process.terminate()
    try:
        process.wait(SECONDS_TO_END)
    except subprocess.TimeoutExpired:
        process.kill()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
