"""Retention of Dagster's runs: the newest ones, those in progress, and those that its asset pages rest on.

A run that has the newest event of an asset, of one of its partitions or of one of its checks is kept
whatever its age: what is reused, loaded months and the state of checks are read from these events.
"""

import sqlite3
from contextlib import closing, suppress
from pathlib import Path

import dagster as dg
from dagster import DagsterEventType as Type

from serverless_assets.dagster_internals import SqliteEventLogStorage

# So that a history of years does not hold up the run that first prunes it.
RUNS_AT_ONCE = 50
EVENTS_AT_ONCE = 500
# SQLite reuses the room of deleted rows; only a file that is mostly empty is worth being written anew.
WORTH_A_VACUUM = 0.5


def prune_runs(instance: dg.DagsterInstance, newest: int) -> int:
    """Delete old runs with their events and logs, and return how many; the `newest` are kept."""
    if instance.get_runs_count() <= newest:
        return 0
    records = instance.get_run_records()
    old = [record.dagster_run for record in records[newest:] if record.dagster_run.is_finished]
    needed = _runs_of_newest_asset_events(instance) if old else set()
    # The oldest first: what is stopped in the middle goes on from there.
    candidates = [run.run_id for run in reversed(old) if run.run_id not in needed]
    deleted = 0
    for run_id in candidates:
        if deleted == RUNS_AT_ONCE:
            break
        if not _has_newest_check(instance, run_id):
            _delete(instance, run_id)
            deleted += 1
    if deleted and isinstance(instance.event_log_storage, SqliteEventLogStorage):
        _shrink(Path(instance.event_log_storage.path_for_shard("index")))
    return deleted


def _runs_of_newest_asset_events(instance: dg.DagsterInstance) -> set[str]:
    """The runs of the newest materialization and observation of each asset and of each of its partitions."""
    storage, runs = instance.event_log_storage, set()
    for key in instance.all_asset_keys():
        for event_type, fetch in (
            (Type.ASSET_MATERIALIZATION, instance.fetch_materializations),
            (Type.ASSET_OBSERVATION, instance.fetch_observations),
        ):
            runs |= {record.run_id for record in fetch(key, limit=1).records}
            ids = sorted(storage.get_latest_storage_id_by_partition(key, event_type).values())
            for start in range(0, len(ids), EVENTS_AT_ONCE):
                some = ids[start : start + EVENTS_AT_ONCE]
                records = fetch(dg.AssetRecordsFilter(asset_key=key, storage_ids=some), limit=len(some))
                runs |= {record.run_id for record in records.records}
    return runs


def _has_newest_check(instance: dg.DagsterInstance, run_id: str) -> bool:
    events = (entry.dagster_event for entry in instance.all_logs(run_id, of_type=Type.ASSET_CHECK_EVALUATION))
    keys = {event.asset_check_evaluation_data.asset_check_key for event in events if event}
    newest = instance.event_log_storage.get_latest_asset_check_execution_by_key(list(keys)) if keys else {}
    return any(execution.run_id == run_id for execution in newest.values())


def _delete(instance: dg.DagsterInstance, run_id: str) -> None:
    """Do what `DagsterInstance.delete_run`, the public API, does, but delete the run itself last, so that an
    interrupted deletion is done again; and what it leaves in SQLite: a file for each run, and the rows of
    its checks and tags."""
    instance.compute_log_manager.delete_logs(prefix=[run_id])
    storage = instance.event_log_storage
    storage.delete_events(run_id)
    if isinstance(storage, SqliteEventLogStorage):
        index = Path(storage.path_for_shard("index"))
        _execute(index, "delete from asset_check_executions where run_id = ?", run_id)
        _execute(index.parent.parent / "runs.db", "delete from run_tags where run_id = ?", run_id)
        _delete_file(Path(storage.path_for_shard(run_id)))
    instance.run_storage.delete_run(run_id)


def _execute(path: Path, statement: str, run_id: str) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(statement, (run_id,))


def _delete_file(path: Path) -> None:
    for name in (path.name, f"{path.name}-wal", f"{path.name}-shm"):
        path.with_name(name).unlink(missing_ok=True)


def _shrink(path: Path) -> None:
    with closing(sqlite3.connect(path, timeout=1)) as connection:
        (pages,) = connection.execute("pragma page_count").fetchone()
        (free,) = connection.execute("pragma freelist_count").fetchone()
        # Another process may be using it: then the next run does it.
        with suppress(sqlite3.OperationalError):
            if free > pages * WORTH_A_VACUUM:
                connection.execute("vacuum")
