"""Runs that write to the same place take turns, whoever launched them: the UI, or a person at a terminal.

Dagster's pools keep apart what its queue launches; this lock keeps apart all runs of one machine.
"""

from pathlib import Path

import dagster as dg
from filelock import FileLock, Timeout


def take_turn(folder: Path, log: dg.DagsterLogManager) -> FileLock:
    """Wait until no other run is at work in `folder`; release the lock to let the next one in."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / "lock")
    try:
        lock.acquire(blocking=False)
    except Timeout:
        log.info(f"Another run is at work in {folder}. Waiting for it to end.")
        lock.acquire()
    return lock
