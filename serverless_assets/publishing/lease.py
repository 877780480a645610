"""The lock of runs that write to one warehouse from several machines: a lease, kept in the warehouse.

It is a record that names its holder, written under the condition that nobody wrote it meanwhile. Its holder
writes it again every half minute; once a waiting run has seen no such sign of life for two minutes, it takes
the lease over. That compares no clocks of two machines. Calls for it cost nothing, where a statement would
be billed and take seconds.
"""

import json
import logging
import socket
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any
from uuid import uuid4

from google.api_core.exceptions import PreconditionFailed
from google.cloud import bigquery

from serverless_assets.errors import UserError
from serverless_assets.files import write_atomically
from serverless_assets.hashing import digest
from serverless_assets.publishing.run_lock import SECONDS_BETWEEN_MESSAGES, AtWork, RunProcess
from serverless_assets.warehouse import RECORD_PREFIX
from serverless_assets.warehouse.bigquery import BigQueryWarehouse
from serverless_assets.warehouse.bigquery_dataset import LOCK

SECONDS_BETWEEN_BEATS = 30.0
# After so long without a sign of life, the holder is taken for dead.
SECONDS_TO_LIVE = 120.0
SECONDS_BETWEEN_ATTEMPTS = 2.0
SECONDS_TO_RELEASE = 5.0
MACHINE_ID = Path("/etc/machine-id")


class LeaseLost(UserError):
    """Another run has taken over the lock."""


class Lease:
    """The lease of a warehouse, held until `release` or until its process ends."""

    def __init__(
        self, warehouse: BigQueryWarehouse, home: Path, run_id: str, log: logging.Logger, wait: bool = True
    ) -> None:
        """Wait until no other run is at work in the warehouse, and say at once which one is.

        Call it where the lock of `home` is held: a holder of the same home on this machine has died.

        Raises:
            AtWork: another run is, and this one is not to `wait`.
        """
        # With clients of its own: it is used from a thread beside the run.
        self._warehouse = warehouse.for_run(run_id)
        self._table = warehouse.reference(f"{RECORD_PREFIX}{LOCK}")
        self._holder: Mapping[str, Any] = {**asdict(RunProcess.current(run_id)), "home": _identity(home)}
        self._beats = 0
        # By the clock on the wall: the others stand still while a laptop sleeps.
        self._beat_at = time.time()
        self._taken_by: str | None = None
        self._turn = threading.Lock()
        self._has_ended = threading.Event()
        self._version = self._acquire(log, wait)
        threading.Thread(target=self._keep_beating, name="lease", daemon=True).start()

    def check(self) -> None:
        """Show a sign of life now.

        Raises:
            LeaseLost: there was none for too long, and another run is at work or was since.
        """
        with self._turn:
            self._beat()
            if self._taken_by is not None:
                raise LeaseLost(
                    f"This run did not renew its lock for {SECONDS_TO_LIVE:.0f} s, and {self._taken_by} took "
                    "over. Run again once that has ended."
                )

    def check_lately(self) -> None:
        """As `check`, without a call if a sign of life got through so lately that nobody can have taken over.

        For use before every write.
        """
        if self._taken_by is not None or not 0 <= time.time() - self._beat_at < SECONDS_TO_LIVE / 4:
            self.check()

    def release(self) -> None:
        """Let the next run in."""
        self._has_ended.set()
        # What cannot be released at once expires: a run that is stopped does not wait for an answer.
        if self._turn.acquire(timeout=SECONDS_TO_RELEASE):
            with suppress(UserError):
                if self._taken_by is None:
                    self._warehouse = replace(self._warehouse, patience=SECONDS_TO_RELEASE)
                    self._write({}, self._version)
            self._turn.release()

    def _acquire(self, log: logging.Logger, wait: bool) -> str:
        version_before, seen_at, next_message = "", 0.0, 0.0
        while True:
            holder, version = self._read()
            if version != version_before:
                version_before, seen_at = version, time.monotonic()
            has_died = holder.get("home") == self._holder["home"]
            if not holder or has_died or time.monotonic() - seen_at > SECONDS_TO_LIVE:
                if holder and not has_died:
                    log.warning(f"Taking over from {_process(holder)}, which shows no sign of life.")
                taken = self._write(self._holder, version)
                if taken:
                    return taken
                # Another run was faster, or this one by a call whose answer got lost.
                holder, version = self._read()
                if holder == self._holder:
                    return version
                continue
            if not wait:
                raise AtWork(_process(holder))
            if time.monotonic() >= next_message:
                log.info(
                    f"Waiting for {_process(holder)}, which is at work in {self._warehouse.name}, to end."
                )
                next_message = time.monotonic() + SECONDS_BETWEEN_MESSAGES
            time.sleep(SECONDS_BETWEEN_ATTEMPTS)

    def _keep_beating(self) -> None:
        while not self._has_ended.wait(SECONDS_BETWEEN_BEATS):
            # A beat that does not get through may be followed by one that does.
            with self._turn, suppress(UserError):
                if not self._has_ended.is_set():
                    self._beat()

    def _beat(self) -> None:
        if self._taken_by is not None:
            return
        self._beats += 1
        began = time.time()
        now = {**self._holder, "beats": self._beats}
        version = self._write(now, self._version)
        if version is None:
            holder, version = self._read()
            if {**holder, "beats": 0} != {**now, "beats": 0}:
                self._taken_by = str(_process(holder) or "another run")
                return
        self._version, self._beat_at = version, began

    def _read(self) -> tuple[Mapping[str, Any], str]:
        """The record, and its version, which every write changes."""
        with self._warehouse.jobs() as jobs:
            table = jobs.table(self._table) or jobs.client.create_table(
                self._table, exists_ok=True, **jobs.call
            )
        return json.loads(table.description or "{}"), table.etag

    def _write(self, holder: Mapping[str, Any], version: str) -> str | None:
        """Write the record, in one step, if it is of this version still; its new version, else None.

        That is also the answer where an answer of Google got lost and the call was made again.
        """
        # The client sends the version as the condition, `If-Match`.
        reference = {"tableReference": self._table.to_api_repr(), "etag": version}
        table = bigquery.Table.from_api_repr({**reference, "description": json.dumps(holder)})
        with self._warehouse.jobs() as jobs:
            try:
                return str(jobs.client.update_table(table, ["description"], **jobs.call).etag)
            except PreconditionFailed:
                return None


def _process(holder: Mapping[str, Any]) -> RunProcess | None:
    """The process that holds the lease, as far as the record is complete."""
    with suppress(KeyError):
        return RunProcess(**{field.name: holder[field.name] for field in fields(RunProcess)})
    return None


def _identity(home: Path) -> str:
    """What tells this home on this machine from all others, such as from a copy of it on another machine."""
    path = home / "work" / "home.json"
    try:
        name = str(json.loads(path.read_text()))
    except (OSError, ValueError):
        name = uuid4().hex
        write_atomically(path, json.dumps(name).encode())
    # Machines that were cloned may have one host name, and containers of one image one id.
    machine_id = MACHINE_ID.read_text().strip() if MACHINE_ID.is_file() else ""
    return digest(f"{name} {socket.gethostname()} {machine_id}")
