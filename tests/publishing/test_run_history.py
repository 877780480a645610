"""Which runs are deleted from Dagster's history, and that its state stays: on a history in files."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import dagster as dg
import pytest
from dagster import DagsterRunStatus

from serverless_assets.publishing.run_history import prune_runs

MONTHS = dg.StaticPartitionsDefinition(["2026-01", "2026-02"])


@dg.asset
def orders() -> dg.MaterializeResult:
    return dg.MaterializeResult(metadata={"picture": "x" * 50_000})


@dg.asset(partitions_def=MONTHS)
def raw_orders(context: dg.AssetExecutionContext) -> None:
    context.log_event(dg.AssetObservation("orders", partition=context.partition_key))


@dg.asset
def customers() -> None: ...


@dg.asset_check(asset=customers)
def no_duplicates() -> dg.AssetCheckResult:
    return dg.AssetCheckResult(passed=True)


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.local_temp(str(tmp_path)) as found:
        yield found


def run(instance: dg.DagsterInstance, *assets: object, month: str | None = None) -> str:
    return dg.materialize(assets, instance=instance, partition_key=month).run_id


def runs(instance: dg.DagsterInstance) -> list[str]:
    """Those that the history has, the oldest first."""
    return [found.run_id for found in reversed(instance.get_runs())]


def files_of(tmp_path: Path, run_id: str) -> list[Path]:
    return [path for path in tmp_path.rglob(f"*{run_id}*")]


def rows(tmp_path: Path, database: str, table: str, run_id: str) -> int:
    (path,) = tmp_path.rglob(database)
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(f"select count(*) from {table} where run_id = ?", (run_id,)).fetchone()[0]


def test_the_newest_runs_are_kept_and_older_ones_leave_nothing_behind(instance, tmp_path):
    all_runs = [run(instance, orders, customers, no_duplicates) for _ in range(4)]
    assert rows(tmp_path, "index.db", "asset_check_executions", all_runs[0]) == 1
    assert prune_runs(instance, 2) == 2
    assert runs(instance) == all_runs[2:]
    for run_id in all_runs[:2]:
        assert files_of(tmp_path, run_id) == []
        for database, table in (
            ("index.db", "event_logs"),
            ("index.db", "asset_check_executions"),
            ("runs.db", "run_tags"),
            ("runs.db", "runs"),
        ):
            assert rows(tmp_path, database, table, run_id) == 0
    assert instance.all_logs(all_runs[2])


def test_a_run_with_the_newest_materialization_of_an_asset_is_kept(instance):
    first = run(instance, customers)
    later = [run(instance, orders) for _ in range(3)]
    assert prune_runs(instance, 1) == 2
    assert runs(instance) == [first, later[-1]]
    assert instance.get_latest_materialization_event(dg.AssetKey("customers")).run_id == first


def test_a_run_with_the_newest_record_of_a_month_is_kept(instance):
    old = run(instance, raw_orders, month="2026-01")
    january, february = (run(instance, raw_orders, month=month) for month in ("2026-01", "2026-02"))
    last = run(instance, orders)
    assert prune_runs(instance, 1) == 1
    assert old not in runs(instance)
    assert runs(instance) == [january, february, last]
    assert instance.get_materialized_partitions(dg.AssetKey("raw_orders")) == {"2026-01", "2026-02"}


def test_a_run_with_the_newest_result_of_a_check_is_kept(instance):
    checked = run(instance, customers, no_duplicates)
    later = [run(instance, customers) for _ in range(2)]
    assert prune_runs(instance, 1) == 1
    assert runs(instance) == [checked, later[-1]]


def test_a_run_that_is_in_progress_is_kept_whatever_its_age(instance):
    (waiting,) = (
        instance.create_run_for_job(
            dg.Definitions(jobs=[dg.define_asset_job("all")], assets=[orders]).resolve_job_def("all"),
            status=status,
        )
        for status in (DagsterRunStatus.STARTED,)
    )
    for _ in range(3):
        run(instance, orders)
    assert prune_runs(instance, 1) == 2
    assert waiting.run_id in runs(instance)


def test_a_deletion_that_was_interrupted_is_finished_by_the_next(instance, tmp_path):
    all_runs = [run(instance, orders) for _ in range(2)]
    instance.event_log_storage.delete_events(all_runs[0])
    assert prune_runs(instance, 1) == 1
    assert files_of(tmp_path, all_runs[0]) == []


def test_the_history_does_not_grow_with_the_number_of_runs(instance, tmp_path):
    def size() -> int:
        return sum(path.stat().st_size for path in tmp_path.rglob("*.db"))

    for _ in range(3):
        run(instance, orders)
    prune_runs(instance, 2)
    before = size()
    for _ in range(3):
        run(instance, orders)
        prune_runs(instance, 2)
    assert size() <= before * 1.1
