"""The lock of the place that runs write to: one run at a time, whoever launched it.

Dagster's pools keep apart what its queue launches; this lock keeps apart all runs of one machine, those of
a terminal, too. The run that holds it writes into the lock file which process it is.
"""

import fcntl
import os
import time
from pathlib import Path

import dagster as dg

from serverless_assets.publishing.run_process import RunProcess

SECONDS_BETWEEN_ATTEMPTS = 0.1
SECONDS_BETWEEN_MESSAGES = 60.0


class RunLock:
    """The lock `<folder>/lock`, held until `release` or the end of the process."""

    def __init__(self, folder: Path, run_id: str, log: dg.DagsterLogManager) -> None:
        """Wait until no other run is at work in `folder`, and say at once which one is."""
        folder.mkdir(parents=True, exist_ok=True)
        self._handle: int | None = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o644)
        try:
            self._wait(folder, self._handle, log)
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

    def _wait(self, folder: Path, handle: int, log: dg.DagsterLogManager) -> None:
        holder: RunProcess | None = None
        next_message = 0.0
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                pass
            before, holder = holder, RunProcess.read(handle) or holder
            if holder != before or time.monotonic() >= next_message:
                log.info(f"Waiting for {holder or 'another run'}, which is at work in {folder}, to end.")
                next_message = time.monotonic() + SECONDS_BETWEEN_MESSAGES
            time.sleep(SECONDS_BETWEEN_ATTEMPTS)
