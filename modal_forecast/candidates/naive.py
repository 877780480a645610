"""Forecasts that repeat earlier periods: the baselines to beat, and two that adapt to the current level.

Each takes values on a calendar without holes, NaN where missing but for the last, and returns `horizon`
values.
"""

from collections.abc import Mapping

import numpy as np

from modal_forecast.candidates.protocol import Fit, Inputs
from modal_forecast.grain import Grain

# Long enough for a level that a single good week does not move, short enough to be the current one.
LEVEL_DAYS, LONG_LEVEL_DAYS = 56, 182
# The year before last counts for a little over half: it steadies the days, but is further away.
YEARS_BACK = (1.0, 0.6)
LARGEST_RATIO = 5.0


def fit_recent_levels(inputs: Inputs) -> Mapping[str, Fit]:
    """Return the medians of recent weeks or months, and the last years moved to the current level."""
    values, horizon, grain = inputs.clipped, inputs.horizon, inputs.series.grain
    return {
        "recent_8_weeks": Fit(recent_level(values, horizon, grain, LEVEL_DAYS)),
        "recent_26_weeks": Fit(recent_level(values, horizon, grain, LONG_LEVEL_DAYS)),
        "last_years": Fit(last_years(values, horizon, grain, 1.0)),
        "last_years_half_way": Fit(last_years(values, horizon, grain, 0.5)),
    }


def fit_seasonal_naives(inputs: Inputs) -> Mapping[str, Fit]:
    """Return the baselines; that of a year only if the history has one."""
    series, horizon = inputs.series, inputs.horizon
    cycle = series.grain.cycle
    return {
        name: Fit(seasonal_naive(series.values, horizon, lag, cycle))
        for name, lag in series.grain.naives.items()
        if lag == cycle or len(series) >= lag
    }


def seasonal_naive(values: np.ndarray, horizon: int, lag: int, cycle: int) -> np.ndarray:
    """The last `lag` values again and again; of a shorter history the last cycle, or all of it."""
    filled = fill(values, cycle)
    lag = next(length for length in (lag, cycle, len(filled)) if length <= len(filled))
    return filled[len(filled) - lag + np.arange(horizon) % lag]


def recent_level(values: np.ndarray, horizon: int, grain: Grain, days: int) -> np.ndarray:
    """The median over so many days, of days that of each weekday."""
    cycle = grain.cycle
    recent = values[-grain.periods(days) :]
    position = np.arange(-len(recent), 0) % cycle
    overall = np.nanmedian(recent)
    medians = np.full(cycle, overall)
    for index in range(cycle):
        there = recent[position == index]
        there = there[~np.isnan(there)]
        if len(there):
            medians[index] = np.median(there)
    return medians[np.arange(horizon) % cycle]


def last_years(values: np.ndarray, horizon: int, grain: Grain, share: float) -> np.ndarray:
    """The same periods of the last years, moved by `share` of the way from their level to the current one.

    By a factor if both levels are positive, else by a difference. Of less than a year and a month: the recent
    level.
    """
    filled, year, recent = fill(values, grain.cycle), grain.year, grain.periods(LEVEL_DAYS)
    lags = [year * back for back in (1, 2) if len(filled) >= year * back + grain.periods(28)]
    if not lags:
        return recent_level(values, horizon, grain, LEVEL_DAYS)
    level = float(filled[-recent:].mean())
    forecasts = []
    for lag in lags:
        start = len(filled) - lag
        level_before = float(filled[max(0, start - recent) : start].mean())
        days = filled[start + np.arange(horizon) % year]
        if level > 0 and level_before > 0:
            ratio = min(max(level / level_before, 1 / LARGEST_RATIO), LARGEST_RATIO)
            forecasts.append(days * ratio**share)
        else:
            forecasts.append(days + (level - level_before) * share)
    return np.average(forecasts, axis=0, weights=YEARS_BACK[: len(forecasts)])


def fill(values: np.ndarray, cycle: int) -> np.ndarray:
    """Missing values take that of a cycle before, up to four, else the median."""
    filled = values.copy()
    for back in range(cycle, 5 * cycle, cycle):
        missing = np.flatnonzero(np.isnan(filled))
        missing = missing[missing >= back]
        filled[missing] = values[missing - back]
    return np.where(np.isnan(filled), np.nanmedian(values), filled)
