"""Jobs for what people do often: they open on a form that is filled in for it."""

import dagster as dg
import pytest

from serverless_assets.automation.jobs import JOBS, define_jobs, forecast_jobs
from serverless_assets.cli.request import fill_in
from serverless_assets.run_inputs import RunInputs, run_inputs
from tests.conftest import SHOP, Pipeline

ALL_JOBS = {**JOBS, **forecast_jobs(SHOP)}


def form(job: str) -> dict:
    return ALL_JOBS[job].config["resources"]["run_inputs"]["config"]


def assets(green: Pipeline, job: str) -> set[str]:
    found = green.definitions.resolve_job_def(job).asset_layer.executable_asset_keys
    return {key.to_user_string() for key in found}


def test_every_job_says_when_to_use_it_and_opens_on_the_choices_that_it_takes_into_account():
    assert all(job.description for job in define_jobs(ALL_JOBS))
    assert {name: list(form(name)) for name in ALL_JOBS} == {
        "serverless_pipeline": list(RunInputs.model_fields),
        "ingest": ["rebuild", "ingestion"],
        "transform": ["rebuild", "deleted_models"],
        "full_rebuild": list(RunInputs.model_fields),
        "forecast": ["rebuild", "forecast"],
        "forecast_on_a_bigger_machine": ["rebuild", "forecast"],
    }


def test_a_full_rebuild_is_the_main_job_with_everything_done_again(green):
    assert form("full_rebuild")["rebuild"] == "all"
    assert assets(green, "full_rebuild") == assets(green, "serverless_pipeline")
    assert green.definitions.resolve_job_def("full_rebuild").run_config == JOBS["full_rebuild"].config


def test_a_bigger_machine_is_for_the_forecast_alone(green):
    run = form("forecast_on_a_bigger_machine")["forecast"]["run"]
    assert (run["cpu"], run["memory"]) == ("4.0", "4096")
    assert assets(green, "forecast_on_a_bigger_machine") == {
        "order_forecast",
        "store_forecast",
        "supply_plan",
        "forecast_accuracy",
        "forecast_accuracy_by_store",
        "forecast_report",
    }


def test_a_preset_runs_from_its_own_form(pipeline):
    found = pipeline.definitions.resolve_job_def("forecast_on_a_bigger_machine")
    result = found.execute_in_process(run_config=found.run_config, instance=pipeline.instance)
    assert result.success
    # A size is no reason to forecast again.
    assert pipeline.reason("order_forecast") == "unchanged: same history, parameters and code"


@pytest.mark.parametrize("job", ["full_rebuild", "serverless_pipeline"])
def test_from_a_shell_a_job_opens_on_its_own_form_and_flags_change_that(green, job):
    found = green.definitions.resolve_job_def(job)
    assert fill_in(found, run_inputs().choices) == JOBS[job].config
    if job != "full_rebuild":
        changed = fill_in(found, run_inputs(reuse=True, skip_forecast=True).choices)
        assert changed["resources"]["run_inputs"]["config"] == {
            **form(job),
            "ingestion": {"reuse": {}},
            "forecast": {"skip": {}},
        }
    rebuilt = fill_in(found, run_inputs(rebuild=True, drop_deleted=True).choices)
    assert rebuilt["resources"]["run_inputs"]["config"]["rebuild"] == "all"
    assert rebuilt["resources"]["run_inputs"]["config"]["deleted_models"] == "drop"


def test_transform_takes_every_model_in_whatever_folder_it_is():
    @dg.multi_asset(
        specs=[
            dg.AssetSpec("orders", group_name="marts", kinds={"dbt", "duckdb"}),
            dg.AssetSpec("margins", group_name="a_new_folder", kinds={"dbt", "duckdb"}),
            dg.AssetSpec("raw_orders", group_name="ingestion", kinds={"parquet"}),
        ]
    )
    def assets(): ...

    graph = dg.Definitions(assets=[assets]).resolve_asset_graph()
    selected = JOBS["transform"].selection.resolve(graph)
    assert {key.to_user_string() for key in selected} == {"orders", "margins"}
