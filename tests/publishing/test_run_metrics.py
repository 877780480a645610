"""What runs leave behind for the UI to plot: `pipeline_runs`."""

import dagster as dg
import pytest

from serverless_assets import metadata
from serverless_assets.names import PIPELINE_RUNS
from serverless_assets.publishing.outcome import AssetOutcome, asset_outcomes
from serverless_assets.publishing.summary import RunSummary, record_of
from serverless_assets.run_inputs import Reload, RunInputs
from tests.conftest import Pipeline


def records(pipeline: Pipeline) -> list[dict[str, object]]:
    found = pipeline.instance.fetch_materializations(dg.AssetKey(PIPELINE_RUNS), limit=10).records
    return [metadata.plain_values(record.asset_materialization.metadata) for record in found]


def summary(*assets: AssetOutcome) -> RunSummary:
    return RunSummary("abcdef0123", "transform", True, True, "", 2.5, None, "here", assets)


def test_a_run_leaves_one_record_with_the_totals_of_its_summary(green):
    (found,) = records(green)
    document = green.summary
    assert found == {**document["totals"], "run": document["run_id"], "job": "serverless_pipeline"}
    assert found["built"] == 24 and found["rows"] > 0 and found["seconds"] > 0
    # Nobody charges for what is done on a laptop.
    assert not {"cost_usd", "bytes_billed", "slot_seconds"} & found.keys()


def test_a_failed_run_leaves_one_too(pipeline):
    nowhere = f"{pipeline.variables['SERVERLESS_DATASET_URL']}/nowhere"
    assert not pipeline.run(
        RunInputs(ingestion=Reload(dataset_url=nowhere)), job="ingest", assets=["raw_stores"]
    ).success
    (found,) = records(pipeline)
    assert found["failed"] == pipeline.summary["totals"]["failed"] == 1


def test_no_job_and_no_sensor_makes_it(green):
    key, repository = dg.AssetKey(PIPELINE_RUNS), green.definitions.get_repository_def()
    assert key in repository.asset_graph.get_all_asset_keys()
    assert not any(key in job.asset_layer.executable_asset_keys for job in repository.get_all_jobs())
    for sensor in repository.sensor_defs:
        selection = sensor.asset_selection
        assert selection is None or key not in selection.resolve(repository.asset_graph)
    # A condition on it would have Dagster add a sensor of its own.
    assert repository.asset_graph.get(key).automation_condition is None


def test_its_owner_and_what_it_is_are_told(green):
    node = green.definitions.resolve_asset_graph().get(dg.AssetKey(PIPELINE_RUNS))
    assert (node.group_name, node.owners) == ("operations", [green.settings.owner])
    assert "US dollars" in node.description


@pytest.mark.parametrize(
    ("assets", "spent"),
    [
        ((), {}),
        ((AssetOutcome("a", "built", ""),), {}),
        # Free of charge is not the same as not charged for.
        ((AssetOutcome("a", "built", "", cost_usd=0.0),), {"cost_usd": 0.0}),
        (
            (
                AssetOutcome("a", "built", "", bytes_billed=10, slot_seconds=0.5, cost_usd=0.1),
                AssetOutcome("b", "reused", ""),
                AssetOutcome("c", "failed", "", bytes_billed=20, slot_seconds=1.5, cost_usd=0.2),
            ),
            {"bytes_billed": 30, "slot_seconds": 2.0, "cost_usd": 0.3},
        ),
    ],
)
def test_what_was_spent_is_added_up_where_it_is_known(assets, spent):
    found = summary(*assets)
    totals = found.as_json()["totals"]
    assert {name: totals[name] for name in metadata.SPENT if name in totals} == spent
    told = metadata.plain_values(record_of(found).metadata)
    assert {name: told[name] for name in metadata.SPENT if name in told} == spent


def test_a_total_says_what_it_leaves_out():
    unknown = AssetOutcome("a", "built", "", bytes_billed=10, cost_unknown="BigQuery in europe-west3")
    assert summary(unknown).totals["cost_unknown"] == "BigQuery in europe-west3"
    assert "cost_unknown" not in summary(AssetOutcome("a", "built", "")).totals


def test_what_the_tests_of_a_model_cost_is_part_of_what_it_costs_and_those_that_warn_are_named():
    orders, spent = dg.AssetKey("orders"), {"bytes_billed": 10, "slot_seconds": 0.25, "cost_usd": 0.1}

    @dg.asset_check(asset=orders)
    def sound() -> dg.AssetCheckResult:
        return dg.AssetCheckResult(passed=False, severity=dg.AssetCheckSeverity.WARN, metadata=spent)

    @dg.asset(name="orders")
    def made() -> dg.MaterializeResult:
        return dg.MaterializeResult(metadata={**metadata.outcome("built", "new"), **spent})

    definitions = dg.Definitions(assets=[made], asset_checks=[sound])
    with dg.DagsterInstance.ephemeral() as instance:
        job = definitions.resolve_implicit_global_asset_job_def()
        run = job.execute_in_process(instance=instance).run_id
        (found,) = asset_outcomes(e.dagster_event for e in instance.all_logs(run) if e.dagster_event)
    assert (found.bytes_billed, found.slot_seconds, found.cost_usd) == (20, 0.5, 0.2)
    assert (found.status, found.warnings) == ("built", ["sound"])
