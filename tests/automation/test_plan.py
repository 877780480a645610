import re

import dagster as dg
import pytest

from serverless_assets.automation.plan import dry_run
from serverless_assets.automation.plan_forecasts import plan_forecast
from serverless_assets.automation.planned import Planned, plan_lines, plan_summary
from serverless_assets.environments import environment
from serverless_assets.names import NAMES_OF_FAILED, name_some
from serverless_assets.publishing.outcome import PendingAssets
from serverless_assets.run_inputs import CustomisedStyle, RunForecast, RunInputs
from serverless_assets.settings import Settings
from tests.conftest import NO_FORECAST, SHOP, Pipeline
from tests.publishing.test_run_metrics import records as run_records
from tests.test_pipeline import change_work


def planned(pipeline: Pipeline, inputs: RunInputs | None = None) -> dict[str, tuple[str, str]]:
    found = dry_run(pipeline.parts, (inputs or RunInputs()).checked())
    return {one.asset: (one.verdict, one.reason) for one in found}


def test_before_the_first_run_everything_is_to_be_done_and_no_warehouse_is_made(empty):
    found = planned(empty)
    assert found["raw_orders"] == ("load", "loaded from the source: first load")
    assert found["orders"] == ("build", "new")
    assert found["order_forecast"] == ("forecast", "first forecast")
    assert found["store_forecast"] == ("forecast", "first forecast of stores")
    assert found["forecast_report"] == ("write", "first report of this name")
    assert found["supply_plan"] == ("compute", "new")
    assert not (empty.home / "work" / "warehouse.duckdb").exists()


def test_a_plan_is_what_the_run_then_does(pipeline):
    change_work(pipeline, "drop table dwh.customers")
    found = planned(pipeline, NO_FORECAST)
    assert found["customers"] == ("build", "relation missing")
    assert pipeline.run(NO_FORECAST).success
    done = {name: found["reason"] for name, found in pipeline.summary["assets"].items()}
    assert {name: reason for name, (_, reason) in found.items()} == done


FORECASTING = (
    "order_forecast", "store_forecast", "forecast_accuracy", "forecast_accuracy_by_store",
    "supply_plan", "forecast_report",
)  # fmt: skip
DO, LEAVE = {"forecast", "score", "compute", "write", "depends"}, {"reuse"}


@pytest.mark.parametrize(
    ("statement", "planned_work"),
    [
        (
            "drop table dwh.store_forecast; drop table dwh.forecast_accuracy;"
            " drop table dwh.forecast_accuracy_by_store",
            {*FORECASTING[1:]},
        ),
        (
            "delete from dwh.store_forecast where ds = (select max(ds) from dwh.store_forecast)",
            {"store_forecast", "supply_plan", "forecast_report"},
        ),
        (
            "delete from dwh.order_forecast where ds = (select max(ds) from dwh.order_forecast)",
            {*FORECASTING[:2], "supply_plan", "forecast_report"},
        ),
        (
            "update dwh.order_forecast set yhat_lower_95 = -5.0",
            {*FORECASTING[:2], "supply_plan", "forecast_report"},
        ),
        ("drop table dwh.supply_plan", {"supply_plan", "forecast_report"}),
    ],
)
def test_a_plan_of_the_forecasts_is_what_the_run_then_does(pipeline, statement, planned_work):
    change_work(pipeline, statement)
    plan = planned(pipeline)
    assert {name for name in FORECASTING if plan[name][0] in DO} == planned_work
    assert {name for name in FORECASTING if plan[name][0] in LEAVE} == {*FORECASTING} - planned_work
    assert pipeline.run(job="forecast").success
    for name in FORECASTING:
        outcome = pipeline.summary["assets"][name]
        verdict, reason = plan[name]
        if verdict == "reuse":
            assert outcome["status"] == "reused", name
        elif verdict != "depends":
            assert outcome["status"] == "built", name
            assert outcome["reason"] == reason or reason.startswith("upstream rebuilt"), name


def test_a_rebuild_is_planned_of_all_assets_as_it_makes_all(pipeline):
    """Whatever rows they read, as the run forecasts from models that it builds itself."""
    plan = planned(pipeline, RunInputs(rebuild="all"))
    assert {reason for _, reason in plan.values()} == {"forced: rebuild all"}
    assert not [name for name, (verdict, _) in plan.items() if verdict == "depends"]


def test_a_page_that_is_gone_or_of_other_colours_is_planned_to_be_written(pipeline):
    (pipeline.home / "work" / "artifacts" / "forecast.html").unlink()
    assert planned(pipeline)["forecast_report"] == ("write", "first report of this name")
    style = CustomisedStyle(html_report="other.html", color_history="teal")
    plan = planned(pipeline, RunInputs(forecast=RunForecast(style=style)))
    assert plan["forecast_report"] == ("write", "first report of this name")
    assert plan["order_forecast"][0] == "reuse"


def test_a_section_whose_tests_failed_is_planned_anew_and_the_report_after_it(pipeline):
    pipeline.warehouse.write_states({"supply_plan": {"dirty_reason": "last tests failed: unique"}})
    plan = planned(pipeline)
    assert plan["supply_plan"] == ("compute", "last tests failed: unique")
    assert plan["forecast_report"][0] == "depends"


def test_other_days_are_a_forecast_and_nothing_else(pipeline):
    style = CustomisedStyle(nr_days_fcst=30)
    found = planned(pipeline, RunInputs(forecast=RunForecast(style=style)))
    assert found["order_forecast"] == ("forecast", "horizon changed (180 to 30 days)")
    rest = {name: found[name][0] for name in pipeline.outcomes if "forecast" not in name}
    assert rest.pop("supply_plan") == "depends"
    assert {*rest.values()} == {"reuse"}


def test_everything_is_planned_when_everything_is_asked_for_and_a_plan_changes_nothing(pipeline):
    before = (pipeline.home / "work" / "warehouse.duckdb").read_bytes()
    found = planned(pipeline, RunInputs(rebuild="all"))
    assert (pipeline.home / "work" / "warehouse.duckdb").read_bytes() == before
    assert {reason for _, reason in found.values() if "forced" in reason} == {"forced: rebuild all"}
    assert "reuse" not in {verdict for verdict, _ in found.values()}


def test_the_job_shows_the_plan_as_a_table_and_is_no_run_on_record(pipeline):
    job = pipeline.definitions.resolve_job_def("plan")
    result = job.execute_in_process(
        run_config=dg.RunConfig(resources={"run_inputs": RunInputs()}), instance=pipeline.instance
    )
    (event,) = [e for e in result.all_events if e.event_type == dg.DagsterEventType.STEP_OUTPUT]
    records = event.step_output_data.metadata["plan"].records
    verdicts = {record.data["asset"]: record.data["verdict"] for record in records}
    assert verdicts.keys() == pipeline.summary["assets"].keys()
    assert {verdicts[name] for name in pipeline.outcomes} == {"reuse"}
    assert run_records(pipeline) == []


def test_the_command_says_the_plan(pipeline, serverless):
    told = serverless(pipeline, "plan")
    assert told.exit_code == 0, told.output
    *lines, blank, summary = told.stdout.splitlines()[1:]
    assert (blank, summary) == ("", f"{len(pipeline.outcomes)} to reuse")
    assert {line.split()[0] for line in lines} == pipeline.summary["assets"].keys()
    assert told.stdout.count("unchanged") == len(pipeline.outcomes)


def test_a_plan_of_a_job_and_its_months_is_what_that_run_then_does(pipeline, serverless):
    words = ("transform", "--rebuild", "--months", "2024-11")
    told = serverless(pipeline, "plan", *words)
    assert told.exit_code == 0, told.output
    planned = {line.split()[0]: line for line in told.stdout.splitlines()[1:-2]}
    assert "build, 1 month " in planned["orders"]
    assert serverless(pipeline, "run", *words).exit_code == 0
    done = pipeline.summary["assets"]
    assert planned.keys() == done.keys()
    assert all(line.endswith(done[name]["reason"]) for name, line in planned.items())


def test_a_plan_of_a_job_leaves_out_all_others_and_fetches_only_what_that_run_would(empty, serverless):
    ingest = serverless(empty, "plan", "ingest", "--months", "2024-11..2024-12")
    rows = {line.split()[0]: line for line in ingest.stdout.splitlines()[1:-2]}
    assert rows.keys() == {table.name for table in empty.parts.raw_tables}
    forecast = serverless(empty, "plan", "forecast")
    assert forecast.exit_code == 1
    assert "daily_revenue, which it reads, is not in the warehouse" in forecast.stdout
    assert "raw_orders" not in forecast.stdout
    for words, refusal in (
        (["plan"], "The job 'plan' changes no asset"),
        (["forecast", "--months", "2024-11"], "'forecast', which has no months"),
        (["nope"], "There is no job 'nope'. Jobs: "),
        (["forcast"], "There is no job 'forcast'. Did you mean forecast? Jobs: "),
        (["stg_orders"], "'stg_orders' is an asset, not a job. `serverless run transform` builds it"),
        (["supply_plan"], "'supply_plan' is an asset, not a job. `serverless run forecast` builds it"),
    ):
        refused = serverless(empty, "plan", *words)
        assert refused.exit_code == 1
        assert refusal in refused.stderr


def test_a_plan_of_what_would_fail_names_the_cause_in_the_order_of_a_run_and_ends_with_1(empty, serverless):
    told = serverless(empty, "plan", "--reuse")
    assert told.exit_code == 1
    lines = {line.split()[0]: line for line in told.stdout.splitlines() if line}
    # Of all that reads them, each asset would have this reason.
    assert not lines.keys() & {"orders", "order_forecast"}
    tables = name_some([table.name for table in empty.parts.raw_tables], NAMES_OF_FAILED)
    assert re.fullmatch(
        rf"skip stg_\w+, .+ and 12 more: not reached: {tables} would fail before it",
        told.stdout.splitlines()[-3],
    )


def test_a_plan_says_whether_the_run_finishes_what_an_earlier_one_left():
    plan = [Planned("orders", "build", "new"), Planned("customers", "reuse", "unchanged")]
    assert plan_summary(plan, set()) == "1 to build, 1 to reuse"
    assert plan_summary(plan, {"orders"}).endswith(
        "Work of an earlier run is not published yet. This run does the rest, and publishes all of it."
    )
    assert plan_summary(plan, {"orders", "order_forecast"}).endswith(
        "This run leaves out order_forecast, so nothing would be published. `serverless run --resume` does "
        "what is left, and publishes all of it."
    )


def test_what_the_project_no_longer_has_is_not_waited_for(pipeline):
    pipeline.warehouse.write_states({"orders": {}})
    PendingAssets(pipeline.home).replace(["orders", "order_forecast", "raw_deleted"])
    assert pipeline.parts.pending_assets() == {"orders", "order_forecast"}


def test_the_column_of_names_is_as_wide_as_the_longest_of_them():
    lines = [*plan_lines([Planned("a" * 40, "build", "new"), Planned("orders", "reuse", "unchanged", 5)])]
    assert {line.index(word) for line, word in zip(lines, ("what", "build", "reuse"), strict=True)} == {42}


def test_a_plan_of_parts_by_a_column_that_there_is_not_says_which_there_are(pipeline):
    misspelt = SHOP.parts.model_copy(update={"name": "shop_name"})
    declared = SHOP.model_copy(update={"parts": misspelt})
    planned = {one.asset: one for one in plan_forecast(pipeline.parts, RunInputs().checked(), declared, [])}
    for asset in ("store_forecast", "forecast_report"):
        assert planned[asset].verdict == "fail"
        assert (
            "parts.name 'shop_name' in its defs.yaml, which is no column of daily_revenue"
            in planned[asset].reason
        )
    assert planned["order_forecast"].verdict == "reuse"


def test_a_plan_without_the_forecasts_table_says_what_is_missing(tmp_path):
    settings = Settings.from_environ({"SERVERLESS_HOME": str(tmp_path)})
    planned = list(plan_forecast(environment(settings), RunInputs().checked(), SHOP, []))
    assert {(found.verdict, found.reason) for found in planned} == {
        ("fail", "daily_revenue, which it reads, is not in the warehouse")
    }
    assert len(planned) == 5
