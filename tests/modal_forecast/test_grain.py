"""Days, weeks and months: their arithmetic, and forecasts of series by week and month."""

from datetime import date, timedelta

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modal_forecast import metrics
from modal_forecast.candidates.naive import seasonal_naive
from modal_forecast.grain import DAY, GRAINS, MONTH, WEEK
from modal_forecast.messages import FORECAST_SCHEMA, ForecastRefused, ForecastRequest
from modal_forecast.model import forecast

DAYS = st.dates(date(1900, 1, 1), date(2199, 12, 31))


@given(DAYS, st.sampled_from([*GRAINS.values()]), st.integers(-400, 400))
def test_every_day_is_in_the_one_period_that_it_lies_between_the_ends_of(day, grain, later):
    first, last = grain.start(day), grain.last_day(day)
    assert first <= day <= last and (last - first).days < grain.longest_days
    assert grain.start(last, 1) == last + timedelta(days=1)
    assert grain.between(day, grain.start(day, later)) == later
    days = np.array([day, grain.start(day, later)], "datetime64[D]")
    assert grain.starts(days).tolist() == [first, grain.start(day, later)]
    assert grain.numbers(days).tolist() == [grain.number(day), grain.number(day) + later]


def test_weeks_begin_on_mondays_and_months_on_the_first():
    assert (WEEK.start(date(2026, 11, 29)), WEEK.start(date(2026, 11, 30))) == (
        date(2026, 11, 23),
        date(2026, 11, 30),
    )
    assert MONTH.ahead(np.datetime64("2025-12-31"), 2).tolist() == [date(2026, 1, 1), date(2026, 2, 1)]
    assert [grain.label(date(2026, 2, 2)) for grain in GRAINS.values()] == [
        "Mon 2 Feb 2026",
        "week of 2 Feb 2026",
        "February 2026",
    ]


def test_days_ahead_are_as_many_weeks_or_months_as_they_take():
    assert [grain.covering(180) for grain in GRAINS.values()] == [180, 26, 6]
    assert [grain.covering(1) for grain in GRAINS.values()] == [1, 1, 1]


def test_the_scale_of_errors_is_of_a_year_before_and_of_the_value_before_in_a_short_history():
    month = np.arange(48) % 12 * 10.0
    assert metrics.seasonal_error(month, MONTH.season) == 0
    assert metrics.seasonal_error(month[:14], MONTH.season) == pytest.approx(230 / 13)


def series(grain, years: int) -> pa.Table:
    """A growing series with a season, dated by the last day of each period."""
    count = round(years * grain.periods_of_a_year)
    position, noise = np.arange(count), np.random.default_rng(3).normal(0, 0.03, count)
    season = 0.3 * np.sin(2 * np.pi * position / grain.periods_of_a_year)
    values = 1000 * np.exp(0.1 * position / grain.periods_of_a_year + season + noise)
    last = [grain.last_day(grain.start(date(2020, 1, 6), number)) for number in range(count)]
    return pa.table({"ds": pa.array(last, pa.date32()), "y": values})


@pytest.mark.parametrize("grain", [WEEK, MONTH])
def test_a_series_with_a_season_is_forecast_by_its_periods_and_better_than_the_naives(grain):
    whole = series(grain, 5)
    known = whole.num_rows - grain.horizon
    answer = forecast(ForecastRequest(whole.slice(0, known), grain.horizon, None, grain=grain.name))
    starts = [grain.start(day) for day in whole["ds"].to_pylist()]
    assert answer.forecast["ds"].to_pylist() == starts[known:]
    history, actual = whole["y"].to_numpy()[:known], whole["y"].to_numpy()[known:]
    ordered = [answer.forecast[name].to_numpy() for name in ("yhat_lower_95", "yhat_lower_80", "yhat")]
    assert (np.diff(ordered, axis=0) >= 0).all()
    error = metrics.mae(actual, ordered[-1])
    naives = {name: seasonal_naive(history, grain.horizon, lag, 1) for name, lag in grain.naives.items()}
    assert error < 0.7 * min(metrics.mae(actual, naive) for naive in naives.values())
    assert naives.keys() <= answer.diagnostics["candidates"].keys()
    assert answer.diagnostics["candidates"]["prophet"]["origins"] > 0
    assert answer.diagnostics["beats_naive"] and answer.diagnostics["components"]["weekly"] == []
    assert answer.diagnostics["backtest"]["sums"].keys() >= {str(grain.windows[0])}


@pytest.mark.parametrize("grain", [WEEK, MONTH])
def test_the_shortest_history_is_forecast_and_one_value_less_refused(grain):
    history = series(grain, 2).slice(0, grain.fewest)
    answer = forecast(ForecastRequest(history, grain.horizon, None, grain=grain.name))
    assert answer.forecast.num_rows == grain.horizon and answer.forecast.schema == FORECAST_SCHEMA
    assert all(np.isfinite(answer.forecast[name].to_numpy()).all() for name in FORECAST_SCHEMA.names[1:])
    with pytest.raises(ForecastRefused, match=f"has {grain.fewest - 1} {grain.plural} with a value"):
        forecast(ForecastRequest(history.slice(1), 1, None, grain=grain.name))


def test_two_rows_in_one_month_and_an_unknown_grain_are_refused():
    table = pa.table({"ds": [date(2026, 1, 1), date(2026, 1, 31)], "y": [1.0, 2.0]})
    with pytest.raises(ForecastRefused, match="January 2026 more than once"):
        forecast(ForecastRequest(table, 1, None, grain="month"))
    with pytest.raises(ForecastRefused, match="no grain 'year': choose one of day, week, month"):
        forecast(ForecastRequest(table, 1, None, grain="year"))


def test_gaps_are_missing_values_and_a_holiday_belongs_to_its_week():
    table = series(WEEK, 4)
    holes = table.filter(pa.array(np.arange(table.num_rows) % 9 != 4))
    answer = forecast(ForecastRequest(holes, 26, "US", grain="week"))
    assert answer.diagnostics["n_missing"] == table.num_rows - holes.num_rows
    holidays = {row["holiday"] for row in answer.diagnostics["components"]["holidays"]}
    assert "Thanksgiving Day" in holidays
    assert DAY.has_holidays and not MONTH.has_holidays
