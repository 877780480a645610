"""Many events at a time are stored as Dagster stores each."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import dagster as dg
import pytest

from serverless_assets.dagster_storage import SqliteEventLogStorage
from serverless_assets.event_log import EventLogStorage
from serverless_assets.instance import one_batch

MONTHS = dg.StaticPartitionsDefinition(["2026-01", "2026-02"])
CHECKS = [dg.AssetCheckSpec(name, asset="orders") for name in ("passes", "fails", "does_not_run")]


@dg.multi_asset(
    specs=[dg.AssetSpec("orders", partitions_def=MONTHS), dg.AssetSpec("stores")],
    check_specs=CHECKS,
    backfill_policy=dg.BackfillPolicy.single_run(),
)
def step(context: dg.AssetExecutionContext) -> Iterator[dg.AssetCheckResult]:
    """Log an event of every kind that batches have, and one without an asset."""
    context.log.info("A line.")
    key = CHECKS[0].asset_key
    for month in MONTHS.get_partition_keys():
        context.log_event(dg.AssetMaterialization("orders", partition=month, metadata={"rows": 2}))
    for version in ("1", "2"):
        context.log_event(dg.AssetMaterialization("stores", tags={"dagster/data_version": version}))
    context.log_event(dg.AssetObservation("orders", metadata={"reason": "unchanged"}))
    for check, passed in (("passes", True), ("unplanned", False)):
        context.log_event(dg.AssetCheckEvaluation(asset_key=key, check_name=check, passed=passed))
    yield dg.AssetCheckResult(check_name="fails", asset_key=key, passed=False)


def rows(folder: Path) -> dict[str, list[dict[str, object]]]:
    """The rows of every table with events, by database and table."""
    found = {}
    for path in folder.glob("*.db"):
        with closing(sqlite3.connect(path)) as connection:
            connection.row_factory = sqlite3.Row
            for table in ("event_logs", "asset_keys", "asset_event_tags", "asset_check_executions"):
                records = [dict(row) for row in connection.execute(f"select * from {table} order by id")]
                found[f"{path.name} {table}"] = [
                    {name: value for name, value in record.items() if name != "create_timestamp"}
                    for record in records
                ]
    return found


def test_batch_is_stored_as_dagster_stores_its_events_one_by_one(tmp_path):
    with dg.DagsterInstance.ephemeral() as instance:
        job = dg.Definitions(assets=[step], jobs=[dg.define_asset_job("j")]).resolve_job_def("j")
        run_id = job.execute_in_process(instance=instance, raise_on_error=False).run_id
        events = [
            event
            for event in instance.all_logs(run_id)
            if not (event.dagster_event and event.dagster_event.is_job_event)
        ]
    assert len({event.dagster_event_type for event in events}) > 7
    SqliteEventLogStorage(str(tmp_path / "one by one")).store_event_batch(events)
    EventLogStorage(str(tmp_path / "at once")).store_event_batch(events)
    assert rows(tmp_path / "at once") == rows(tmp_path / "one by one")
    # The events of the run by themselves, and the four tables of the index.
    assert sum(bool(records) for records in rows(tmp_path / "at once").values()) == 5


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    config = {"module": "serverless_assets.event_log", "class": "EventLogStorage"}
    overrides = {"event_log_storage": {**config, "config": {"base_dir": str(tmp_path / "history" / "runs")}}}
    with dg.instance_for_test(overrides, temp_dir=str(tmp_path)) as instance:
        yield instance


def test_events_of_a_run_are_in_the_order_in_which_dagster_stores_them(instance):
    @dg.multi_asset(specs=[dg.AssetSpec("a"), dg.AssetSpec("b")])
    def assets(context: dg.AssetExecutionContext) -> Iterator[dg.MaterializeResult]:
        yield dg.MaterializeResult("a")
        with one_batch(context.instance):
            context.log.info("A line.")
        yield dg.MaterializeResult("b")

    @dg.op(out=dg.Out(dg.Nothing))
    def nothing() -> None: ...

    @dg.job
    def of_an_op() -> None:
        nothing()

    def types(storage: dg.DagsterInstance) -> list[str | None]:
        runs = [job.execute_in_process(instance=storage) for job in (of_assets, of_an_op)]
        return [event.dagster_event_type for run in runs for event in storage.all_logs(run.run_id)]

    of_assets = dg.Definitions([assets], jobs=[dg.define_asset_job("j")]).resolve_job_def("j")
    with dg.instance_for_test() as one_by_one:
        assert types(instance) == types(one_by_one)


def test_events_of_a_batch_are_stored_together_or_not_at_all(instance):
    def log(asset: str) -> None:
        instance.report_runless_asset_event(dg.AssetMaterialization(asset))

    with one_batch(instance):
        log("a")
        assert not instance.all_asset_keys()
        with one_batch(instance):
            log("b")
    with pytest.raises(ZeroDivisionError), one_batch(instance):
        log("c")
        raise ZeroDivisionError
    log("d")
    assert {key.to_user_string() for key in instance.all_asset_keys()} == {"a", "b", "d"}
