"""Accuracy metrics, one definition each for the back-test, the accuracy table and the benchmarks.

All take float64 arrays of the same length; NaN in `actual` is a missing day, and does not count. A metric is
None where its denominator is zero.

Hyndman and Koehler, "Another look at measures of forecast accuracy", 2006.
"""

import numpy as np

WEEK = 7


def seasonal_error(values: np.ndarray) -> float:
    """Return the mean absolute difference to the value of a week before: the scale of MASE.

    Zero if all values repeat, or no day has one to compare.
    """
    differences = np.abs(values[WEEK:] - values[:-WEEK])
    differences = differences[~np.isnan(differences)]
    return float(differences.mean()) if len(differences) else 0.0


def mae(actual: np.ndarray, forecast: np.ndarray) -> float:
    """Mean absolute error, in the unit of the values."""
    return float(np.nanmean(np.abs(actual - forecast)))


def mase(actual: np.ndarray, forecast: np.ndarray, scale: float) -> float | None:
    """Mean absolute error as a share of `scale`, the seasonal_error() of the history."""
    return mae(actual, forecast) / scale if scale > 0 else None


def wape(actual: np.ndarray, forecast: np.ndarray) -> float | None:
    """Sum of absolute errors as a share of the sum of absolute values."""
    total = float(np.nansum(np.abs(actual)))
    return float(np.nansum(np.abs(forecast - actual))) / total if total > 0 else None


def bias(actual: np.ndarray, forecast: np.ndarray) -> float | None:
    """Sum of errors as a share of the sum of absolute values; above 0: the forecast was too high."""
    total = float(np.nansum(np.abs(actual)))
    return float(np.nansum(forecast - actual)) / total if total > 0 else None


def coverage(actual: np.ndarray, lower: np.ndarray, upper: np.ndarray) -> float:
    """Share of days within the bounds, which belong to the interval."""
    observed = ~np.isnan(actual)
    return float(((lower <= actual) & (actual <= upper))[observed].mean())


def skill(error: float, naive_error: float) -> float:
    """1 less the error as a share of a naive forecast's; 0 if the naive forecast was never wrong."""
    return 1 - error / naive_error if naive_error > 0 else 0.0
