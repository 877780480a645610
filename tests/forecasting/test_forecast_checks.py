"""A forecast that cannot be right never takes the place of the last one."""

import math
from collections.abc import Sequence
from datetime import date, timedelta
from itertools import pairwise

import dagster as dg
import pyarrow as pa
import pytest

from modal_forecast.messages import FORECAST_SCHEMA, BatchAnswer, ForecastAnswer, ForecastBatch
from serverless_assets.forecasting.checks import (
    DESCRIPTIONS,
    NO_WORSE,
    VALUES,
    CheckResult,
    check_forecast,
    failures,
)
from serverless_assets.forecasting.compute import Answered
from serverless_assets.run_inputs import RunForecast, RunInputs, SkipForecast
from tests.conftest import SHOP, Pipeline
from tests.test_pipeline import change_work

LAST_DAY = date(2026, 10, 31)
COMPUTE = "serverless_assets.forecasting.local_compute.LocalCompute.run"
REBUILD = RunInputs(rebuild="all")


def forecast(days: int = 3, start: int = 1, **changed: dict[int, float]) -> pa.Table:
    """A sound forecast, but for the values of some days, `yhat={1: nan}`, say."""
    columns = {"ds": pa.array([LAST_DAY + timedelta(days=start + n) for n in range(days)], pa.date32())}
    for step, name in enumerate(VALUES):
        columns[name] = [changed.get(name, {}).get(n, 100.0 + step) for n in range(days)]
    return pa.table(columns).select(FORECAST_SCHEMA.names).cast(FORECAST_SCHEMA)


def judged(rows: pa.Table, **facts: object) -> Sequence[CheckResult]:
    known = {"data_as_of": LAST_DAY.isoformat(), "horizon_days": 3, **facts}
    return check_forecast(SHOP, rows, known, lambda: dg.MarkdownMetadataValue("the back-test"))


def red(rows: pa.Table, **facts: object) -> dict[str, str]:
    return {check.name: check.fault for check in judged(rows, **facts) if check.fault}


# ---- what is judged


def test_a_forecast_below_zero_is_refused_with_the_count_of_negative_days():
    [fault] = red(forecast(yhat_lower_95={1: -2.0}), n_negative=210, n_history=700).values()
    assert fault == (
        "2026-11-02: yhat_lower_95 is -2.00. 210 of the 700 days of the history are negative: "
        "see daily_revenue."
    )


def test_a_sound_forecast_passes_every_check_in_any_order_of_days():
    assert [check.name for check in judged(forecast())] == list(DESCRIPTIONS)
    assert red(forecast()) == red(forecast().take([2, 0, 1])) == {}
    assert failures(judged(forecast())) is None


def test_a_forecast_by_month_is_complete_with_a_row_for_the_first_day_of_each():
    months = pa.array([date(2026, 11, 1), date(2026, 12, 1), date(2027, 1, 1)], pa.date32())
    rows = forecast().set_column(0, "ds", months)
    facts = {"grain": "month", "horizon_months": 3}
    assert not red(rows, **facts)
    assert red(rows.slice(1), **facts) == {
        "forecast_is_complete": "2026-11-01 is missing, and 0 more of the 3 months."
    }


@pytest.mark.parametrize(
    "rows, said",
    [
        (forecast(0), "2026-11-01 is missing"),
        (forecast(2), "2026-11-03 is missing, and 0 more of the 3 days"),
        (forecast(3, start=0), "2026-11-03 is missing"),
        (forecast(3).take([0, 2, 2]), "2026-11-02 is missing"),
        (forecast(4), "2026-11-04 is not among the 3 days after 2026-10-31"),
        (forecast(3).take([0, 1, 1, 2]), "2026-11-02 is there more than once"),
    ],
)
def test_a_horizon_with_a_day_too_few_too_many_or_twice_is_incomplete(rows, said):
    assert said in red(rows)["forecast_is_complete"]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, None])
@pytest.mark.parametrize("name", VALUES)
def test_what_is_no_number_is_found_in_every_column_and_its_first_day_is_named(name, value):
    found = red(forecast(**{name: {1: value, 2: value}}))
    assert found == {"forecast_is_finite": f"2026-11-02: {name} is no number, and 1 more of the 3 rows."}


def test_revenue_below_zero_is_found_with_its_day_and_value_and_zero_is_not():
    found = red(forecast(yhat_lower_95={2: -0.5}))
    assert found == {"forecast_is_not_negative": "2026-11-03: yhat_lower_95 is -0.50."}
    assert red(forecast(yhat_lower_95={2: 0.0})) == {}


@pytest.mark.parametrize("low, high", list(pairwise(VALUES)))
def test_each_pair_of_bounds_is_in_order_or_its_first_day_is_named(low, high):
    def at(crossing: float) -> dict[str, float]:
        below = dict.fromkeys(VALUES[: VALUES.index(high)], crossing)
        return red(forecast(**{name: {1: value} for name, value in below.items()}))

    equal = 100.0 + VALUES.index(high)
    assert at(equal) == {}
    assert at(equal + 0.5) == {"forecast_bounds_in_order": f"2026-11-02: {low} is above {high}."}


def test_a_forecast_that_a_naive_one_beats_is_stopped_with_the_reason_and_a_picture():
    assert red(forecast(), skill=0.2, why="It errs less.") == {}
    assert red(forecast(), skill=0.0, why="It is the naive one.") == {}
    # A history that is too short to tell.
    assert red(forecast(), skill=None, why="Too short.") == {}
    assert red(forecast(), skill=-0.2, skill_margin=0.25, why="It errs more, perhaps.") == {}
    assert red(forecast(), skill=-0.3, skill_margin=0.25, why="It errs more.") == {NO_WORSE: "It errs more."}
    [lost] = [check for check in judged(forecast(), skill=-0.1, why="It errs more.") if check.fault]
    assert (lost.name, lost.fault) == (NO_WORSE, "It errs more.")
    assert lost.result.metadata["picture"].value == "the back-test"


# ---- what is done


def checks(result: dg.ExecuteInProcessResult) -> dict[str, dg.AssetCheckEvaluation]:
    """Those that block. The shop of these tests ended weeks ago, of which the other one warns."""
    found = result.get_asset_check_evaluations()
    return {check.check_name: check for check in found if check.check_name in DESCRIPTIONS}


def stored(pipeline: Pipeline) -> list[dict[str, object]]:
    return pipeline.warehouse.query(
        f"select * from {pipeline.warehouse.quoted_name('order_forecast')} order by ds"
    ).to_pylist()


def test_a_red_answer_leaves_the_last_forecast_its_file_and_its_report(pipeline, monkeypatch):
    def answer(self, asked: bytes, *_: object) -> Answered:
        batch = ForecastBatch.from_bytes(asked)
        bad = ForecastAnswer(forecast(batch.horizon, yhat={4: math.nan}))
        return Answered(BatchAnswer(dict.fromkeys(batch.histories, bad)).to_bytes(), 1.0, 1.0)

    artifacts = pipeline.home / "work" / "artifacts"
    before, files = stored(pipeline), {path: path.read_bytes() for path in artifacts.iterdir()}
    note, released = (
        pipeline.warehouse.read_state("order_forecast"),
        (pipeline.home / "warehouse.duckdb").resolve(),
    )
    monkeypatch.setattr(COMPUTE, answer)
    result = pipeline.run(REBUILD, job="forecast")
    assert not result.success
    found = checks(result)
    assert {name for name, check in found.items() if not check.passed} == {"forecast_is_finite"}
    assert set(found) == set(DESCRIPTIONS)
    assert {check.severity for check in found.values()} == {dg.AssetCheckSeverity.ERROR}
    said = result.failure_data_for_node("order_forecast").user_failure_data.description
    assert "forecast_is_finite: 2026-11-05: yhat is no number" in said
    assert pipeline.summary["assets"]["forecast_report"]["status"] == "skipped"
    assert not pipeline.summary["published"]
    assert stored(pipeline) == before
    assert pipeline.warehouse.read_state("order_forecast") == note
    assert {path: path.read_bytes() for path in artifacts.iterdir()} == files
    assert (pipeline.home / "warehouse.duckdb").resolve() == released


def test_a_planted_bad_model_is_stopped_at_the_gate_and_the_last_good_forecast_stays(pipeline, monkeypatch):
    why = "From 3 earlier days, the error was 40% larger than that of repeating last week's days."
    bad = {"first_ds": "2026-09-01", "actual": [100.0] * 30, "forecast": [900.0] * 30}

    def answer(self, asked: bytes, *_: object) -> Answered:
        batch = ForecastBatch.from_bytes(asked)
        told = {"beats_naive": False, "why": why, "skill": -0.4, "last_origin": bad}
        worse = ForecastAnswer(forecast(batch.horizon), told)
        return Answered(BatchAnswer(dict.fromkeys(batch.histories, worse)).to_bytes(), 1.0, 1.0)

    before = stored(pipeline)
    monkeypatch.setattr(COMPUTE, answer)
    result = pipeline.run(REBUILD, job="forecast")
    assert not result.success
    [lost] = [check for check in checks(result).values() if not check.passed]
    assert (lost.check_name, lost.description) == (NO_WORSE, why)
    assert lost.metadata["picture"].value.startswith("![history and forecast](data:image/svg+xml;base64,")
    said = result.failure_data_for_node("order_forecast").user_failure_data.description
    assert said == f"The forecast was refused, and the last one stays. {NO_WORSE}: {why}"
    assert stored(pipeline) == before


def test_good_and_reused_forecasts_show_their_checks_as_passed(green, pipeline):
    reused = pipeline.run(job="forecast")
    assert reused.success
    logged = green.instance.all_logs(
        green.summary["run_id"], of_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION
    )
    made = [entry.dagster_event.asset_check_evaluation_data for entry in logged]
    for evaluations in (made, reused.get_asset_check_evaluations()):
        passed = {check.check_name: check.passed for check in evaluations if check.check_name in DESCRIPTIONS}
        assert passed == dict.fromkeys(DESCRIPTIONS, True)


def test_a_forecast_that_somebody_spoiled_is_made_again(pipeline):
    before = stored(pipeline)
    change_work(pipeline, "update dwh.order_forecast set yhat = -1 where ds = '2026-11-03'")
    assert pipeline.run(job="forecast").success
    assert "forecast_is_not_negative: 2026-11-03: yhat is -1.00" in pipeline.reason("order_forecast")
    assert [row["yhat"] for row in stored(pipeline)] == [row["yhat"] for row in before]


def test_a_skipped_forecast_has_no_checks_and_fails_nothing(pipeline):
    result = pipeline.run(RunInputs(forecast=SkipForecast()), job="forecast")
    assert result.success
    assert checks(result) == {}


def test_the_checks_can_be_asked_for_alone_and_then_nothing_is_forecast(pipeline, monkeypatch):
    monkeypatch.setattr(COMPUTE, lambda *_: 1 / 0)
    change_work(pipeline, "delete from dwh.order_forecast where ds = '2026-11-03'")
    key = dg.AssetKey("order_forecast")
    job = dg.define_asset_job(
        "look", dg.AssetSelection.checks(*(dg.AssetCheckKey(key, name) for name in DESCRIPTIONS))
    )
    definitions = dg.Definitions.merge(pipeline.definitions, dg.Definitions(jobs=[job]))
    result = definitions.resolve_job_def("look").execute_in_process(
        run_config=dg.RunConfig(resources={"run_inputs": RunInputs(forecast=RunForecast())}),
        instance=pipeline.instance,
        raise_on_error=False,
    )
    assert not result.success
    assert {name for name, check in checks(result).items() if not check.passed} == {"forecast_is_complete"}
