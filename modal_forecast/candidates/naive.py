"""Forecasts that repeat earlier days: the baselines to beat, and two that adapt to the current level.

Each takes values on a calendar without holes, NaN where missing but for the last, and returns `horizon`
values.
"""

from collections.abc import Mapping

import numpy as np

from modal_forecast.candidates.protocol import Fit, Inputs

WEEK = 7
YEAR = 364  # 52 weeks: the same weekday of a year ago
# Long enough for a level that a single good week does not move, short enough to be the current one.
LEVEL_DAYS = 56
# The year before last counts for a little over half: it steadies the days, but is further away.
YEARS_BACK = (1.0, 0.6)
LARGEST_RATIO = 5.0


def fit_recent_levels(inputs: Inputs) -> Mapping[str, Fit]:
    """Return the medians of recent weeks, and the last years moved to the current level."""
    values, horizon = inputs.clipped, inputs.horizon
    return {
        "recent_8_weeks": Fit(recent_weeks(values, horizon, 8)),
        "recent_26_weeks": Fit(recent_weeks(values, horizon, 26)),
        "last_years": Fit(last_years(values, horizon, 1.0)),
        "last_years_half_way": Fit(last_years(values, horizon, 0.5)),
    }


def fit_seasonal_naives(inputs: Inputs) -> Mapping[str, Fit]:
    """Return the baselines; that of a year only if the history has one."""
    values, horizon = inputs.series.values, inputs.horizon
    lags = (WEEK, YEAR) if len(values) >= YEAR else (WEEK,)
    return {f"seasonal_naive_{lag}": Fit(seasonal_naive(values, horizon, lag)) for lag in lags}


def seasonal_naive(values: np.ndarray, horizon: int, lag: int) -> np.ndarray:
    """The last `lag` days again and again; of a shorter history the last 7, or all of it."""
    filled = fill(values)
    lag = next(length for length in (lag, WEEK, len(filled)) if length <= len(filled))
    return filled[len(filled) - lag + np.arange(horizon) % lag]


def recent_weeks(values: np.ndarray, horizon: int, weeks: int) -> np.ndarray:
    """The median of each weekday over the last `weeks` weeks."""
    recent = values[-WEEK * weeks :]
    position = np.arange(-len(recent), 0) % WEEK
    overall = np.nanmedian(recent)
    medians = np.full(WEEK, overall)
    for day in range(WEEK):
        there = recent[position == day]
        there = there[~np.isnan(there)]
        if len(there):
            medians[day] = np.median(there)
    return medians[np.arange(horizon) % WEEK]


def last_years(values: np.ndarray, horizon: int, share: float) -> np.ndarray:
    """The same weekdays of the last years, moved by `share` of the way from their level to the current one.

    By a factor if both levels are positive, else by a difference. Of less than a year and a month: the recent
    weeks.
    """
    filled = fill(values)
    lags = [YEAR * back for back in (1, 2) if len(filled) >= YEAR * back + 28]
    if not lags:
        return recent_weeks(values, horizon, 8)
    level = float(filled[-LEVEL_DAYS:].mean())
    forecasts = []
    for lag in lags:
        start = len(filled) - lag
        level_before = float(filled[max(0, start - LEVEL_DAYS) : start].mean())
        days = filled[start + np.arange(horizon) % YEAR]
        if level > 0 and level_before > 0:
            ratio = min(max(level / level_before, 1 / LARGEST_RATIO), LARGEST_RATIO)
            forecasts.append(days * ratio**share)
        else:
            forecasts.append(days + (level - level_before) * share)
    return np.average(forecasts, axis=0, weights=YEARS_BACK[: len(forecasts)])


def fill(values: np.ndarray) -> np.ndarray:
    """Missing days take the value of a week before, up to four, else the median."""
    filled = values.copy()
    for weeks_back in range(1, 5):
        missing = np.flatnonzero(np.isnan(filled))
        missing = missing[missing >= WEEK * weeks_back]
        filled[missing] = values[missing - WEEK * weeks_back]
    return np.where(np.isnan(filled), np.nanmedian(values), filled)
