"""Servers that tests start: each on a free loopback port, gone with the tests however these end."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import requests

from tests.services import with_caller

SECONDS_BETWEEN_LOOKS = 0.05


def free_port() -> int:
    """A port on loopback that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@contextmanager
def running(
    command: Sequence[str | Path],
    log: Path,
    ready: Callable[[], bool],
    environ: Mapping[str, str] | None = None,
    seconds: float = 60.0,
) -> Iterator[None]:
    """Run a server while the block runs; its output goes to `log`."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-S", with_caller.__file__, *map(str, command)],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(environ or {})},
            # Ctrl-C is for the tests, which still need the server when they clean up.
            start_new_session=True,
        )
        try:
            _wait(process, log, ready, seconds)
            yield
        finally:
            _end(process)


def answers(url: str) -> bool:
    """Whether a GET of `url` succeeds."""
    try:
        return requests.get(url, timeout=5).ok
    except requests.RequestException:
        return False


def _wait(process: subprocess.Popen[bytes], log: Path, ready: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not ready():
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(
                f"{process.args!r} did not come up:\n{log.read_text(errors='replace')[-2000:]}"
            )
        time.sleep(SECONDS_BETWEEN_LOOKS)


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.stdin:
        process.stdin.close()
    process.wait(2 * with_caller.SECONDS_TO_END)
