"""A run that may cost more than the budget is refused before its first step, and nothing is written."""

import os
from dataclasses import dataclass
from pathlib import Path

import dagster as dg
import pytest

from serverless_assets.automation.plan import dry_run
from serverless_assets.automation.sensors import first_error
from serverless_assets.budget import BudgetGuard, OverBudget
from serverless_assets.forecasting.compute import Size, Usage
from serverless_assets.publishing.outcome import PendingAssets, failure_sentence_of
from serverless_assets.run_inputs import CustomisedStyle, Reuse, RunForecast, RunInputs, SkipForecast
from serverless_assets.transformation.nodes import Materialization
from tests.automation.test_what_if import content
from tests.conftest import SHOP, Pipeline
from tests.publishing.test_run_metrics import records
from tests.services.modal.harness import Server

LARGE = RunForecast(cpu="32.0", memory="32768")
MODELS = ["orders", "customers", "stg_orders"]
NAME = "BigQuery, shop.dwh in EU"


@dataclass(frozen=True)
class PricedCompute:
    """A dollar for each core until the deadline; None is free."""

    usd: float | None = 1.0
    name: str = "Modal"

    def max_usage(self, size: Size) -> Usage:
        return Usage(1800, 1800 * size.cpu)

    def price(self, size: Size, used: Usage) -> float | None:
        return None if self.usd is None else self.usd * size.cpu


@dataclass(frozen=True)
class PricedWarehouse:
    """A dollar for each byte. It answers to queries on what there is."""

    sizes: dict[str, int]
    name: str = NAME

    def price(self, size: int) -> float:
        return float(size)

    def bytes_to_read(self, statement: str) -> int | None:
        raise AssertionError("not asked here")


def budget_guard(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch, sizes: dict[str, int], usd: float | None = 1.0
) -> BudgetGuard:
    """As on BigQuery, which says of each model what it would read."""

    def bytes_to_read(project, warehouse, decisions, manifest):
        assert all(decision.build and decision.months is None for decision in decisions)
        names = [decision.node.name for decision in decisions if decision.node.kind != Materialization.VIEW]
        return {name: sizes[name] for name in names if name in sizes}

    monkeypatch.setattr("serverless_assets.budget.bytes_to_read", bytes_to_read)
    return BudgetGuard(5.0, PricedCompute(usd), pipeline.parts.project, PricedWarehouse(sizes), [SHOP])


# ---- what is counted


@pytest.mark.parametrize(
    ("planned", "forecast", "usd", "uncounted"),
    [
        (["order_forecast", *MODELS], RunForecast(cpu="4.0"), 4.0 + 3.0, []),
        (["order_forecast"], RunForecast(cpu="4.0"), 4.0, []),
        # A report alone, or a forecast that is skipped, starts no compute.
        (["forecast_report", *MODELS], RunForecast(cpu="4.0"), 3.0, []),
        (["order_forecast", *MODELS], SkipForecast(), 3.0, []),
        (["customers", "raw_orders"], SkipForecast(), 2.0, []),
        # Nobody can tell of a model whose parents are not there yet.
        (["orders", "daily_revenue"], SkipForecast(), 1.0, ["daily_revenue"]),
        (["raw_orders"], SkipForecast(), 0.0, []),
    ],
)
def test_what_a_run_may_cost_follows_from_what_it_means_to_write(
    green, monkeypatch, planned, forecast, usd, uncounted
):
    asked = budget_guard(green, monkeypatch, {"orders": 1, "customers": 2})
    most = asked.estimate(planned, RunInputs(forecast=forecast).checked())
    assert (most.usd, most.uncounted) == (usd, uncounted)


def test_without_a_budget_nothing_is_asked(green):
    BudgetGuard(None, None, None, None)(["order_forecast"], RunInputs(), print)  # type: ignore[arg-type]


def test_what_is_free_is_not_asked_about(green, monkeypatch):
    monkeypatch.setattr("serverless_assets.budget.bytes_to_read", None)
    local = BudgetGuard(0.0, green.parts.compute, green.parts.project, green.warehouse, [SHOP])
    said: list[str] = []
    local(["order_forecast", *MODELS], RunInputs(forecast=LARGE).checked(), said.append)
    assert said == ["This run costs nothing. Within the budget of $0.00 (SERVERLESS_BUDGET_USD)."]


def test_a_run_over_the_budget_is_refused_and_one_within_it_is_told_the_sum(green, monkeypatch):
    asked = budget_guard(green, monkeypatch, {"orders": 1, "customers": 2})
    said: list[str] = []
    with pytest.raises(OverBudget, match=r"^This run may cost up to \$7.00: \$4.00 for the forecast"):
        asked(["order_forecast", *MODELS], RunInputs(forecast=RunForecast(cpu="4.0")).checked(), said.append)
    assert said == []
    asked(["order_forecast", *MODELS], RunInputs(forecast=RunForecast(cpu="2.0")).checked(), said.append)
    (line,) = said
    assert line.startswith("This run may cost up to $5.00: $2.00 for the forecast")


# ---- whole runs, on a laptop with a budget; Modal is never reached


@pytest.fixture
def on_a_budget(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> Pipeline:
    return with_budget(pipeline, monkeypatch)


def with_budget(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> Pipeline:
    """Ten cents, and a forecast on Modal, with a token that nobody has given."""
    for name in ("MODAL_TOKEN_ID", "MODAL_TOKEN_SECRET"):
        monkeypatch.setenv(name, "none")
    variables = {
        **pipeline.variables,
        "SERVERLESS_COMPUTE": "modal",
        "SERVERLESS_BUDGET_USD": "0.10",
        "MODAL_TOKEN_ID": "none",
        "MODAL_TOKEN_SECRET": "none",
    }
    return Pipeline(pipeline.home, pipeline.instance, variables)


SAID = (
    "This run may cost up to $0.89 for the forecast (32 cores and 32 GiB for up to 30 min on Modal). "
    "That is $0.79 over the budget of $0.10 (SERVERLESS_BUDGET_USD). Choose less cpu or memory, a shorter "
    "SERVERLESS_FORECAST_DEADLINE, or raise the budget."
)


def files(home: Path) -> dict[str, bytes | str]:
    return {path: held for path, held in content(home).items() if not path.endswith("runs/latest.json")}


@pytest.mark.parametrize("job", ["serverless_pipeline", "forecast"])
def test_a_run_over_the_budget_fails_in_words_and_writes_nothing(on_a_budget, job):
    # A run before did not finish: that stays on record.
    PendingAssets(on_a_budget.home).replace(["orders"])
    # To load the code parses the dbt project, which is written down.
    assert on_a_budget.definitions
    before = files(on_a_budget.home)
    result = on_a_budget.run(RunInputs(forecast=LARGE), job=job)
    assert not result.success
    assert not [e for e in result.all_events if e.event_type == dg.DagsterEventType.STEP_START]
    assert first_error(on_a_budget.instance, result.run_id) == SAID
    # What the UI shows of it.
    (failed,) = on_a_budget.instance.all_logs(result.run_id, of_type=dg.DagsterEventType.RUN_FAILURE)
    assert failed.dagster_event.job_failure_data.error.to_string() == SAID
    assert files(on_a_budget.home) == before
    summary = on_a_budget.summary
    assert (summary["success"], summary["published"]) == (False, False)
    assert {(found["status"], found["reason"]) for found in summary["assets"].values()} == {("failed", SAID)}
    (record,) = records(on_a_budget)
    assert (record["failed"], record["built"]) == (len(summary["assets"]), 0)


def test_what_does_not_forecast_runs_on_any_budget(on_a_budget):
    assert on_a_budget.run(RunInputs(forecast=SkipForecast()), job="forecast").success
    assert on_a_budget.run(RunInputs(forecast=LARGE), job="transform", assets=["orders"]).success
    assert on_a_budget.summary["totals"]["failed"] == 0


def test_a_senseless_choice_is_refused_in_words_before_the_first_step_of_any_run(pipeline):
    style = CustomisedStyle(nr_days_fcst=0)
    result = pipeline.run(RunInputs(forecast=RunForecast(style=style)), job="ingest")
    assert not result.success
    assert not [e for e in result.all_events if e.event_type == dg.DagsterEventType.STEP_START]
    assert "nr_days_fcst is 0" in pipeline.reason("raw_orders")


def test_the_command_says_the_refusal_once(on_a_budget, serverless, tmp_path):
    config = tmp_path / "large.yaml"
    config.write_text("resources: {run_inputs: {config: {forecast: {run: {cpu: '32.0', memory: '32768'}}}}}")
    told = serverless(on_a_budget, "run", "--config", str(config))
    assert told.exit_code == 1
    assert told.stdout.count(SAID) == 1
    assert told.stdout.endswith(
        "Next: no step was started. Correct what the message names, then run again.\n"
    )
    assert "Traceback" not in told.stdout + told.stderr


def test_a_plan_ends_with_whether_the_budget_has_room(on_a_budget):
    found = dry_run(on_a_budget.parts, RunInputs(forecast=LARGE).checked())
    assert (found[-1].asset, found[-1].verdict, found[-1].reason) == ("budget", "refuse", SAID)
    found = dry_run(on_a_budget.parts, RunInputs().checked())
    assert (found[-1].asset, found[-1].verdict) == ("budget", "admit")
    assert found[-1].reason.startswith("This run may cost up to $0.03 for the forecast (0.25 cores,")


def test_a_plan_counts_what_a_run_counts_also_what_would_not_be_reached(empty, monkeypatch):
    inputs = RunInputs(ingestion=Reuse(), forecast=LARGE)
    *assets, budget = dry_run(with_budget(empty, monkeypatch).parts, inputs.checked())
    assert {one.verdict for one in assets} == {"fail", "skip"}
    assert (budget.verdict, budget.reason) == ("refuse", SAID)


def test_a_what_if_asks_for_the_same_admission(on_a_budget):
    result = on_a_budget.run(RunInputs(forecast=LARGE), job="what_if_forecast")
    (event,) = [e for e in result.all_events if e.event_type == dg.DagsterEventType.STEP_FAILURE]
    assert failure_sentence_of(event) == SAID
    assert not (on_a_budget.home / "what-if").exists()


# ---- with Modal's server on loopback


@pytest.mark.gcp
def test_over_the_budget_no_call_is_started_and_within_it_one_is_and_its_cost_is_on_record(
    pipeline: Pipeline, modal: Server
):
    variables = {"SERVERLESS_COMPUTE": "modal", "SERVERLESS_BUDGET_USD": "0.10"}
    laptop = Pipeline(pipeline.home, pipeline.instance, {**os.environ, **pipeline.variables, **variables})
    before = len(modal.calls())
    style = CustomisedStyle(nr_days_fcst=30)
    large = RunForecast(cpu="32.0", memory="32768", style=style)
    refused = laptop.run(RunInputs(forecast=large), job="forecast")
    assert first_error(laptop.instance, refused.run_id) == SAID
    assert len(modal.calls()) == before
    small = RunInputs(forecast=RunForecast(cpu="0.25", memory="256", style=style))
    assert laptop.run(small, job="forecast").success, laptop.summary
    assert len(modal.calls()) == before + 1
    (record, _) = records(laptop)
    outcome, stores = (laptop.summary["assets"][name] for name in ("order_forecast", "store_forecast"))
    assert stores["cost_usd"] is None
    assert 0 < outcome["cost_usd"] < 0.01
    total = laptop.summary["totals"]["cost_usd"]
    assert record["cost_usd"] == total == outcome["cost_usd"]
    facts = laptop.facts("order_forecast")
    assert facts["cpu_seconds"] > 0
    size, used = Size(0.25, 256), Usage(facts["seconds"], facts["cpu_seconds"])
    assert outcome["cost_usd"] == pytest.approx(laptop.parts.compute.price(size, used), rel=0.01)
    # It is reused: that costs nothing, and nothing is charged a second time.
    assert laptop.run(small, job="forecast").success
    assert "cost_usd" not in laptop.summary["totals"]
