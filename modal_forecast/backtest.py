"""Back-test with a rolling origin: forecasts from earlier days of the same history, and their accuracy.

Tashman, "Out-of-sample tests of forecasting accuracy", 2000. Nothing after an origin is used at it: each
origin sees a series that ends there, and holidays, which are known in advance.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from modal_forecast import metrics
from modal_forecast.calendars import CalendarColumns
from modal_forecast.candidates import BASELINES, Inputs, fit_candidates, prepare_inputs
from modal_forecast.series import Series

# More did not choose better, and each takes 30 to 60 ms of cpu on five years.
MAX_ORIGINS = 6
MIN_STEP = 14
# Further back the series is shorter, and was perhaps another.
MAX_SPAN = 450
# An origin keeps enough of the history to be forecast as the whole will be.
MIN_TRAINING_SHARE, MIN_TRAINING = 0.45, 7
# The share that is tested of a history too short for the horizon.
SHORT_TEST_SHARE, MIN_TEST = 1 / 3, 7

Forecasts = Sequence[np.ndarray | None]
NAIVE_MEANING = {"seasonal_naive_7": "last week's same days", "seasonal_naive_364": "last year's same days"}
# A mean of two forecasts often errs less than both, so a naive that did better need not have all of it.
NAIVE_SHARES = (0.0, 0.25, 0.5, 0.75)
# From fewer origins that share no day, an error a quarter larger than that of the naive is luck as often as
# not: on series cut to 200 and 300 days, giving way to every lead of it made the forecasts a tenth worse.
PROOF_ORIGINS, UNPROVEN_MARGIN = 2.0, 0.25


@dataclass(frozen=True)
class Origin:
    """What was forecast at one origin.

    index: days of history that were used. actual: the days after it, NaN where missing.
    forecasts: candidate -> forecasts, of the length of `actual`. scale: metrics.seasonal_error().
    """

    index: int
    actual: np.ndarray
    forecasts: Mapping[str, np.ndarray]
    scale: float

    def baseline(self, name: str) -> np.ndarray:
        """A seasonal naive; last week's days stand in for last year's where there is less than a year."""
        return self.forecasts.get(name, self.forecasts["seasonal_naive_7"])

    def error(self, forecast: np.ndarray) -> float:
        """Mean absolute error, in the unit of the history."""
        return metrics.mae(self.actual, forecast)


def choose_origins(length: int, horizon: int) -> tuple[list[int], int]:
    """Days of history at each origin, the latest first, and the days tested from each."""
    tested = min(horizon, max(MIN_TEST, int(length * SHORT_TEST_SHARE)))
    earliest = max(int(length * MIN_TRAINING_SHARE), MIN_TRAINING)
    latest = length - tested
    if latest < earliest:
        return [], tested
    step = max(min(latest - earliest, MAX_SPAN) / (MAX_ORIGINS - 1), MIN_STEP)
    origins = [int(latest - number * step) for number in range(MAX_ORIGINS)]
    return [origin for origin in origins if origin >= earliest], tested


def run_backtest(
    series: Series, horizon: int, calendar: CalendarColumns, holidays: Mapping[str, np.ndarray]
) -> list[Origin]:
    """The latest origin first; none if the history is too short or too full of holes."""
    indices, tested = choose_origins(len(series), horizon)
    origins = []
    for index in indices:
        actual = series.values[index : index + tested]
        training = series.values[:index]
        if (~np.isnan(training)).sum() < MIN_TRAINING or np.isnan(actual).all():
            continue
        inputs = inputs_at(series, index, tested, calendar, holidays)
        forecasts = {name: fit.forecast[-tested:] for name, fit in fit_candidates(inputs).items()}
        origins.append(Origin(index, actual, forecasts, metrics.seasonal_error(inputs.series.values)))
    return origins


def inputs_at(
    series: Series,
    index: int,
    tested: int,
    calendar: CalendarColumns,
    holidays: Mapping[str, np.ndarray],
) -> Inputs:
    """The inputs of a candidate that knows the first `index` days and forecasts `tested` days after them."""
    history = series.until(index)
    # The days between the last value before the origin and the origin are forecast as well.
    return prepare_inputs(history, index - len(history) + tested, calendar, holidays)


def independent_origins(origins: Sequence[Origin]) -> float:
    """Return the number of origins without a common day that are worth as much: 1 + span / days tested."""
    indices = [origin.index for origin in origins]
    return min(1 + (max(indices) - min(indices)) / len(origins[0].actual), float(len(origins)))


def score(origins: Sequence[Origin], forecasts: Forecasts) -> dict[str, float | int | None]:
    """Return mase, wape, bias and the number of origins of a forecast that was made at some of them.

    mase: mean over origins of the mean absolute error in that of last week's same day, in the history.
    wape: the sum of absolute errors as a share of the sum of absolute values.
    bias: mean of forecast less actual, as a share of the mean absolute value.
    None where a denominator is zero.
    """
    pairs = [
        (origin, forecast)
        for origin, forecast in zip(origins, forecasts, strict=True)
        if forecast is not None
    ]
    if not pairs:
        return {"mase": None, "wape": None, "bias": None, "origins": 0}
    by_origin = [metrics.mase(origin.actual, forecast, origin.scale) for origin, forecast in pairs]
    scaled = [value for value in by_origin if value is not None]
    actual = np.concatenate([origin.actual for origin, _ in pairs])
    forecast = np.concatenate([forecast for _, forecast in pairs])
    return {
        "mase": rounded(np.mean(scaled)) if scaled else None,
        "wape": rounded(metrics.wape(actual, forecast)),
        "bias": rounded(metrics.bias(actual, forecast)),
        "origins": len(pairs),
    }


def mean_error(origins: Sequence[Origin], forecasts: Sequence[np.ndarray]) -> float:
    """Mean over origins of the mean absolute error in units of its scale, or of its size without one."""
    return float(
        np.mean(
            [
                origin.error(forecast) / (origin.scale or float(np.nanmax(np.abs(origin.actual))) or 1.0)
                for origin, forecast in zip(origins, forecasts, strict=True)
            ]
        )
    )


def best_baseline(origins: Sequence[Origin]) -> tuple[str, float]:
    """The seasonal naive with the smaller error over all origins, and that error.

    At an origin with less than a year of history the 364-day one repeats the last week.
    """
    errors = {name: mean_error(origins, [origin.baseline(name) for origin in origins]) for name in BASELINES}
    best = min(errors, key=lambda name: errors[name])
    return best, errors[best]


def skill_of(origins: Sequence[Origin], forecasts: Sequence[np.ndarray]) -> dict[str, Any]:
    """Compare the forecasts with the better seasonal naive.

    Returns:
        skill, as metrics.skill(); beats_naive, whether it is above zero; skill_margin, how far below zero it
        is not significant; best_naive, its name; why, a sentence. skill and beats_naive are None without
        origins.
    """
    if not origins:
        return {
            "skill": None,
            "skill_margin": 0.0,
            "beats_naive": None,
            "best_naive": None,
            "why": "The history is too short for a back-test: the accuracy of the forecast is unknown.",
        }
    name, naive = best_baseline(origins)
    error = mean_error(origins, forecasts)
    skill = metrics.skill(error, naive)
    wins = sum(
        origin.error(forecast) < origin.error(origin.baseline(name))
        for origin, forecast in zip(origins, forecasts, strict=True)
    )
    repeats = NAIVE_MEANING[name]
    compared = f"{abs(skill):.0%} {'smaller' if skill > 0 else 'larger'} than that of repeating {repeats}"
    if naive == 0:
        compared = f"no smaller than that of repeating {repeats}, which was never wrong"
    days = len(origins[0].actual)
    if error == naive and naive > 0:
        return {
            "skill": 0.0,
            "skill_margin": skill_margin(origins),
            "beats_naive": False,
            "best_naive": name,
            "why": f"From {len(origins)} earlier days of the history, {days} days ahead, nothing that was "
            f"tried erred less than repeating {repeats}: that is the forecast.",
        }
    margin = skill_margin(origins)
    unproven = " That the history is too short to prove." if -margin <= skill < 0 else ""
    return {
        "skill": rounded(skill),
        "skill_margin": margin,
        "beats_naive": skill > 0,
        "best_naive": name,
        "why": f"From {len(origins)} earlier days of the history, {days} days ahead, the forecast's error "
        f"was {compared}, and smaller from {wins} of them.{unproven}",
    }


def skill_margin(origins: Sequence[Origin]) -> float:
    """How far below zero a skill tells nothing yet: by nothing, or by a quarter where days tested are few."""
    return 0.0 if not origins or independent_origins(origins) >= PROOF_ORIGINS else UNPROVEN_MARGIN


def naive_share(origins: Sequence[Origin], forecasts: Sequence[np.ndarray]) -> tuple[str, float]:
    """The better seasonal naive, and the smallest share of it that makes these forecasts no worse than it.

    Zero if they are not, or nothing tells; one if only the naive itself is as good as the naive.
    """
    if not origins:
        return BASELINES[0], 0.0
    name, naive = best_baseline(origins)
    repeated = [origin.baseline(name) for origin in origins]
    for share in NAIVE_SHARES:
        mixed = [mix(error, days, share) for error, days in zip(forecasts, repeated, strict=True)]
        if mean_error(origins, mixed) <= naive * (1 + skill_margin(origins)):
            return name, share
    return name, 1.0


def mix(forecast: np.ndarray, naive: np.ndarray, share: float) -> np.ndarray:
    """Return `share` of a seasonal naive plus the rest of the forecast."""
    mixed: np.ndarray = (1 - share) * forecast + share * naive
    return mixed


def rounded(value: Any) -> Any:
    """Four significant digits are more than a back-test supports; None stays None."""
    return None if value is None else float(f"{float(value):.4g}")
