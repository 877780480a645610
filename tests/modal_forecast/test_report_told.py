"""What the model told of its forecast arrives in the report as the report has it."""

import numpy as np
import pyarrow as pa
import pytest

from modal_forecast.messages import FORECAST_SCHEMA, ForecastRequest
from modal_forecast.model import forecast
from modal_forecast.report import ReportInput, render
from modal_forecast.report.told import MODELS, told


def history(days: int = 800) -> pa.Table:
    ds = np.datetime64("2024-01-01") + np.arange(days)
    rng = np.random.default_rng(1)
    y = 100 + 20 * (np.arange(days) % 7 == 5) + rng.normal(0, 3, days)
    y[np.isin(ds, np.array(["2024-12-25", "2025-12-25"], "datetime64[D]"))] = 0.0
    return pa.table({"ds": ds, "y": y})


@pytest.fixture(scope="module")
def answer():
    return forecast(ForecastRequest(history(), 300, "US"))


@pytest.fixture(scope="module")
def found(answer):
    return told(answer.diagnostics, answer.forecast, "US")


def test_the_report_takes_all_of_it(answer, found):
    page = render(ReportInput(history(), answer.forecast, **found))
    assert "Saturday" in page
    assert "Christmas Day" in page


def test_effects_are_in_the_unit_of_the_series(found):
    weekly = found["components"]["weekly"]
    assert len(weekly) == 7
    assert weekly[5] - np.mean(weekly[:5]) == pytest.approx(20, abs=4)


def test_a_closed_holiday_loses_all_that_a_day_brings(found):
    [christmas] = [one for one in found["components"]["holidays"] if one["ds"] == "2026-12-25"]
    assert christmas["effect"] == pytest.approx(-100, abs=15)


def test_the_last_back_test_has_bounds_around_its_forecast(found):
    origin = found["backtest"]["last_origin"]
    assert len(origin["ds"]) == len(origin["actual"]) == len(origin["yhat"])
    assert all(low <= made <= high for low, made, high in zip(
        origin["lower_80"], origin["yhat"], origin["upper_80"], strict=True))  # fmt: skip
    assert max(np.subtract(origin["upper_80"], origin["lower_80"])) > 1


def test_every_candidate_has_a_name_for_people(answer, found):
    assert set(answer.diagnostics["candidates"]) <= set(MODELS)
    assert {model["name"] for model in found["backtest"]["models"]} <= set(MODELS.values())


def test_an_answer_that_tells_nothing_fills_nothing():
    nothing = pa.table({name: [] for name in FORECAST_SCHEMA.names}, schema=FORECAST_SCHEMA)
    assert told({}, nothing, None) == {"notes": []}


def test_a_closed_weekday_loses_all_that_a_day_brings():
    days = np.datetime64("2024-01-01") + np.arange(800)
    values = np.where((days.astype(int) + 3) % 7 == 6, 0.0, history()["y"].to_numpy())
    closed = forecast(ForecastRequest(pa.table({"ds": days, "y": values}), 30, None))
    parts = told(closed.diagnostics, closed.forecast, None)["components"]
    assert parts["weekly"][6] == pytest.approx(-100, abs=8)
    assert min(parts["weekly"][:6]) > -10
