"""The components of a forecast, and which of them the history supports."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from modal_forecast.components import stand_out, t_quantile
from modal_forecast.grain import GRAINS
from modal_forecast.messages import ForecastRequest
from modal_forecast.model import forecast


def components(values: np.ndarray, grain: str = "day", country: str | None = "US") -> dict[str, Any]:
    first = np.datetime64("2023-01-02")
    calendar = GRAINS[grain].ahead(first, len(values))
    history = pa.table({"ds": calendar, "y": values})
    return forecast(ForecastRequest(history, 30, country, "harmonic", grain)).diagnostics["components"]


def noise(count: int) -> np.ndarray:
    return np.random.default_rng(5).normal(2_000, 400, count)


@pytest.mark.parametrize(("grain", "count"), [("day", 1_000), ("week", 160), ("month", 50)])
def test_nothing_stands_out_of_noise(grain, count):
    of = components(noise(count), grain)
    assert of["stands_out"] == {"weekly": [], "yearly": []}
    assert not any(holiday["supported"] for holiday in of["holidays"])


def test_what_repeats_stands_out():
    days = np.datetime64("2023-01-03") + np.arange(1_000)
    month = days.astype("datetime64[M]").astype(int) % 12
    values = noise(1_000) + 500 * ((days.astype(int) + 3) % 7 == 5) + 600 * (month == 6)
    is_christmas = np.isin(days, np.array(["2023-12-25", "2024-12-25"], "datetime64[D]"))
    of = components(np.where(is_christmas, 100.0, values))
    assert "Saturday" in of["stands_out"]["weekly"] and "July" in of["stands_out"]["yearly"]
    assert [holiday["holiday"] for holiday in of["holidays"] if holiday["supported"]] == ["Christmas Day"]


def test_less_than_two_years_do_not_tell_the_time_of_year():
    assert components(noise(600))["stands_out"]["yearly"] is None


@pytest.mark.parametrize("lowest", [0.0, -3_000.0])
def test_effects_are_differences_to_the_average_weekday_and_time_of_year(lowest):
    days = np.arange(1_000)
    values = (
        noise(1_000) * (1 + 0.5 * (days % 7 == 5)) * (1 + 0.2 * np.sin(days / 365.25 * 2 * np.pi)) + lowest
    )
    of = components(values, country=None)
    nothing = 1.0 if of["scale"] == "factor" else 0.0
    size = 1.0 if nothing else 2_000.0
    assert np.mean([effect for _, effect in of["weekly"]]) == pytest.approx(nothing, abs=1e-3 * size)
    assert np.mean([effect for _, effect in of["yearly"]]) == pytest.approx(nothing, abs=0.01 * size)
    # So the level is what an average day brings.
    past = [level for month, level in of["trend"] if "2024-01" <= month < "2025-01"]
    assert np.mean(past) == pytest.approx(values[364 : 364 + 366].mean(), abs=80)


def test_of_histories_without_a_pattern_one_in_a_hundred_seems_to_have_one():
    rng = np.random.default_rng(0)
    years = sum(stand_out(rng.normal(size=(3, 12))).any() for _ in range(1_000))
    weeks = sum(stand_out(rng.standard_t(4, size=(60, 7))).any() for _ in range(1_000))
    assert years <= 20 and weeks <= 20
    assert t_quantile(0.9995, 10) == pytest.approx(4.587, rel=0.01)


def test_equal_cycles_and_missing_values_are_no_pattern():
    assert not stand_out(np.full((5, 7), 0.1)).any()
    assert not stand_out(np.full((5, 7), np.nan)).any()
    assert not stand_out(np.empty((0, 12))).any()
