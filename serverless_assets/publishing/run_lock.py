"""One run at a time, and the process that executes it.

A run that is executed keeps the file `<home>/running/<run id>.json` locked (flock). The operating system
drops the lock when the process ends, however it ends: a file without a lock is that of a dead run. That
needs no process id, which another process may have by now, and judges no run of another machine, whose file
is in another home. The lock of the place that runs write to works the same way. Dagster's pools keep apart
what its queue launches; this lock keeps apart all runs of one machine, those of a terminal, too.
"""

import fcntl
import json
import logging
import os
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dagster as dg

from serverless_assets.asset_keys import asset_name
from serverless_assets.errors import UserError
from serverless_assets.files import claimed_file
from serverless_assets.names import NAMES_IN_A_LINE, name_some
from serverless_assets.publishing.layout import Layout
from serverless_assets.publishing.working_copy import is_outdated

# The runs of this process: a command registers its run before Dagster begins it.
_registered: set[str] = set()


@dataclass(frozen=True)
class RunProcess:
    """The process that executes a run."""

    run_id: str
    pid: int
    host: str
    since: str

    @classmethod
    def current(cls, run_id: str) -> "RunProcess":
        """This process."""
        return cls(run_id, os.getpid(), socket.gethostname(), f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC")

    @classmethod
    def read(cls, handle: int) -> "RunProcess | None":
        """What was written to an open file; None if that is not complete."""
        try:
            return cls(**json.loads(os.pread(handle, 4096, 0)))
        except (ValueError, TypeError):
            return None

    def as_json(self) -> str:
        """What `read` reads."""
        return json.dumps(asdict(self))

    def __str__(self) -> str:
        return f"run {self.run_id[:8]}, process {self.pid} on {self.host} since {self.since}"


@contextmanager
def registered(home: Path, run_id: str) -> Iterator[None]:
    """Register this process as the one that executes the run, until the end of the block."""
    if run_id in _registered:
        yield
        return
    folder = _folder(home)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{run_id}.json"
    # It has its name only once it is locked: nobody takes a run that has just begun for a dead one.
    temporary, handle = claimed_file(path)
    _registered.add(run_id)
    try:
        temporary.write_text(RunProcess.current(run_id).as_json())
        temporary.rename(path)
        yield
    finally:
        _registered.discard(run_id)
        for file in (temporary, path):
            file.unlink(missing_ok=True)
        os.close(handle)


def end_dead_runs(home: Path, instance: dg.DagsterInstance, is_dropped: bool = False) -> Sequence[str]:
    """Mark as failed each run whose process has ended without a word, and return a sentence on each.

    is_dropped: whether no run continues from their work, which is so as well if the working copy is outdated.
    """
    sentences = []
    is_dropped = is_dropped or is_outdated(Layout(home))
    folder = _folder(home)
    for path in sorted(folder.glob("*.json")) if folder.is_dir() else []:
        with suppress(OSError):
            handle = os.open(path, os.O_RDONLY)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                sentence = _end_dead_run(instance, path.stem, RunProcess.read(handle), is_dropped)
                sentences += [sentence] if sentence else []
                path.unlink()
            finally:
                os.close(handle)
    return sentences


def _end_dead_run(
    instance: dg.DagsterInstance, run_id: str, process: RunProcess | None, is_dropped: bool
) -> str | None:
    run = instance.get_run_by_id(run_id)
    if run is None or run.is_finished:
        return None
    finished = name_some(_made_by_finished_steps(instance, run_id), NAMES_IN_A_LINE)
    if is_dropped:
        made = f" ({finished})" if finished else ""
        kept = (
            f"Its unfinished work{made} is dropped: the next `serverless run` starts from what is published."
        )
    elif finished:
        kept = (
            f"What its finished steps made is kept ({finished}): the next `serverless run` does the rest, "
            "and publishes all of it."
        )
    else:
        kept = "None of its steps was finished: the next `serverless run` does what is left to do."
    config: Any = run.run_config
    inputs = config.get("resources", {}).get("run_inputs", {}).get("config", {})
    again = (
        " Its rebuild is not complete: `serverless run --rebuild` builds everything again."
        if inputs.get("rebuild") == "all"
        else ""
    )
    where = f" {process.pid} on {process.host}" if process else ""
    began = f", begun {process.since}," if process else ""
    sentence = (
        f"Run {run_id[:8]} of {run.job_name}{began} has died: its process{where} was killed or ended before "
        f"the run did. {kept}{again}"
    )
    if run.status == dg.DagsterRunStatus.CANCELING:
        instance.report_run_canceled(run, sentence)
    else:
        instance.report_run_failed(run, sentence)
    return sentence


def _made_by_finished_steps(instance: dg.DagsterInstance, run_id: str) -> Sequence[str]:
    """Return the assets of the steps that succeeded. Of a step that was cut off, Dagster may have assets on
    record that the next run makes again, such as models whose tests did not all run."""
    of_type = {dg.DagsterEventType.ASSET_MATERIALIZATION, dg.DagsterEventType.STEP_SUCCESS}
    entries = instance.all_logs(run_id, of_type=of_type)
    events = [entry.dagster_event for entry in entries if entry.dagster_event]
    finished = {event.step_key for event in events if event.is_step_success}
    assets = {event.asset_key for event in events if event.asset_key and event.step_key in finished}
    return sorted(map(asset_name, assets))


def _folder(home: Path) -> Path:
    return home / "running"


SECONDS_BETWEEN_ATTEMPTS = 0.1
SECONDS_BETWEEN_MESSAGES = 60.0


class AtWork(UserError):
    """A run is at work, and what was asked for does not wait for it."""

    def __init__(self, holder: "RunProcess | None") -> None:
        who = f": {holder}" if holder else ""
        super().__init__(
            f"Another run is writing to the warehouse{who}. Wait until it has ended, or stop it."
        )


class RunLock:
    """The lock `<folder>/lock`, held until `release` or the end of the process."""

    def __init__(self, folder: Path, run_id: str, log: logging.Logger, wait: bool = True) -> None:
        """Wait until no other run is at work in `folder`, and say at once which one is.

        Raises:
            AtWork: another run is, and this one is not to `wait`.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self._handle: int | None = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o644)
        try:
            self._acquire(folder, self._handle, log, wait)
            os.ftruncate(self._handle, 0)
            os.pwrite(self._handle, RunProcess.current(run_id).as_json().encode(), 0)
        except BaseException:
            os.close(self._handle)
            raise

    def release(self) -> None:
        """Let the next run in."""
        if self._handle is not None:
            os.ftruncate(self._handle, 0)
            # Closing the file gives up the lock.
            os.close(self._handle)
            self._handle = None

    def _acquire(self, folder: Path, handle: int, log: logging.Logger, wait: bool) -> None:
        holder: RunProcess | None = None
        next_message = 0.0
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                pass
            before, holder = holder, RunProcess.read(handle) or holder
            if not wait:
                raise AtWork(holder)
            if holder != before or time.monotonic() >= next_message:
                log.info(f"Waiting for {holder or 'another run'}, which is at work in {folder}, to end.")
                next_message = time.monotonic() + SECONDS_BETWEEN_MESSAGES
            time.sleep(SECONDS_BETWEEN_ATTEMPTS)
