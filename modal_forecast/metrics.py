"""Accuracy metrics, one definition each for the back-test, the accuracy table and the benchmarks.

All take float64 arrays of the same length; NaN in `actual` is a missing value, and does not count. A metric
is None where its denominator is zero.

Hyndman and Koehler, "Another look at measures of forecast accuracy", 2006.
"""

import numpy as np

# The share of a season that must have a value of the season before.
SHORTEST_SEASONS = 0.25


def seasonal_error(values: np.ndarray, season: int) -> float:
    """Return the mean absolute difference to the value of a season before: the scale of MASE.

    season: in periods, see Grain.season. Of a history that is hardly longer than that, the difference to the
    value before. Zero if all values repeat, or none has one to compare.
    """
    lag = season if len(values) >= fewest_for(season) else 1
    differences = np.abs(values[lag:] - values[:-lag])
    differences = differences[~np.isnan(differences)]
    return float(differences.mean()) if len(differences) else 0.0


def fewest_for(season: int) -> float:
    """Return how many values make a history that is compared with a season before."""
    return (1 + SHORTEST_SEASONS) * season


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
    """Share of values within the bounds, which belong to the interval."""
    observed = ~np.isnan(actual)
    return float(((lower <= actual) & (actual <= upper))[observed].mean())


def skill(error: float, naive_error: float) -> float:
    """1 less the error as a share of a naive forecast's; 0 if the naive forecast was never wrong."""
    return 1 - error / naive_error if naive_error > 0 else 0.0
