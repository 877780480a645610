"""`serverless` commands in processes of their own, to end at any moment.

They are forked from a process that has imported what the command imports, which spares each the ten
seconds of a start; from then on they are as a shell would start them.
"""

import multiprocessing
import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import psutil

FORK = multiprocessing.get_context("forkserver")
FORK.set_forkserver_preload(
    [
        "serverless_assets.cli.main",
        "serverless_assets.cli.run",
        "dbt.cli.main",
        "dbt.adapters.duckdb",
        # What a run imports when it comes to it.
        "pandas",
        "pyarrow.parquet",
        "upath",
    ]
)
# How long a run of the small shop may take on a machine that is busy with other things.
RUN_SECONDS = 240.0
# How long a run may take to end once it is told to.
STOP_SECONDS = 10.0


@dataclass
class Command:
    """A `serverless` command that was started."""

    process: ForkServerProcess
    output: Path

    @property
    def text(self) -> str:
        """What it has printed so far."""
        return self.output.read_text(errors="replace") if self.output.exists() else ""

    def exit_code(self, seconds: float = RUN_SECONDS) -> int:
        """Wait for its end. A negative number is the signal that ended it."""
        self.process.join(seconds)
        code = self.process.exitcode
        if code is None:
            self.kill()
            raise TimeoutError(f"the command did not end within {seconds:g} s:\n{self.text[-2000:]}")
        return code

    def wait_for(self, text: str, seconds: float = RUN_SECONDS) -> bool:
        """Wait until `text` was printed; False if the command ended without it."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            is_over = self.process.exitcode is not None
            if text in self.text:
                return True
            if is_over:
                return False
            time.sleep(0.01)
        self.kill()
        raise TimeoutError(f"the command did not print {text!r} within {seconds:g} s:\n{self.text[-2000:]}")

    def send(self, number: signal.Signals) -> None:
        """Send a signal, if the command has not ended."""
        if self.process.exitcode is None and self.process.pid:
            with suppress(ProcessLookupError):
                os.kill(self.process.pid, number)

    def kill(self) -> None:
        self.send(signal.SIGKILL)
        self.process.join(10)


@contextmanager
def started(words: list[str], variables: Mapping[str, str], output: Path) -> Iterator[Command]:
    """Start a command; it is killed if it still runs at the end of the context."""
    # What an earlier command printed is not taken for what this one has.
    output.unlink(missing_ok=True)
    process = FORK.Process(target=_command, args=(words, dict(variables), str(output)))
    process.start()
    command = Command(process, output)
    try:
        yield command
    finally:
        if process.exitcode is None:
            command.kill()


def run(words: list[str], variables: Mapping[str, str], output: Path) -> tuple[int, str]:
    """Run a command to its end: its exit code and what it printed."""
    with started(words, variables, output) as command:
        code = command.exit_code()
    return code, command.text


def processes_of(home: Path) -> dict[int, str]:
    """The processes whose environment names `home`: their ids and command lines."""
    named = {}
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.environ().get("SERVERLESS_HOME") == str(home):
                named[process.pid] = " ".join(process.cmdline())
    return named


def _command(words: list[str], variables: Mapping[str, str], output: str) -> None:
    os.setsid()
    file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(file, 1)
    os.dup2(file, 2)
    sys.stdout, sys.stderr = (os.fdopen(os.dup(n), "w", buffering=1) for n in (1, 2))
    os.environ.clear()
    os.environ.update(variables)
    tempfile.tempdir = None
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.argv = ["serverless", *words]
    from serverless_assets.cli import main

    main()
