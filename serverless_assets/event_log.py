"""Dagster's event log in SQLite, written many events at a time.

Dagster's own storage opens two databases for each event and commits to both, which in a run that reuses a
project of 1,000 models takes most of the time. Batches in `SqliteEventLogStorage` would replace this file.
"""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from threading import RLock
from typing import Any

import dagster as dg

from serverless_assets.dagster_internals import SqliteEventLogStorage


class EventLogStorage(SqliteEventLogStorage):
    """The event log of `dagster.yaml`: a file for each run, and an index over all of them."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        # One thread at a time is in a transaction, and connects again for each of its events.
        self._turn = RLock()
        self._open: dict[str, Any] = {}
        self._tables: set[str] = set()
        super().__init__(*args, **kwargs)
        self._db_lock = self._turn  # type: ignore[assignment]

    @classmethod
    def from_config_value(cls, inst_data: Any, config_value: Any) -> "EventLogStorage":
        return cls(inst_data=inst_data, **config_value)

    @contextmanager
    def transaction(self, run_id: str) -> Iterator[None]:
        """Write the events of a run that this thread stores meanwhile all together, or none of them."""
        with self._turn:
            if self._open:
                yield
                return
            with super()._connect(run_id) as run, super()._connect("index") as index:
                self._open = {run_id: run, "index": index}
                try:
                    yield
                finally:
                    self._open = {}

    def store_event_batch(self, events: Sequence[dg.EventLogEntry]) -> None:
        with self.transaction(events[0].run_id):
            super().store_event_batch(events)

    def has_table(self, table_name: str) -> bool:
        """Return whether the index has a table. Dagster asks for each event, and never drops one."""
        if table_name not in self._tables and super().has_table(table_name):
            self._tables.add(table_name)
        return table_name in self._tables

    @contextmanager
    def _connect(self, shard: str) -> Iterator[Any]:
        with self._turn:
            if shard in self._open:
                yield self._open[shard]
                return
            with super()._connect(shard) as connection:
                yield connection


def one_transaction(instance: dg.DagsterInstance, run_id: str) -> AbstractContextManager[None]:
    """Store the events that this thread logs for a run in one transaction, where that can be done."""
    storage = instance.event_log_storage
    return storage.transaction(run_id) if isinstance(storage, EventLogStorage) else nullcontext()
