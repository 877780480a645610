"""Run dbt in a process of its own, and hand over its events while it works.

A process can always be ended, whatever dbt does in it: it waits for a lock, runs a query of hours or a
Python model that never returns. Measured on two cores: a ten-model build costs 9-12 s through
`DbtCliResource`, which starts two dbt processes, and 1-2 s here, plus 2.5 s for the first command of a
process, which imports dbt. The events are dbt's own, so that dagster-dbt turns them into the same
materializations and checks.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Generator, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from multiprocessing import Pipe
from pathlib import Path
from threading import Lock

from serverless_assets.errors import UserError
from serverless_assets.transformation.dbt_process import Command, CountRows, Event, Result, without_flags
from serverless_assets.transformation.profiles import write_profile

# How long dbt may take to cancel its queries (on BigQuery, by a call for each) before its process is killed.
SECONDS_TO_CANCEL = 4.0
# Variables that only this project sets for dbt, one invocation at a time.
INTERNAL_VARIABLES = frozenset({"SERVERLESS_MONTHS", "SERVERLESS_RUN_ID", "SERVERLESS_SOURCE_SCHEMA"})
RUN_COMMANDS = "from serverless_assets.transformation.dbt_process import main; main()"
# dbt's process is killed, and multiprocessing's tracker then warns of leaked semaphores.
NO_WARNING = "ignore::UserWarning:multiprocessing.resource_tracker"


class DbtError(UserError):
    """dbt could not do what it was asked to; the message is dbt's."""

    def __init__(self, failure: str) -> None:
        super().__init__(f"dbt: {failure}")
        self.failure = failure


def invoke(
    arguments: Sequence[str],
    project_dir: Path,
    target: Path,
    variables: Mapping[str, str],
    parsed: Path | None = None,
    on_event: Callable[[Event], None] | None = None,
) -> str | None:
    """Run a dbt command to its end; `on_event` gets its events, each as a dictionary of `info` and `data`.

    Returns:
        None if dbt succeeded, else its error, or its list of failures.
    """
    send_events = on_event is not None
    events = stream(arguments, project_dir, target, variables, parsed, send_events=send_events)
    try:
        with closing(events):
            for event in events:
                if on_event:
                    on_event(event)
    except DbtError as error:
        return error.failure
    return None


def stream(
    arguments: Sequence[str],
    project_dir: Path,
    target: Path,
    variables: Mapping[str, str],
    parsed: Path | None = None,
    count_rows: CountRows | None = None,
    kept: Collection[str] = (),
    seeds: Mapping[str, str] | None = None,
    send_events: bool = True,
) -> Generator[Event, None, None]:
    """Run a dbt command and yield its events as they happen.

    Closing the generator, or an interrupt, ends dbt within seconds.

    Args:
        parsed: a partial parse of the project from which to start.
        count_rows: counts the rows of a relation, given by database, schema and name. The count of each model
            that dbt has built is `rows` in the data of the event that tells of it, or `rows_error` says why
            there is none.
        kept: the unique ids of models that keep their rows under --full-refresh.
        seeds: the ids of sources, and those of the seeds that are their relations: what reads the source
            waits for the seed.

    Raises:
        DbtError: dbt failed; after the last event.
    """
    profile, target_name = write_profile(project_dir, target, variables)
    command = Command(
        arguments,
        options=[
            *("--quiet", "--log-level", "none", "--no-use-colors", "--no-send-anonymous-usage-stats"),
            *("--project-dir", str(project_dir), "--profiles-dir", str(target), "--profile", profile),
            *("--target", target_name),
            # `dbt deps` writes nothing there, and refuses the option.
            *(() if arguments[0] == "deps" else ("--target-path", str(target))),
            *("--log-path", str(target)),
            *(("--partial-parse-file-path", str(parsed)) if parsed else ()),
        ],
        environ={
            **{name: value for name, value in os.environ.items() if name not in INTERNAL_VARIABLES},
            # dbt parses what reads a variable again, which takes seconds, if it is empty now and was unset.
            **{name: value for name, value in variables.items() if value or name not in INTERNAL_VARIABLES},
        },
        folder=os.getcwd(),
        target=str(target),
        count_rows=count_rows,
        send_events=send_events,
        kept=tuple(kept),
        seeds=seeds or {},
    )
    with closing(_run(command)) as messages:
        for message in messages:
            if not isinstance(message, Result):
                yield message
            elif message.failure:
                raise DbtError(message.failure)


def start_process() -> None:
    """Start the process of the next dbt command: it imports dbt, for seconds, while this one goes on."""
    with _idle_lock:
        _idle.append(_Process())


def end_idle_processes() -> None:
    """End the processes that wait for a command, before this process is replaced by another program."""
    with _idle_lock:
        while _idle:
            _idle.pop().end()


class _Process:
    """A process that runs dbt commands, one at a time."""

    def __init__(self) -> None:
        self._connection, child_connection = Pipe()
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-W", NO_WARNING, "-c", RUN_COMMANDS, str(child_connection.fileno())],
            stdin=subprocess.DEVNULL,
            pass_fds=[child_connection.fileno()],
            env=without_flags(os.environ),
            # A group of its own: Ctrl-C in a terminal reaches the run, and the run ends dbt.
            start_new_session=True,
        )
        child_connection.close()

    def run(self, command: Command) -> Iterator[Event | Result]:
        """Yield what the command answers; the last is its result."""
        try:
            self._connection.send(command)
            message = None
            while not isinstance(message, Result):
                message = self._connection.recv()
                yield message
        except (EOFError, OSError):
            yield Result(f"its process ended before it was done: {self._end_sentence()}")

    @property
    def is_running(self) -> bool:
        return self._process.poll() is None

    def interrupt(self) -> None:
        """Have dbt cancel its queries as it does on Ctrl-C, and wait a little until it has."""
        self._process.send_signal(signal.SIGINT)
        deadline = time.monotonic() + SECONDS_TO_CANCEL
        # Its messages are read meanwhile, as it waits while the pipe is full.
        with suppress(EOFError, OSError):
            while self._connection.poll(max(0.0, deadline - time.monotonic())):
                if isinstance(self._connection.recv(), Result):
                    break

    def end(self) -> None:
        """End it at once."""
        self._process.kill()
        self._process.wait()
        self._connection.close()

    def _end_sentence(self) -> str:
        code = self._process.wait()
        if code == -signal.SIGKILL:
            return "it was killed. That is how the system ends one that takes more memory than there is."
        return f"signal {-code}." if code < 0 else f"exit code {code}."


# Processes without a command, to be taken by the next one.
_idle: list[_Process] = []
_idle_lock = Lock()


def _run(command: Command) -> Generator[Event | Result, None, None]:
    """Yield what a dbt command answers. Its process is kept for the next command if it came to its end."""
    process = _take_process()
    result: Result | None = None
    try:
        for message in process.run(command):
            if isinstance(message, Result):
                result = message
            yield message
    finally:
        if result and result.is_exception:
            process.end()
        elif result and process.is_running:
            with _idle_lock:
                _idle.append(process)
        else:
            # A second interrupt, while dbt handles the first, does not keep it alive.
            try:
                process.interrupt()
            finally:
                process.end()


def _take_process() -> _Process:
    with _idle_lock:
        while _idle:
            process = _idle.pop()
            if process.is_running:
                return process
            process.end()
    return _Process()
