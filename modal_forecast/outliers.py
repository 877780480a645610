"""Days that are wildly off what the same weekday was around them, held back before anything is fitted."""

import warnings
from collections.abc import Mapping

import numpy as np

from modal_forecast.daily import DailySeries

WEEKS_AROUND = 4
# Far beyond the best day before Christmas, which is to be learned from: a slipped decimal point, not a sale.
LIMIT = 20.0


def tame(series: DailySeries, holidays: Mapping[str, np.ndarray]) -> DailySeries:
    """The series with values at most LIMIT usual deviations from the median of the same weekday nearby.

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
        return DailySeries(series.days, values)
    special = np.zeros(len(values), bool)
    for when in holidays.values():
        special |= np.isin(series.days, np.concatenate([when - 1, when, when + 1]))
    held = middle + np.clip(away, -LIMIT * usual, LIMIT * usual)
    return DailySeries(series.days, np.where(special, values, held))
