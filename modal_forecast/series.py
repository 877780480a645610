"""A series on a calendar without holes: the input of every candidate, back-test and interval."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from modal_forecast.grain import DAY, Grain

# Refunds make a few days of sales negative; a balance, a margin or a temperature is negative often.
SIGNED_SHARE = 0.05
# A series that has fallen below zero for good is signed within weeks.
RECENT, RECENT_SIGNED_SHARE = 28, 0.5
# Outliers are measured against the same weekday in so many weeks before and after, in usual deviations. 20 is
# far beyond the best day before Christmas, which is to be learned from: a slipped decimal point, not a sale.
WEEKS_AROUND, LIMIT = 4, 20.0


@dataclass(frozen=True)
class Series:
    """days: the first days of the periods, datetime64[D], one after the other. values: float64 in the
    history's unit, NaN where missing. grain: what one value is of.

    The first and the last value are never missing.
    """

    days: np.ndarray
    values: np.ndarray
    grain: Grain = DAY

    def __len__(self) -> int:
        return len(self.days)

    def until(self, origin: int) -> "Series":
        """The first `origin` periods, less the missing ones at their end."""
        observed = np.flatnonzero(~np.isnan(self.values[:origin]))
        end = int(observed[-1]) + 1 if len(observed) else 0
        return Series(self.days[:end], self.values[:end], self.grain)

    def is_signed(self) -> bool:
        return is_signed(self.values)


def is_signed(values: np.ndarray) -> bool:
    """Whether values below zero are ordinary: more than SIGNED_SHARE of all values are below zero, or more
    than RECENT_SIGNED_SHARE of the last RECENT of them.

    If not, such a value is an outlier: nothing was sold and something was returned. The forecast and its
    bounds are then not below zero. NaN is a missing value.
    """
    observed = values[~np.isnan(values)]
    recent = observed[-RECENT:]
    return bool(
        (observed < 0).sum() > SIGNED_SHARE * len(observed)
        or (recent < 0).sum() > RECENT_SIGNED_SHARE * len(recent)
    )


def read_series(history: pa.Table, grain: Grain = DAY) -> Series:
    """The last `grain.used` periods of a history in HISTORY_SCHEMA, up to the last one with a value.

    Zeros before the first value that is not zero are from before the beginning, and left out.
    """
    days, values = history["ds"].to_numpy(), history["y"].to_numpy()
    observed = ~np.isnan(values)
    days, values = days[observed], values[observed]
    numbers = grain.numbers(days)
    calendar = np.arange(max(numbers[0], numbers[-1] + 1 - grain.used), numbers[-1] + 1)
    recent = numbers >= calendar[0]
    on_calendar = np.full(len(calendar), np.nan)
    on_calendar[numbers[recent] - calendar[0]] = values[recent]
    begun = ~np.isnan(on_calendar) & ((on_calendar != 0) | is_signed(on_calendar))
    if not begun.any():
        begun = ~np.isnan(on_calendar)
    # A single value tells nothing: keep as many as a forecast needs, zeros or not.
    first = min(int(np.flatnonzero(begun)[0]), max(len(on_calendar) - grain.fewest, 0))
    first += int(np.flatnonzero(~np.isnan(on_calendar[first:]))[0])
    return Series(grain.first_days(calendar[first:]), on_calendar[first:], grain)


def weekday(days: np.ndarray) -> np.ndarray:
    """0 for Monday to 6 for Sunday."""
    return (days.astype(int) + 3) % 7


def month_and_day(days: np.ndarray) -> np.ndarray:
    """103 for 3 January, 1224 for Christmas Eve."""
    months = days.astype("datetime64[M]")
    return (months.astype(int) % 12 + 1) * 100 + (days - months.astype("datetime64[D]")).astype(int) + 1


def clip_outliers(series: Series, holidays: Mapping[str, np.ndarray]) -> Series:
    """Return the series with values within LIMIT usual deviations of the median of the same weekday nearby.

    Holidays, and the days beside them, stay as they are. Unless the series is signed, a value below zero
    becomes zero. Weeks and months are not limited: the few beside a peak do not tell it from a mistake.
    """
    values = series.values if series.is_signed() else np.maximum(series.values, 0.0)
    if series.grain.cycle == 1:
        return replace(series, values=values)
    padded = np.pad(values, 7 * WEEKS_AROUND, constant_values=np.nan)
    shifts = range(0, 14 * WEEKS_AROUND + 1, 7)
    around = np.stack([padded[shift : shift + len(values)] for shift in shifts])
    with warnings.catch_warnings(action="ignore", category=RuntimeWarning):
        middle = np.nanmedian(around, axis=0)
    away = values - middle
    usual = 1.4826 * float(np.nanmedian(np.abs(away)))
    if usual == 0:
        return replace(series, values=values)
    special = np.zeros(len(values), bool)
    for when in holidays.values():
        special |= np.isin(series.days, np.concatenate([when - 1, when, when + 1]))
    limited = middle + np.clip(away, -LIMIT * usual, LIMIT * usual)
    return replace(series, values=np.where(special, values, limited))
