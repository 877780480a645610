"""A series on a calendar without holes: the input of every candidate, back-test and interval."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

# A day of six years ago has an eighth of yesterday's weight (candidates/harmonic.py) and costs as much.
MAX_DAYS = 6 * 365
# Refunds make a few days of sales negative; a balance, a margin or a temperature is negative often.
SIGNED_SHARE = 0.05
# A series that has fallen below zero for good is signed within weeks.
RECENT_DAYS, RECENT_SIGNED_SHARE = 28, 0.5
# Outliers are measured against the same weekday in so many weeks before and after, in usual deviations. 20 is
# far beyond the best day before Christmas, which is to be learned from: a slipped decimal point, not a sale.
WEEKS_AROUND, LIMIT = 4, 20.0


@dataclass(frozen=True)
class Series:
    """days: datetime64[D], one after the other. values: float64 in the history's unit, NaN where missing.

    The first and the last value are never missing.
    """

    days: np.ndarray
    values: np.ndarray

    def __len__(self) -> int:
        return len(self.days)

    def until(self, origin: int) -> "Series":
        """The first `origin` days, less the missing ones at their end."""
        observed = np.flatnonzero(~np.isnan(self.values[:origin]))
        end = int(observed[-1]) + 1 if len(observed) else 0
        return Series(self.days[:end], self.values[:end])

    def is_signed(self) -> bool:
        return is_signed(self.values)


def is_signed(values: np.ndarray) -> bool:
    """Whether values below zero are ordinary: more than SIGNED_SHARE of the days that have a value are below
    zero, or more than RECENT_SIGNED_SHARE of the last RECENT_DAYS of them.

    If not, such a day is an outlier: nothing was sold on it and something was returned. The forecast and its
    bounds are then not below zero. NaN is a missing day.
    """
    observed = values[~np.isnan(values)]
    recent = observed[-RECENT_DAYS:]
    return bool(
        (observed < 0).sum() > SIGNED_SHARE * len(observed)
        or (recent < 0).sum() > RECENT_SIGNED_SHARE * len(recent)
    )


def read_series(history: pa.Table) -> Series:
    """The last MAX_DAYS days of a history in HISTORY_SCHEMA, up to the last one with a value.

    Zeros before the first value that is not zero are from before the beginning, and left out.
    """
    days, values = history["ds"].to_numpy(), history["y"].to_numpy()
    observed = ~np.isnan(values)
    days, values = days[observed], values[observed]
    calendar = np.arange(max(days[0], days[-1] + 1 - MAX_DAYS), days[-1] + 1)
    recent = days >= calendar[0]
    on_calendar = np.full(len(calendar), np.nan)
    on_calendar[(days[recent] - calendar[0]).astype(int)] = values[recent]
    begun = ~np.isnan(on_calendar) & ((on_calendar != 0) | is_signed(on_calendar))
    if not begun.any():
        begun = ~np.isnan(on_calendar)
    # A single value tells nothing: keep two weeks, zeros or not.
    first = min(int(np.flatnonzero(begun)[0]), max(len(on_calendar) - 14, 0))
    first += int(np.flatnonzero(~np.isnan(on_calendar[first:]))[0])
    return Series(calendar[first:], on_calendar[first:])


def weekday(days: np.ndarray) -> np.ndarray:
    """0 for Monday to 6 for Sunday."""
    return (days.astype(int) + 3) % 7


def month_and_day(days: np.ndarray) -> np.ndarray:
    """103 for 3 January, 1224 for Christmas Eve."""
    months = days.astype("datetime64[M]")
    return (months.astype(int) % 12 + 1) * 100 + (days - months.astype("datetime64[D]")).astype(int) + 1


def clip_outliers(series: Series, holidays: Mapping[str, np.ndarray]) -> Series:
    """Return the series with values within LIMIT usual deviations of the median of the same weekday nearby.

    Holidays, and the days beside them, stay as they are. Unless the series is signed, a day below zero
    becomes one without sales.
    """
    values = series.values if series.is_signed() else np.maximum(series.values, 0.0)
    padded = np.pad(values, 7 * WEEKS_AROUND, constant_values=np.nan)
    shifts = range(0, 14 * WEEKS_AROUND + 1, 7)
    around = np.stack([padded[shift : shift + len(values)] for shift in shifts])
    with warnings.catch_warnings(action="ignore", category=RuntimeWarning):
        middle = np.nanmedian(around, axis=0)
    away = values - middle
    usual = 1.4826 * float(np.nanmedian(np.abs(away)))
    if usual == 0:
        return Series(series.days, values)
    special = np.zeros(len(values), bool)
    for when in holidays.values():
        special |= np.isin(series.days, np.concatenate([when - 1, when, when + 1]))
    limited = middle + np.clip(away, -LIMIT * usual, LIMIT * usual)
    return Series(series.days, np.where(special, values, limited))
