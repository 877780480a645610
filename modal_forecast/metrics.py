"""Accuracy metrics, one definition each for the back-test, the accuracy tables and the benchmarks.

Arrays are float64; NaN is a missing value, and does not count.

Hyndman and Koehler, "Another look at measures of forecast accuracy", 2006.
"""

from collections.abc import Mapping

import numpy as np

# The share of a season that must have a value of the season before.
SHORTEST_SEASONS = 0.25
# What scores() divides, summed over values.
MEASURES = (
    "count", "error", "signed_error", "actual", "scaled_error", "scaled_count", "inside_80", "inside_95",
)  # fmt: skip


def seasonal_error(values: np.ndarray, season: int) -> np.ndarray:
    """Return the mean absolute difference to the value of a season before: the scale of MASE.

    Of a history that is hardly longer than a season, the difference to the value before. Zero if all values
    repeat, or none has one to compare.

    Args:
        values: of a history, or of many, each of them a row that may begin with missing values.
        season: in periods, see Grain.season.
    """

    def mean_difference(lag: int) -> np.ndarray:
        differences = np.abs(values[..., lag:] - values[..., :-lag])
        counts = np.count_nonzero(~np.isnan(differences), axis=-1)
        mean: np.ndarray = np.nansum(differences, axis=-1) / np.maximum(counts, 1)
        return mean

    lengths = np.count_nonzero(np.logical_or.accumulate(~np.isnan(values), axis=-1), axis=-1)
    is_long = lengths >= (1 + SHORTEST_SEASONS) * season
    return np.where(is_long, mean_difference(season), mean_difference(1))


def mae(actual: np.ndarray, forecast: np.ndarray) -> float:
    """Mean absolute error, in the unit of the values."""
    return float(np.nanmean(np.abs(actual - forecast)))


def measure(
    actual: np.ndarray, forecast: Mapping[str, np.ndarray], scale: float | np.ndarray = 0.0
) -> np.ndarray:
    """Return the MEASURES of each value, as rows: their sums make the scores.

    Args:
        actual: none of them missing.
        forecast: `yhat` and its bounds, by the names of FORECAST_SCHEMA; without bounds nothing is covered.
        scale: the seasonal_error() of the history, or of that of each value.
    """
    error = forecast["yhat"] - actual
    is_scaled = np.broadcast_to(np.asarray(scale) > 0, error.shape)
    scaled = np.divide(np.abs(error), scale, out=np.zeros(error.shape), where=is_scaled)
    inside = [
        (forecast[f"yhat_lower_{level}"] <= actual) & (actual <= forecast[f"yhat_upper_{level}"])
        if f"yhat_lower_{level}" in forecast
        else np.full(error.shape, np.nan)
        for level in (80, 95)
    ]
    count = np.ones(error.shape)
    return np.stack([count, np.abs(error), error, np.abs(actual), scaled, is_scaled, *inside])


def scores(sums: np.ndarray) -> dict[str, np.ndarray]:
    """Return the scores of sums of measures, (MEASURES, ...); NaN where a denominator is zero.

    mase: mean absolute error as a share of the seasonal_error() of the history. wape: sum of absolute errors
    as a share of the sum of absolute values. bias: sum of errors as a share of the same; above 0: the
    forecast was too high. coverage: share of values within the bounds, which belong to the interval.
    """
    measured = dict(zip(MEASURES, sums, strict=True))
    with np.errstate(divide="ignore", invalid="ignore"):
        shares = {
            "mase": measured["scaled_error"] / measured["scaled_count"],
            "wape": measured["error"] / measured["actual"],
            "bias": measured["signed_error"] / measured["actual"],
            "coverage_80": measured["inside_80"] / measured["count"],
            "coverage_95": measured["inside_95"] / measured["count"],
        }
    return {name: np.where(np.isfinite(share), share, np.nan) for name, share in shares.items()}


def score(
    actual: np.ndarray, forecast: Mapping[str, np.ndarray], scale: float = 0.0
) -> dict[str, float | None]:
    """Return the scores of one forecast, as measure() takes it; None where a denominator is zero."""
    came = ~np.isnan(actual)
    measured = measure(actual[came], {name: values[came] for name, values in forecast.items()}, scale)
    shares = scores(measured.sum(axis=1))
    return {name: None if np.isnan(share) else float(share) for name, share in shares.items()}


def skill(error: float, naive_error: float) -> float:
    """1 less the error as a share of a naive forecast's; 0 if the naive forecast was never wrong."""
    return 1 - error / naive_error if naive_error > 0 else 0.0
