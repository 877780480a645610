"""Bounds from what the back-test missed by: conformal prediction with errors that grow with the horizon.

Vovk, Gammerman and Shafer, "Algorithmic learning in a random world", 2005; scaled residuals as in Lei et al.,
"Distribution-free predictive inference for regression", 2018.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from modal_forecast.backtest import Origin, independent_origins
from modal_forecast.series import Series

COVERAGES = (0.80, 0.95)
# How far the error follows the size of the forecast: not at all, as its root, in proportion.
EXPONENTS = (0.0, 0.5, 1.0)
# So that a closed day has a narrow interval, but no day one without any width that the size alone explains.
SMALLEST_SIZE = 0.1
# Errors at the horizon are half as large again as at first, as much as two independent origins would say.
DEFAULT_GROWTH, DEFAULT_ORIGINS, LARGEST_GROWTH = 0.5, 2.0, 3.0
# A mean error in one direction may not repeat: the bounds are two thirds symmetric.
ASYMMETRY = 1 / 3
# Overlapping origins are worth 1 + span / horizon independent ones. Quantiles of so few are too narrow, as
# those of a t-distribution with few degrees of freedom are wide; the outer one more so.
FEW_ORIGINS = {0.80: 0.15, 0.95: 0.50}
# The fewest sums in the back-test that tell anything.
MIN_SUMS = 3


@dataclass(frozen=True)
class Calibration:
    """What turns a forecast into bounds.

    exponent: of the forecast's size. size: of a usual forecast, in the unit. growth: of the error from the
    first period to `horizon`, as a share. lower, upper: coverage -> scaled error.
    """

    exponent: float
    size: float
    growth: float
    horizon: int
    lower: dict[float, float]
    upper: dict[float, float]

    def spread(self, forecast: np.ndarray, ahead: np.ndarray) -> np.ndarray:
        """The error's scale for forecasts `ahead` periods from the last value."""
        sizes = np.maximum(np.abs(forecast) / self.size, SMALLEST_SIZE) ** self.exponent
        grown: np.ndarray = sizes * (1 + self.growth * ahead / self.horizon)
        return grown

    def bounds(self, forecast: np.ndarray, ahead: np.ndarray) -> dict[str, np.ndarray]:
        """yhat_lower_80 and so on; the wider interval holds the narrower one, and that the forecast."""
        spread = self.spread(forecast, ahead)
        bounds: dict[str, np.ndarray] = {}
        for coverage in COVERAGES:
            bounds[f"yhat_lower_{coverage * 100:.0f}"] = forecast + self.lower[coverage] * spread
            bounds[f"yhat_upper_{coverage * 100:.0f}"] = forecast + self.upper[coverage] * spread
        return bounds


def calibrate(
    origins: Sequence[Origin], forecasts: Sequence[np.ndarray], horizon: int, positive: bool
) -> Calibration:
    """From the forecasts made at each origin, at least one, and what came.

    horizon: periods that will be asked for, from the last value on. positive: whether the series is
    not signed, so that its errors may follow its size.
    """
    actual = np.concatenate([origin.actual for origin in origins])
    forecast = np.concatenate(forecasts)
    ahead = np.concatenate([np.arange(1.0, len(origin.actual) + 1) for origin in origins])
    observed = ~np.isnan(actual)
    actual, forecast, ahead = actual[observed], forecast[observed], ahead[observed]
    # In units of its largest value no square and no ratio leaves a double.
    size = float(np.median(np.abs(forecast))) or float(np.abs(actual).max()) or 1.0
    errors = actual - forecast
    exponent = _exponent(errors, forecast, size) if positive else 0.0
    scaled = errors / np.maximum(np.abs(forecast) / size, SMALLEST_SIZE) ** exponent
    independent = independent_origins(origins)
    growth = _growth(np.abs(scaled), ahead / horizon, independent)
    scaled = scaled / (1 + growth * ahead / horizon)
    lower, upper = {}, {}
    for coverage in COVERAGES:
        widening = 1 + FEW_ORIGINS[coverage] / independent
        both = _quantile(np.abs(scaled), coverage)
        low, high = _quantile(-scaled, (1 + coverage) / 2), _quantile(scaled, (1 + coverage) / 2)
        lower[coverage] = -widening * ((1 - ASYMMETRY) * both + ASYMMETRY * max(low, 0.0))
        upper[coverage] = widening * ((1 - ASYMMETRY) * both + ASYMMETRY * max(high, 0.0))
    narrow, wide = COVERAGES
    lower[wide], upper[wide] = min(lower[wide], lower[narrow]), max(upper[wide], upper[narrow])
    return Calibration(exponent, size, growth, horizon, lower, upper)


def _quantile(values: np.ndarray, share: float) -> float:
    """The conformal quantile: of n values the one at rank (n + 1) * share."""
    return float(np.quantile(values, min(share * (1 + 1 / len(values)), 1.0)))


def _exponent(errors: np.ndarray, forecast: np.ndarray, size: float) -> float:
    """The likeliest one for errors of a Laplace distribution; a larger one only if it is clearly likelier."""
    best, likeliest = EXPONENTS[0], np.inf
    for exponent in EXPONENTS:
        sizes = np.maximum(np.abs(forecast) / size, SMALLEST_SIZE) ** exponent
        mean = float(np.mean(np.abs(errors) / sizes))
        if mean == 0:
            return best
        surprise = float(np.mean(np.log(sizes))) + float(np.log(mean))
        if surprise < likeliest - 0.01:
            best, likeliest = exponent, surprise
    return best


def _growth(sizes: np.ndarray, ahead: np.ndarray, independent: float) -> float:
    """How much larger the error is at the horizon than at first, nearer a default if origins are few."""
    mean = float(sizes.mean())
    growth = DEFAULT_GROWTH
    if mean > 0 and np.ptp(ahead) > 0:
        slope, start = np.polyfit(ahead, sizes / mean, 1)
        growth = float(np.clip(slope / max(start, 0.25), 0.0, LARGEST_GROWTH))
    return (growth * independent + DEFAULT_GROWTH * DEFAULT_ORIGINS) / (independent + DEFAULT_ORIGINS)


def calibrate_or_default(
    origins: Sequence[Origin], forecasts: Sequence[np.ndarray], horizon: int, series: Series
) -> Calibration:
    """Without any origin, bounds as wide as the history's own spread around its median."""
    if origins:
        return calibrate(origins, forecasts, horizon, not series.is_signed())
    values = series.values[~np.isnan(series.values)]
    distance = np.abs(values - np.median(values))
    wide = {coverage: float(np.quantile(distance, coverage)) for coverage in COVERAGES}
    return Calibration(
        0.0, 1.0, DEFAULT_GROWTH, horizon, {at: -value for at, value in wide.items()}, dict(wide)
    )


def bounds_from_backtest(
    origins: Sequence[Origin], forecasts: Sequence[np.ndarray], horizon: int, series: Series
) -> list[dict[str, np.ndarray]]:
    """The bounds at each origin, calibrated on the other ones; none if there is no other."""
    bounds = []
    for left_out in range(len(origins) if len(origins) > 1 else 0):
        others = [number for number in range(len(origins)) if number != left_out]
        calibration = calibrate(
            [origins[number] for number in others],
            [forecasts[number] for number in others],
            horizon,
            not series.is_signed(),
        )
        ahead = np.arange(1.0, len(forecasts[left_out]) + 1)
        bounds.append(calibration.bounds(forecasts[left_out], ahead))
    return bounds


def about_sums(
    origins: Sequence[Origin], forecasts: Sequence[np.ndarray], bounds: Sequence[Mapping[str, np.ndarray]]
) -> dict[str, dict[str, float]]:
    """Return for sums of so many periods: {"30": {"error": 0.05, "width": 0.77}}; only what can be told.

    error: the mean absolute error of the sums in the back-test, as a share of what came.
    width: the 80% bounds of a sum as a share of the added bounds of its periods. Good and bad ones partly
        cancel out, and the back-test tells how far: on the series of `make bench-forecast`, bounds so
        narrowed held 82%, 85% and 91% of the sums of 7, 30 and 90 days.
    bounds: at each origin, as from bounds_from_backtest().
    """
    sums: dict[str, dict[str, float]] = {}
    for count in origins[0].grain.windows if bounds else ():
        errors, actuals, shares = [], [], []
        for origin, forecast, bound in zip(origins, forecasts, bounds, strict=True):
            for first in range(0, len(forecast) - count + 1, count):
                window = slice(first, first + count)
                observed = ~np.isnan(origin.actual[window])
                actual, expected = origin.actual[window][observed], forecast[window][observed]
                error = float((actual - expected).sum())
                side = bound["yhat_upper_80" if error > 0 else "yhat_lower_80"][window][observed]
                errors.append(abs(error))
                actuals.append(abs(float(actual.sum())))
                if width := abs(float((side - expected).sum())):
                    shares.append(abs(error) / width)
        if len(shares) >= MIN_SUMS and sum(actuals) > 0:
            independent = independent_origins(origins) * (len(forecasts[0]) // count)
            width = (1 + FEW_ORIGINS[0.80] / independent) * _quantile(np.array(shares), 0.80)
            sums[str(count)] = {"error": round(sum(errors) / sum(actuals), 4), "width": round(width, 4)}
    return sums
