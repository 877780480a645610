"""Dagster's event log in SQLite, written many events at a time.

Dagster's own storage opens two databases for each event, writes it with up to seven statements and commits to
both. Here a batch is one transaction in each. The rows are those that Dagster writes; batches in
`SqliteEventLogStorage` would replace this file.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from threading import get_ident
from typing import Any

import dagster as dg
from dagster import DagsterEventType as Type
from sqlalchemy import Connection, bindparam
from sqlalchemy.dialects.sqlite import insert

from serverless_assets.dagster_storage import (
    AssetCheckStatus,
    EventRows,
    SqlEventLogStorageMetadata,
    SqliteEventLogStorage,
)

EVENTS = SqlEventLogStorageMetadata.tables["event_logs"]
ASSETS = SqlEventLogStorageMetadata.tables["asset_keys"]
CHECKS = SqlEventLogStorageMetadata.tables["asset_check_executions"]

CHECK_EVENTS = {Type.ASSET_CHECK_EVALUATION, Type.ASSET_CHECK_EVALUATION_PLANNED}
# Events that Dagster also keeps in the index, as far as batches have them.
INDEXED_EVENTS = CHECK_EVENTS | {
    Type.ASSET_MATERIALIZATION,
    Type.ASSET_OBSERVATION,
    Type.ASSET_MATERIALIZATION_PLANNED,
}

Row = dict[str, Any]

UPDATE_CHECK = CHECKS.update().where(
    *(
        CHECKS.c[column].is_not_distinct_from(bindparam(f"known_{column}"))
        for column in ("asset_key", "check_name", "run_id", "partition")
    )
)


class BatchedEvents(EventRows):
    """A storage that collects the events of a thread in a batch, and stores them together."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        # The events that a thread keeps back until its batch is complete.
        self._kept: dict[int, list[dg.EventLogEntry]] = {}
        # The outputs of steps that a thread keeps back until its next event of the run.
        self._outputs: dict[tuple[int, str], list[dg.EventLogEntry]] = {}
        super().__init__(*args, **kwargs)

    @contextmanager
    def batch(self) -> Iterator[None]:
        """Store the events of a run that this thread logs in the block all together, or none of them."""
        thread = get_ident()
        if thread in self._kept:
            yield
            return
        kept = self._kept[thread] = []
        try:
            yield
        finally:
            del self._kept[thread]
        if kept:
            self.store_event_batch(kept)

    def store_event(self, event: dg.EventLogEntry) -> None:
        thread = get_ident()
        type = event.dagster_event.event_type if event.dagster_event else None
        if thread in self._kept:
            self._kept[thread].append(event)
        elif type == Type.STEP_OUTPUT:
            # There is one for each asset. It can wait, as the step logs another event after it.
            self._outputs.setdefault((thread, event.run_id), []).append(event)
        elif type in INDEXED_EVENTS:
            self.store_event_batch([event])
        else:
            if (thread, event.run_id) in self._outputs:
                self.store_event_batch(self._outputs.pop((thread, event.run_id)))
            super().store_event(event)

    def _store_in_index(self, connection: Connection, events: Sequence[tuple[dg.EventLogEntry, Row]]) -> None:
        (_, first), *others = events
        first_id: int = connection.execute(EVENTS.insert().returning(EVENTS.c.id), first).scalar_one()
        # The transaction has the write lock from its first row on, so that the next ids are free.
        if others:
            rows = [{**row, "id": id} for id, (_, row) in enumerate(others, first_id + 1)]
            connection.execute(EVENTS.insert(), rows)
        of_assets = {}
        for id, (entry, row) in enumerate(events, first_id):
            event = entry.dagster_event
            if event and event.event_type in CHECK_EVENTS:
                self._store_check(connection, id, event, row)
            elif event and event.event_type in INDEXED_EVENTS:
                self._store_asset(connection, id, event, row)
                of_assets[id] = entry
        self.store_tags(connection, [*of_assets.values()], [*of_assets])

    def _store_asset(self, connection: Connection, id: int, event: dg.DagsterEvent, row: Row) -> None:
        """Update the row of an asset with its newest event."""
        values: Row = {"last_materialization_timestamp": row["timestamp"]}
        if event.event_type != Type.ASSET_OBSERVATION:
            values["last_run_id"] = row["run_id"]
        if event.event_type == Type.ASSET_MATERIALIZATION:
            # An `EventLogRecord` as JSON: its entry is serialised already.
            values["last_materialization"] = (
                f'{{"__class__": "EventLogRecord", "event_log_entry": {row["event"]}, "storage_id": {id}}}'
            )
        statement = insert(ASSETS).values(asset_key=row["asset_key"], **values)
        connection.execute(statement.on_conflict_do_update([ASSETS.c.asset_key], set_=values))

    def _store_check(self, connection: Connection, id: int, event: dg.DagsterEvent, row: Row) -> None:
        """Insert the row of a check in a run when it is planned, and update it when it was evaluated."""
        values: Row = {
            "evaluation_event": row["event"],
            "evaluation_event_timestamp": row["timestamp"],
            "evaluation_event_storage_id": id,
        }
        partitions: list[str | None] = [None]
        if is_planned := event.event_type == Type.ASSET_CHECK_EVALUATION_PLANNED:
            planned = event.asset_check_planned_data
            check, status = planned.asset_check_key, AssetCheckStatus.PLANNED
            if planned.partitions_subset:
                partitions = [*planned.partitions_subset.get_partition_keys()]
        else:
            evaluation = event.asset_check_evaluation_data
            check, target = evaluation.asset_check_key, evaluation.target_materialization_data
            status = AssetCheckStatus.SUCCEEDED if evaluation.passed else AssetCheckStatus.FAILED
            values["materialization_event_storage_id"] = target.storage_id if target else None
            partitions = [evaluation.partition]
        values["execution_status"] = status.value
        key = {"asset_key": check.asset_key.to_string(), "check_name": check.name, "run_id": row["run_id"]}
        for partition in partitions:
            place = {**key, "partition": partition}
            planned_at = {f"known_{column}": value for column, value in place.items()}
            if is_planned or not connection.execute(UPDATE_CHECK, {**planned_at, **values}).rowcount:
                connection.execute(CHECKS.insert(), {**place, **values})


class EventLogStorage(BatchedEvents, SqliteEventLogStorage):
    """The event log of `dagster.yaml`: a file for each run, and an index over all of them."""

    @classmethod
    def from_config_value(cls, inst_data: Any, config_value: Any) -> "EventLogStorage":
        return cls(inst_data=inst_data, **config_value)

    def store_event_batch(self, events: Sequence[dg.EventLogEntry]) -> None:
        """Store events of one run, none of which changes its status, and the outputs before them."""
        events = [*self._outputs.pop((get_ident(), events[0].run_id), []), *events]
        rows = [self.row_of(event) for event in events]
        indexed = [
            (event, row)
            for event, row in zip(events, rows, strict=True)
            if event.dagster_event and event.dagster_event.event_type in INDEXED_EVENTS
        ]
        with self.run_connection(events[0].run_id) as connection:
            connection.execute(EVENTS.insert(), rows)
        if indexed:
            with self.index_connection() as connection:
                self._store_in_index(connection, indexed)
