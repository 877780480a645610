"""The calendar of a series: holidays, closed days, and the columns of the harmonic regression."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from modal_forecast.grain import DAY, Grain
from modal_forecast.series import Series, month_and_day, weekday

WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
MONTHS = (
    "January", "February", "March", "April", "May", "June",
    "July", "August", "September", "October", "November", "December",
)  # fmt: skip

# "Christmas Day (observed)" and "Eid al-Fitr (estimated)" are the same event as without the remark.
_REMARK = re.compile(r" \((observed|estimated|substituted[^)]*|in lieu)\)", re.IGNORECASE)

# A quarter tells a closed weekday from a slow one; a shop that opens on Sundays counts as open within weeks.
CLOSED_WEEKS = 13
CLOSED_SHARE = 0.9
# Where zero is common, a holiday that was zero twice says nothing.
RARE_ZERO = 0.05

DAYS_OF_A_YEAR = 365.2425
# The week of summer is another than that of winter: two waves for each weekday.
WEEK_WAVES = 2
# The turn of the year is too short for the waves, and most of the world's series have it.
TURN_OF_YEAR = (1222, 1223, 1224, 1225, 1226, 1227, 1228, 1229, 1230, 1231, 101, 102, 103)

# Prior standard deviations, in those of the series. Halving or doubling each changed the error by about 1%.
WEEK_SPREAD, YEAR_SPREAD, WEEK_IN_YEAR_SPREAD = 1.0, 0.5, 0.15
TURN_SPREAD = 0.5


def holidays_of(country: str | None, days: np.ndarray) -> Mapping[str, np.ndarray]:
    """English name of each holiday -> its days within `days`.

    country: two-letter ISO 3166 code, or None for no holidays.
    days: datetime64[D], sorted, without gaps.
    """
    if country is None or not len(days):
        return {}
    years = days.astype("datetime64[Y]").astype(int) + 1970
    days_by_name: dict[str, list[np.datetime64]] = {}
    for day, name in _holidays(country, int(years[0]), int(years[-1])):
        if days[0] <= day <= days[-1]:
            days_by_name.setdefault(name, []).append(day)
    return {name: np.array(days_by_name[name]) for name in sorted(days_by_name)}


def holiday_periods(country: str | None, starts: np.ndarray, grain: Grain) -> Mapping[str, np.ndarray]:
    """English name of each holiday -> the first days of the periods that have it; none for months.

    starts: the first days of periods, datetime64[D], one after the other.
    """
    if not grain.has_holidays or not len(starts):
        return {}
    days = np.arange(starts[0], starts[-1] + grain.longest_days)
    return {name: np.unique(grain.starts(when)) for name, when in holidays_of(country, days).items()}


@lru_cache(maxsize=4)
def _holidays(country: str, first_year: int, last_year: int) -> tuple[tuple[np.datetime64, str], ...]:
    import holidays

    years = range(first_year, last_year + 1)
    try:
        entries = holidays.country_holidays(country, years=years, language="en_US")
    except (TypeError, ValueError):
        entries = holidays.country_holidays(country, years=years)
    return tuple(
        (np.datetime64(day), name)
        for day, names in sorted(entries.items())
        for name in sorted({_REMARK.sub("", name.strip()) for name in names.split(";")})
    )


@dataclass(frozen=True)
class ClosedDays:
    """weekdays: 0 for Monday. holidays: names. dates: as month_and_day() counts."""

    weekdays: tuple[int, ...] = ()
    holidays: tuple[str, ...] = ()
    dates: tuple[int, ...] = ()

    def among(self, days: np.ndarray, holidays: Mapping[str, np.ndarray]) -> np.ndarray:
        """A bool for each of `days`, datetime64[D]."""
        closed = np.isin(weekday(days), self.weekdays) | np.isin(month_and_day(days), self.dates)
        for name in self.holidays:
            closed |= np.isin(days, holidays[name])
        return closed


def closed_days(series: Series, holidays: Mapping[str, np.ndarray]) -> ClosedDays:
    """When the history says that it is closed: never if it is signed, if sales are rare, or by week or month.

    A day below zero is one on which nothing was sold, as a day of zero is.

    Every weekday, if a series that used to have values had none for a quarter.
    """
    days, values = series.days, np.maximum(series.values, 0.0)
    if series.grain.cycle == 1 or series.is_signed() or not (values == 0).any():
        return ClosedDays()
    weekdays = tuple(day for day in range(7) if _closed_weekday(values[weekday(days) == day]))
    if len(weekdays) == 7:
        before, recent = values[: -7 * CLOSED_WEEKS], values[-7 * CLOSED_WEEKS :]
        stopped = not recent.any() and len(before) > 0 and bool((before == 0).mean() < 0.5)
        return ClosedDays(weekdays if stopped else ())
    open_day = ~np.isin(weekday(days), weekdays) & ~np.isnan(values)
    if not open_day.any() or (values[open_day][-7 * CLOSED_WEEKS :] == 0).mean() > 0.5:
        # Sales are rare on any day: that a weekday had none is chance.
        return ClosedDays()
    if (values[open_day] == 0).mean() > RARE_ZERO:
        return ClosedDays(weekdays)
    always_zero = tuple(
        name for name, when in holidays.items() if _zero_each_time(values[open_day & np.isin(days, when)])
    )
    zero = open_day & (values == 0) & ~np.isin(days, [day for name in always_zero for day in holidays[name]])
    dates = month_and_day(days)
    repeated = tuple(
        int(date)
        for date in np.unique(dates[zero])
        if _zero_each_time(values[open_day & (dates == date)], least=2)
    )
    return ClosedDays(weekdays, always_zero, repeated)


def _closed_weekday(values: np.ndarray) -> bool:
    recent = values[~np.isnan(values)][-CLOSED_WEEKS:]
    return len(recent) >= 4 and bool((recent == 0).mean() >= CLOSED_SHARE)


def _zero_each_time(values: np.ndarray, least: int = 1) -> bool:
    return len(values) >= least and bool((values[-3:] == 0).all())


@dataclass(frozen=True)
class CalendarColumns:
    """table: (days, columns). spreads: prior standard deviation of each column's effect.

    groups: "week", "year", "week in year", "turn of year", and each holiday -> where its columns are.
    """

    days: np.ndarray
    table: np.ndarray
    spreads: np.ndarray
    groups: Mapping[str, slice]
    grain: Grain = DAY


def calendar_columns(
    days: np.ndarray, holidays: Mapping[str, np.ndarray], grain: Grain = DAY
) -> CalendarColumns:
    """days: first days of periods, datetime64[D], one after the other. holidays: name -> such days.

    What is shorter than a period has no columns.
    """
    year = _waves(days + (grain.longest_days - 1) // 2, grain.waves)
    week = np.eye(7)[weekday(days)] if grain.cycle == 7 else np.empty((len(days), 0))
    seasons = year[:, : 2 * WEEK_WAVES]
    week_in_year = ((week - 1 / 7)[:, :, None] * seasons[:, None, :]).reshape(len(days), -1)
    turn = _turn_of_year(days, grain)
    year_spreads = YEAR_SPREAD / np.sqrt(np.repeat(np.arange(1, grain.waves + 1), 2))
    parts = [
        ("week", week, np.full(week.shape[1], WEEK_SPREAD)),
        ("year", year, year_spreads),
        ("week in year", week_in_year, np.full(week_in_year.shape[1], WEEK_IN_YEAR_SPREAD)),
        # The days that a week has of it count together as much as one day does.
        ("turn of year", turn, np.full(turn.shape[1], TURN_SPREAD / np.sqrt(grain.longest_days))),
    ]
    around = np.array(grain.holiday_spreads)
    for name, when in holidays.items():
        # The holiday, the period before it, the period after it.
        columns = [np.isin(days, grain.starts(when, shift)) for shift in (0, -1, 1)[: len(around)]]
        parts.append((name, np.stack(columns, axis=1).astype(float), around))
    ends = np.cumsum([part.shape[1] for _, part, _ in parts])
    groups = {
        name: slice(int(end) - part.shape[1], int(end))
        for (name, part, _), end in zip(parts, ends, strict=True)
    }
    table, spreads = np.hstack([part for _, part, _ in parts]), np.concatenate([sd for _, _, sd in parts])
    return CalendarColumns(days, table, spreads, groups, grain)


def _turn_of_year(days: np.ndarray, grain: Grain) -> np.ndarray:
    """For each of the days around the turn of the year whether a period has it; none for months."""
    if not grain.has_holidays:
        return np.empty((len(days), 0))
    every_day = (days[:, None] + np.arange(grain.longest_days)).reshape(-1)
    is_turn = month_and_day(every_day)[:, None] == np.array(TURN_OF_YEAR)
    return is_turn.reshape(len(days), grain.longest_days, -1).any(axis=1).astype(float)


def _waves(days: np.ndarray, waves: int) -> np.ndarray:
    """cos and sin of each wave in turn, the slowest first: (days, 2 * waves)."""
    phase = 2 * np.pi * (days.astype(int) / DAYS_OF_A_YEAR)
    angles = phase[:, None] * np.arange(1, waves + 1)
    return np.stack([np.cos(angles), np.sin(angles)], axis=2).reshape(len(days), -1)
