"""Retention of Dagster's runs: the newest ones, those in progress, and those that its asset pages rest on.

A run that has the newest event of an asset, of one of its partitions or of one of its checks is kept
whatever its age: what is reused, loaded months and the state of checks are read from these events.
"""

import sqlite3
from contextlib import closing, suppress
from pathlib import Path

import dagster as dg
from dagster import DagsterEventType as Type
from sqlalchemy import func, select

from serverless_assets.dagster_storage import SqlEventLogStorage, SqliteEventLogStorage
from serverless_assets.event_log import CHECKS, EVENTS

# So that a history of years does not hold up the run that first prunes it.
RUNS_AT_ONCE = 50
# SQLite reuses the room of deleted rows; only a file that is mostly empty is worth being written anew.
WORTH_A_VACUUM = 0.5


def prune_runs(instance: dg.DagsterInstance, newest: int) -> int:
    """Delete old runs with their events and logs, and return how many; the `newest` are kept."""
    if instance.get_runs_count() <= newest:
        return 0
    records = instance.get_run_records()
    old = [record.dagster_run for record in records[newest:] if record.dagster_run.is_finished]
    needed = _runs_of_newest_events(instance) if old else set()
    # The oldest first: what is stopped in the middle goes on from there.
    deleted = [run.run_id for run in reversed(old) if run.run_id not in needed][:RUNS_AT_ONCE]
    for run_id in deleted:
        _delete(instance, run_id)
    if deleted and isinstance(instance.event_log_storage, SqliteEventLogStorage):
        _shrink(Path(instance.event_log_storage.path_for_shard("index")))
    return len(deleted)


def _runs_of_newest_events(instance: dg.DagsterInstance) -> set[str]:
    """The runs of the newest materialization and observation of each asset and of each of its partitions, and
    of the newest evaluation of each check: a query for all, as there are thousands."""
    storage = instance.event_log_storage
    if not isinstance(storage, SqlEventLogStorage):
        raise TypeError(f"the newest events of a {type(storage).__name__} are not known")
    of_assets = EVENTS.c.dagster_event_type.in_(
        [Type.ASSET_MATERIALIZATION.value, Type.ASSET_OBSERVATION.value]
    )
    by_partition = (EVENTS.c.asset_key, EVENTS.c.dagster_event_type, EVENTS.c.partition)
    by_check = (CHECKS.c.asset_key, CHECKS.c.check_name, CHECKS.c.partition)
    newest_events = select(func.max(EVENTS.c.id)).where(of_assets).group_by(*by_partition)
    newest_checks = select(func.max(CHECKS.c.id)).group_by(*by_check)
    with storage.index_connection() as connection:
        return {
            str(run_id)
            for table, ids in ((EVENTS, newest_events), (CHECKS, newest_checks))
            for (run_id,) in connection.execute(select(table.c.run_id).where(table.c.id.in_(ids)).distinct())
        }


def _delete(instance: dg.DagsterInstance, run_id: str) -> None:
    """Do what `DagsterInstance.delete_run`, the public API, does, but delete the run itself last, so that an
    interrupted deletion is done again; and what it leaves in SQLite: a file for each run, and the rows of
    its checks and tags."""
    instance.compute_log_manager.delete_logs(prefix=[run_id])
    storage = instance.event_log_storage
    storage.delete_events(run_id)
    if isinstance(storage, SqliteEventLogStorage):
        index = Path(storage.path_for_shard("index"))
        tables = {index: "asset_check_executions", index.parent.parent / "runs.db": "run_tags"}
        for path, table in tables.items():
            with closing(sqlite3.connect(path)) as connection, connection:
                connection.execute(f"delete from {table} where run_id = ?", (run_id,))
        events = Path(storage.path_for_shard(run_id))
        for name in (events.name, f"{events.name}-wal", f"{events.name}-shm"):
            events.with_name(name).unlink(missing_ok=True)
    instance.run_storage.delete_run(run_id)


def _shrink(path: Path) -> None:
    with closing(sqlite3.connect(path, timeout=1)) as connection:
        (pages,) = connection.execute("pragma page_count").fetchone()
        (free,) = connection.execute("pragma freelist_count").fetchone()
        # Another process may be using it: then the next run does it.
        with suppress(sqlite3.OperationalError):
            if free > pages * WORTH_A_VACUUM:
                connection.execute("vacuum")
