"""The diagnostics of a real answer, as the sections of the report show them."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from modal_forecast.candidates import METHODS
from modal_forecast.messages import ForecastAnswer, ForecastRequest
from modal_forecast.model import forecast
from modal_forecast.report.formats import Amounts
from modal_forecast.report.page import render
from modal_forecast.report.report_input import ReportInput
from modal_forecast.report.sections.accuracy import accuracy
from modal_forecast.report.sections.data_quality import data_quality
from modal_forecast.report.sections.reasons import Reason, reasons
from modal_forecast.report.values import read_values


def history(days: int = 800) -> pa.Table:
    ds = np.datetime64("2024-01-01") + np.arange(days)
    rng = np.random.default_rng(1)
    y = 100 + 20 * (np.arange(days) % 7 == 5) + rng.normal(0, 3, days)
    y[np.isin(ds, np.array(["2024-12-25", "2025-12-25"], "datetime64[D]"))] = 0.0
    return pa.table({"ds": ds, "y": y})


@pytest.fixture(scope="module")
def answer():
    return forecast(ForecastRequest(history(), 300, "US"))


DOLLARS = Amounts("$", 2, 2)


def reasons_of(answer: ForecastAnswer) -> dict[str, Reason]:
    """The reasons by their titles."""
    diagnostics, forecast = answer.diagnostics, read_values(answer.forecast, "yhat")
    every = reasons(diagnostics["components"], forecast, diagnostics["country"], DOLLARS)
    return {reason.title: reason for reason in every}


def effects(reason: Reason) -> dict[str, float]:
    """The effect in each row of the reason's table, by the row's name."""
    return {name: float(effect.replace("$", "")) for name, effect in reason.table.rows}


def test_the_page_shows_the_components(answer):
    page = render(ReportInput(history(), answer.forecast, diagnostics=answer.diagnostics))
    assert "Saturday" in page
    assert "Christmas Day" in page


def test_effects_are_in_the_unit_of_the_series(answer):
    weekly = [*effects(reasons_of(answer)["Week"]).values()]
    assert len(weekly) == 7
    assert weekly[5] - np.mean(weekly[:5]) == pytest.approx(20, abs=4)


def test_a_closed_holiday_loses_all_that_a_day_brings(answer):
    autumn = read_values(answer.forecast.slice(200), "yhat")
    [*_, holidays] = reasons(answer.diagnostics["components"], autumn, "US", DOLLARS)
    effects = {(name, day): effect for name, day, effect in holidays.table.rows}
    christmas = effects["Christmas Day", "Fri 25 Dec 2026"]
    assert float(christmas.replace("$", "")) == pytest.approx(-100, abs=15)


def test_the_last_back_test_has_bounds_around_its_forecast(answer):
    view = accuracy(answer.diagnostics, DOLLARS)
    assert view and view.last_origin
    rows = [[float(cell) for cell in row[3:] + row[2:3]] for row in view.last_origin.table.rows]
    assert len(rows) == len(answer.diagnostics["last_origin"]["actual"])
    assert all(low <= forecast <= high for low, high, forecast in rows)
    assert max(high - low for low, high, _ in rows) > 1


def test_every_candidate_has_a_name_for_people(answer):
    assert set(answer.diagnostics["candidates"]) <= set(METHODS)
    view = accuracy(answer.diagnostics, DOLLARS)
    assert view and {row[0] for row in view.models.rows[1:]} <= set(METHODS.values())


def test_without_diagnostics_a_section_has_nothing_to_say(answer):
    nothing: dict[str, Any] = {}
    assert accuracy(nothing, DOLLARS) is None
    assert reasons(None, read_values(answer.forecast, "yhat"), None, DOLLARS) == []
    assert len(data_quality(read_values(history(), "y"), [], nothing)) == 3


def test_a_closed_weekday_loses_all_that_a_day_brings():
    days = np.datetime64("2024-01-01") + np.arange(800)
    values = np.where((days.astype(int) + 3) % 7 == 6, 0.0, history()["y"].to_numpy())
    closed = forecast(ForecastRequest(pa.table({"ds": days, "y": values}), 30, None))
    weekly = effects(reasons_of(closed)["Week"])
    assert weekly.pop("Sunday") == pytest.approx(-100, abs=8)
    assert min(weekly.values()) > -10
