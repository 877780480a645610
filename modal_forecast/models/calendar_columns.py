"""The columns of the harmonic regression that follow from the calendar alone: week, year, holidays.

They do not depend on any value, so one table serves every origin of a back-test.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from modal_forecast.daily import month_and_day, weekday

DAYS_OF_A_YEAR = 365.2425
# Ten waves resolve five weeks. Shrinkage (spread falling with the root of the frequency) leaves of them what
# the history supports; 6 and 16 did as well on most series.
YEARLY_WAVES = 10
# The week of summer is another than that of winter: two waves for each weekday.
WEEK_WAVES = 2
# The turn of the year is too short for the waves, and most of the world's series have it.
TURN_OF_YEAR = (1222, 1223, 1224, 1225, 1226, 1227, 1228, 1229, 1230, 1231, 101, 102, 103)

# Prior standard deviations, in those of the series. Halving or doubling each changed the error by about 1%.
WEEK_SPREAD, YEAR_SPREAD, WEEK_IN_YEAR_SPREAD = 1.0, 0.5, 0.15
HOLIDAY_SPREAD, NEAR_HOLIDAY_SPREAD, TURN_SPREAD = 1.0, 0.3, 0.5


@dataclass(frozen=True)
class CalendarColumns:
    """table: (days, columns). spreads: prior standard deviation of each column's effect.

    groups: "week", "year", "week in year", "turn of year", and each holiday -> where its columns are.
    """

    days: np.ndarray
    table: np.ndarray
    spreads: np.ndarray
    groups: Mapping[str, slice]


def calendar_columns(days: np.ndarray, holidays: Mapping[str, np.ndarray]) -> CalendarColumns:
    """days: datetime64[D], one after the other. holidays: name -> days."""
    week = np.eye(7)[weekday(days)]
    year = _waves(days)
    seasons = year[:, : 2 * WEEK_WAVES]
    week_in_year = ((week - 1 / 7)[:, :, None] * seasons[:, None, :]).reshape(len(days), -1)
    turn = (month_and_day(days)[:, None] == np.array(TURN_OF_YEAR)).astype(float)
    year_spreads = YEAR_SPREAD / np.sqrt(np.repeat(np.arange(1, YEARLY_WAVES + 1), 2))
    parts = [
        ("week", week, np.full(7, WEEK_SPREAD)),
        ("year", year, year_spreads),
        ("week in year", week_in_year, np.full(week_in_year.shape[1], WEEK_IN_YEAR_SPREAD)),
        ("turn of year", turn, np.full(turn.shape[1], TURN_SPREAD)),
    ]
    around = np.array([HOLIDAY_SPREAD, NEAR_HOLIDAY_SPREAD, NEAR_HOLIDAY_SPREAD])
    parts += [(name, _around(days, when), around) for name, when in holidays.items()]
    ends = np.cumsum([part.shape[1] for _, part, _ in parts])
    groups = {
        name: slice(int(end) - part.shape[1], int(end))
        for (name, part, _), end in zip(parts, ends, strict=True)
    }
    return CalendarColumns(
        days, np.hstack([part for _, part, _ in parts]), np.concatenate([sd for _, _, sd in parts]), groups
    )


def _waves(days: np.ndarray) -> np.ndarray:
    """cos and sin of each wave in turn, the slowest first: (days, 2 * YEARLY_WAVES)."""
    phase = 2 * np.pi * (days.astype(int) / DAYS_OF_A_YEAR)
    angles = phase[:, None] * np.arange(1, YEARLY_WAVES + 1)
    return np.stack([np.cos(angles), np.sin(angles)], axis=2).reshape(len(days), -1)


def _around(days: np.ndarray, when: np.ndarray) -> np.ndarray:
    """A holiday, the day before it, the day after it."""
    return np.stack([np.isin(days, when + shift) for shift in (0, -1, 1)], axis=1).astype(float)
