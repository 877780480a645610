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
from modal_forecast.candidates import fit_candidates
from modal_forecast.candidates.protocol import Inputs, prepare_inputs
from modal_forecast.grain import DAY, Grain
from modal_forecast.series import Series

# More did not choose better, and each takes 30 to 60 ms of cpu on five years.
MAX_ORIGINS = 6
MIN_STEP_DAYS = 14
# Further back the series is shorter, and was perhaps another.
MAX_SPAN_DAYS = 450
# An origin keeps enough of the history to be forecast as the whole will be.
MIN_TRAINING_SHARE = 0.45
# The share that is tested of a history too short for the horizon.
SHORT_TEST_SHARE = 1 / 3

Forecasts = Sequence[np.ndarray | None]
NAIVE_MEANING = {
    "seasonal_naive_7": "last week's same days",
    "seasonal_naive_364": "last year's same days",
    "naive_1_week": "the last week",
    "seasonal_naive_52_weeks": "last year's same weeks",
    "naive_1_month": "the last month",
    "seasonal_naive_12_months": "last year's same months",
}
# A mean of two forecasts often errs less than both, so a naive that did better need not have all of it.
NAIVE_SHARES = (0.0, 0.25, 0.5, 0.75)
# From fewer origins that share no day, an error a quarter larger than that of the naive is luck as often as
# not: on series cut to 200 and 300 days, giving way to every lead of it made the forecasts a tenth worse.
PROOF_ORIGINS, UNPROVEN_MARGIN = 2.0, 0.25


@dataclass(frozen=True)
class Origin:
    """What was forecast at one origin.

    index: periods of history that were used. actual: the values after it, NaN where missing.
    forecasts: candidate -> forecasts, of the length of `actual`. scale: metrics.seasonal_error().
    """

    index: int
    actual: np.ndarray
    forecasts: Mapping[str, np.ndarray]
    scale: float
    grain: Grain = DAY

    def baseline(self, name: str) -> np.ndarray:
        """A seasonal naive; that of the shorter lag stands in for last year's of less than a year."""
        return self.forecasts.get(name, self.forecasts[next(iter(self.grain.naives))])

    def error(self, forecast: np.ndarray) -> float:
        """Mean absolute error, in the unit of the history."""
        return metrics.mae(self.actual, forecast)


def choose_origins(length: int, horizon: int, grain: Grain = DAY) -> tuple[list[int], int]:
    """Periods of history at each origin, the latest first, and the periods tested from each."""
    fewest = grain.windows[0]
    tested = min(horizon, max(fewest, int(length * SHORT_TEST_SHARE)))
    earliest = max(int(length * MIN_TRAINING_SHARE), fewest)
    latest = length - tested
    if latest < earliest:
        return [], tested
    span = min(latest - earliest, grain.periods(MAX_SPAN_DAYS))
    step = max(span / (MAX_ORIGINS - 1), grain.periods(MIN_STEP_DAYS))
    origins = [int(latest - number * step) for number in range(MAX_ORIGINS)]
    return [origin for origin in origins if origin >= earliest], tested


def run_backtest(
    series: Series, horizon: int, calendar: CalendarColumns, holidays: Mapping[str, np.ndarray]
) -> list[Origin]:
    """The latest origin first; none if the history is too short or too full of holes."""
    grain = series.grain
    indices, tested = choose_origins(len(series), horizon, grain)
    origins = []
    for index in indices:
        actual = series.values[index : index + tested]
        training = series.values[:index]
        if (~np.isnan(training)).sum() < grain.windows[0] or np.isnan(actual).all():
            continue
        inputs = inputs_at(series, index, tested, calendar, holidays)
        forecasts = {name: fit.forecast[-tested:] for name, fit in fit_candidates(inputs).items()}
        scale = float(metrics.seasonal_error(inputs.series.values, grain.season))
        origins.append(Origin(index, actual, forecasts, scale, grain))
    return origins


def inputs_at(
    series: Series,
    index: int,
    tested: int,
    calendar: CalendarColumns,
    holidays: Mapping[str, np.ndarray],
) -> Inputs:
    """The inputs of a candidate that knows the first `index` values and forecasts `tested` after them."""
    history = series.until(index)
    # The periods between the last value before the origin and the origin are forecast as well.
    return prepare_inputs(history, index - len(history) + tested, calendar, holidays)


def independent_origins(origins: Sequence[Origin]) -> float:
    """Return the number of origins that are worth as much and test nothing in common: 1 + span / tested."""
    indices = [origin.index for origin in origins]
    return min(1 + (max(indices) - min(indices)) / len(origins[0].actual), float(len(origins)))


def score(origins: Sequence[Origin], forecasts: Forecasts) -> dict[str, float | int | None]:
    """Return mase, wape, bias and the number of origins of a forecast that was made at some of them.

    mase: mean over origins of the mean absolute error in metrics.seasonal_error() of the history.
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
    scaled = [origin.error(forecast) / origin.scale for origin, forecast in pairs if origin.scale > 0]
    actual = np.concatenate([origin.actual for origin, _ in pairs])
    scores = metrics.score(actual, {"yhat": np.concatenate([forecast for _, forecast in pairs])})
    return {
        "mase": rounded(np.mean(scaled)) if scaled else None,
        "wape": rounded(scores["wape"]),
        "bias": rounded(scores["bias"]),
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
    """The seasonal naive with the smaller error over all origins, and that error."""
    errors = {
        name: mean_error(origins, [origin.baseline(name) for origin in origins])
        for name in origins[0].grain.naives
    }
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
    error, margin, repeats = mean_error(origins, forecasts), skill_margin(origins), NAIVE_MEANING[name]
    skill = metrics.skill(error, naive)
    wins = sum(
        origin.error(forecast) < origin.error(origin.baseline(name))
        for origin, forecast in zip(origins, forecasts, strict=True)
    )
    count, periods = len(origins), origins[0].grain.counted(len(origins[0].actual))
    tried = f"In {count} back-test{'s' if count > 1 else ''} of {periods}"
    compared = f"{abs(skill):.0%} {'smaller' if skill > 0 else 'larger'} than that of repeating {repeats}"
    if naive == 0:
        compared = f"no smaller than that of repeating {repeats}, which was never wrong"
    unproven = " The history is too short to prove that." if -margin <= skill < 0 else ""
    why = f"{tried}, the forecast's mean error was {compared}; it was smaller in {wins} of {count}.{unproven}"
    if error == naive and naive > 0:
        why = f"{tried}, nothing had a smaller error than repeating {repeats}: that is the forecast."
    return {
        "skill": rounded(skill),
        "skill_margin": margin,
        "beats_naive": skill > 0,
        "best_naive": name,
        "why": why,
    }


def skill_margin(origins: Sequence[Origin]) -> float:
    """How far below zero a skill tells nothing yet: by nothing, or by a quarter where little was tested."""
    return 0.0 if not origins or independent_origins(origins) >= PROOF_ORIGINS else UNPROVEN_MARGIN


def naive_share(origins: Sequence[Origin], forecasts: Sequence[np.ndarray]) -> tuple[str, float]:
    """The better seasonal naive, and the smallest share of it that makes these forecasts no worse than it.

    Zero if they are not, one if only the naive itself is as good as the naive; none of it without origins.
    """
    if not origins:
        return "", 0.0
    name, naive = best_baseline(origins)
    repeated = [origin.baseline(name) for origin in origins]
    for share in NAIVE_SHARES:
        mixed = [mix(forecast, naives, share) for forecast, naives in zip(forecasts, repeated, strict=True)]
        if mean_error(origins, mixed) <= naive * (1 + skill_margin(origins)):
            return name, share
    return name, 1.0


def mix(forecast: np.ndarray, naive: np.ndarray, share: float) -> np.ndarray:
    """Return `share` of a seasonal naive plus the rest of the forecast."""
    mixed: np.ndarray = (1 - share) * forecast + share * naive
    return mixed


def rounded(value: Any, digits: int = 4) -> Any:
    """Four significant digits are more than a back-test supports; None stays None."""
    return None if value is None else float(f"{float(value):.{digits}g}")
