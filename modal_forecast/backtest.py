"""Forecasts made from earlier days of the same history, and how far off they were: a rolling origin.

Tashman, "Out-of-sample tests of forecasting accuracy", 2000. Nothing after an origin is used at it: each
origin sees a series that ends there, and holidays, which are known in advance.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from modal_forecast.daily import DailySeries, lag_7_scale
from modal_forecast.models import forecast_candidates
from modal_forecast.models.calendar_columns import CalendarColumns

# More did not choose better, and each takes 30 to 60 ms of cpu on five years.
MAX_ORIGINS = 6
MIN_STEP = 14
# Further back the series is shorter, and was perhaps another.
MAX_SPAN = 450
# An origin keeps enough of the history to be forecast as the whole will be.
MIN_TRAINING_SHARE, MIN_TRAINING = 0.45, 7
# What is tested of a history too short for the horizon.
SHORT_TEST_SHARE, MIN_TEST = 1 / 3, 7


@dataclass(frozen=True)
class Origin:
    """What was forecast at one origin.

    index: days of history that were used. actual: the days after it, NaN where missing.
    forecasts: candidate -> forecasts, of the length of `actual`. scale: lag_7_scale() at the origin.
    """

    index: int
    actual: np.ndarray
    forecasts: Mapping[str, np.ndarray]
    scale: float

    def baseline(self, name: str) -> np.ndarray:
        """A seasonal naive; last week's days stand in for last year's where there is less than a year."""
        return self.forecasts.get(name, self.forecasts["seasonal_naive_7"])

    def error(self, forecast: np.ndarray) -> float:
        """Mean absolute error, in the unit of the history."""
        return float(np.nanmean(np.abs(self.actual - forecast)))


def choose_origins(length: int, horizon: int) -> tuple[list[int], int]:
    """Days of history at each origin, the latest first, and the days tested from each."""
    tested = min(horizon, max(MIN_TEST, int(length * SHORT_TEST_SHARE)))
    earliest = max(int(length * MIN_TRAINING_SHARE), MIN_TRAINING)
    latest = length - tested
    if latest < earliest:
        return [], tested
    step = max(min(latest - earliest, MAX_SPAN) / (MAX_ORIGINS - 1), MIN_STEP)
    origins = [int(latest - number * step) for number in range(MAX_ORIGINS)]
    return [origin for origin in origins if origin >= earliest], tested


def run_backtest(
    series: DailySeries, horizon: int, calendar: CalendarColumns, holidays: Mapping[str, np.ndarray]
) -> list[Origin]:
    """The latest origin first; none if the history is too short or too full of holes."""
    indices, tested = choose_origins(len(series), horizon)
    origins = []
    for index in indices:
        known = series.until(index)
        actual = series.values[index : index + tested]
        values = known.values[~np.isnan(known.values)]
        if len(values) < MIN_TRAINING or np.isnan(actual).all():
            continue
        # The days between the last value before the origin and the origin are forecast as well.
        ahead = index - len(known) + tested
        made = forecast_candidates(known, ahead, calendar, holidays)
        origins.append(
            Origin(
                index,
                actual,
                {name: values[-tested:] for name, values in made.forecasts.items()},
                lag_7_scale(known.values),
            )
        )
    return origins


def independent_origins(origins: Sequence[Origin]) -> float:
    """How many origins without a common day would tell as much: 1 + span / days tested."""
    indices = [origin.index for origin in origins]
    return min(1 + (max(indices) - min(indices)) / len(origins[0].actual), float(len(origins)))
