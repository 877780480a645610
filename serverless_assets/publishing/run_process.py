"""The process that executes a run, and whether it is still alive.

A run that is executed keeps the file `<home>/running/<run id>.json` locked (flock). The operating system
drops the lock when the process ends, however it ends: a file without a lock is that of a dead run. That
needs no process id, which another process may have by now, and judges no run of another machine, whose file
is in another home.
"""

import fcntl
import json
import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg

from serverless_assets.files import claimed_file

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


def end_dead_runs(home: Path, instance: dg.DagsterInstance) -> Sequence[str]:
    """Mark as failed each run whose process has ended without a word, and return a sentence on each."""
    sentences = []
    folder = _folder(home)
    for path in sorted(folder.glob("*.json")) if folder.is_dir() else []:
        with suppress(OSError):
            handle = os.open(path, os.O_RDONLY)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                sentence = _end_dead_run(instance, path.stem, RunProcess.read(handle))
                sentences += [sentence] if sentence else []
                path.unlink()
            finally:
                os.close(handle)
    return sentences


def _end_dead_run(instance: dg.DagsterInstance, run_id: str, process: RunProcess | None) -> str | None:
    run = instance.get_run_by_id(run_id)
    if run is None or run.is_finished:
        return None
    where = f" {process.pid} on {process.host}" if process else ""
    began = f", begun {process.since}," if process else ""
    sentence = (
        f"Run {run_id[:8]} of {run.job_name}{began} has died: its process{where} was killed or ended before "
        "the run did. What it finished is kept; run again to go on from there."
    )
    if run.status == dg.DagsterRunStatus.CANCELING:
        instance.report_run_canceled(run, sentence)
    else:
        instance.report_run_failed(run, sentence)
    return sentence


def _folder(home: Path) -> Path:
    return home / "running"
