"""Days on which nothing can be sold: a weekday, a holiday or a date that was zero whenever it came."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from modal_forecast.daily import DailySeries, month_and_day, weekday

# A quarter tells a closed weekday from a slow one; a shop that opens on Sundays counts as open within weeks.
WEEKS = 13
CLOSED_SHARE = 0.9
# Where zero is common, a holiday that was zero twice says nothing.
RARE_ZERO = 0.05


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


def closed_days(series: DailySeries, holidays: Mapping[str, np.ndarray]) -> ClosedDays:
    """When the history says that it is closed: never if it is signed or if sales are rare.

    A day below zero is one on which nothing was sold, as a day of zero is.

    Every weekday, if a series that used to have values had none for a quarter.
    """
    days, values = series.days, np.maximum(series.values, 0.0)
    if series.is_signed() or not (values == 0).any():
        return ClosedDays()
    weekdays = tuple(day for day in range(7) if _closed_weekday(values[weekday(days) == day]))
    if len(weekdays) == 7:
        before = values[: -7 * WEEKS]
        stopped = not values[-7 * WEEKS :].any() and len(before) > 0 and bool((before == 0).mean() < 0.5)
        return ClosedDays(weekdays if stopped else ())
    open_day = ~np.isin(weekday(days), weekdays) & ~np.isnan(values)
    if not open_day.any() or (values[open_day][-7 * WEEKS :] == 0).mean() > 0.5:
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
    recent = values[~np.isnan(values)][-WEEKS:]
    return len(recent) >= 4 and bool((recent == 0).mean() >= CLOSED_SHARE)


def _zero_each_time(values: np.ndarray, least: int = 1) -> bool:
    return len(values) >= least and bool((values[-3:] == 0).all())
