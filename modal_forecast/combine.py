"""One forecast out of many: a median in which those that did well in the back-test weigh more.

Averages of forecasts beat the choice of one (Bates and Granger, 1969; the M4 competition, 2018), with weights
from inverse errors and, as single candidates go astray, the median (Petropoulos and Svetunkov, 2020).
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from modal_forecast.backtest import Origin, independent_origins
from modal_forecast.candidates import BASELINES

# Weights as one over the squared error. 2 to 6 did equally well; 2 stays closer to equal weights.
POWER = 2.0
# What was this much worse than the best does not take part.
WORST_RATIO = 1.4
# An origin with fewer values tells nothing.
MIN_TELLING = 7
# What a seasonal naive's error may be of the best candidate's. Level with it is luck more often than not.
NAIVE_RATIO = 0.9


def weights(origins: Sequence[Origin], names: Sequence[str]) -> dict[str, float]:
    """Candidate -> weight; they sum to 1. Equal weights without any origin.

    An origin counts by the errors relative to its own best, so that a wild one does not decide alone. A
    candidate that was tried at some origins only is judged by those. A seasonal naive takes part where it was
    clearly better than every other, as it is on a random walk, and that not in a single season.
    """
    proven = bool(origins) and independent_origins(origins) >= 2
    names = [
        name
        for name in names
        if name not in BASELINES or (proven and all(name in origin.forecasts for origin in origins))
    ]
    scores = relative_errors(origins, names)
    best = min(score for name, score in scores.items() if name not in BASELINES)
    limits = {name: (NAIVE_RATIO if name in BASELINES else WORST_RATIO) * best for name in names}
    raw = {name: (best / score) ** POWER if score <= limits[name] else 0.0 for name, score in scores.items()}
    total = sum(raw.values())
    return {name: weight / total for name, weight in raw.items()}


def relative_errors(origins: Sequence[Origin], names: Sequence[str]) -> dict[str, float]:
    """Candidate -> mean over its origins of its error, in those of the best candidate at the origin."""
    ratios: dict[str, list[float]] = {name: [] for name in names}
    for origin in origins:
        errors = {
            name: _usual_error(origin, origin.forecasts[name]) for name in names if name in origin.forecasts
        }
        best = min((error for name, error in errors.items() if name not in BASELINES), default=0.0)
        # A perfect candidate must not make the others infinitely bad.
        unit = max(best, 1e-3 * max(errors.values(), default=0.0), 1e-300)
        for name, error in errors.items():
            ratios[name].append(max(error / unit, 1e-3))
    means = {name: float(np.mean(of_origins)) for name, of_origins in ratios.items() if of_origins}
    untested = max(means.values(), default=1.0)
    return {name: means.get(name, untested) for name in ratios}


def _usual_error(origin: Origin, forecast: np.ndarray) -> float:
    """The mean absolute error, with no day counting more than ten usual ones: nobody foresees those."""
    errors = np.abs(origin.actual - forecast)
    errors = errors[~np.isnan(errors)]
    usual = float(np.median(errors))
    return float(np.minimum(errors, 10 * usual).mean()) if usual > 0 else float(errors.mean())


def combine(forecasts: Mapping[str, np.ndarray], weight: Mapping[str, float]) -> np.ndarray:
    """The weighted median of each day, halfway between neighbours as a plain median of an even number is."""
    used = [name for name in weight if weight[name] > 0 and name in forecasts]
    table = np.array([forecasts[name] for name in used])
    order = np.argsort(table, axis=0, kind="stable")
    ordered = np.take_along_axis(table, order, axis=0)
    ordered_weights = np.array([weight[name] for name in used])[order]
    middle = (np.cumsum(ordered_weights, axis=0) - ordered_weights / 2) / ordered_weights.sum(axis=0)
    upper = np.minimum((middle < 0.5).sum(axis=0), len(used) - 1)
    lower = np.maximum(upper - 1, 0)
    days = np.arange(table.shape[1])
    low, high = middle[lower, days], middle[upper, days]
    gap = np.where(high > low, high - low, 1.0)
    share = np.clip((0.5 - low) / gap, 0.0, 1.0)
    # Not low + share * (high - low), which rounds identical forecasts apart.
    result: np.ndarray = ordered[lower, days] * (1 - share) + ordered[upper, days] * share
    return np.where(ordered[lower, days] == ordered[upper, days], ordered[lower, days], result)


def held_out_forecasts(origins: Sequence[Origin], names: Sequence[str]) -> list[np.ndarray]:
    """The combined forecast at each origin, with weights from the days of the other origins that it does not
    share.

    So no choice is judged by the days that it was made from. Equal weights where every day is shared.
    """
    forecasts = []
    for origin in origins:
        apart = [without_days_of(origin, other) for other in origins if other is not origin]
        # A forecast of fewer than that is judged by all of its values.
        least = min(MIN_TELLING, len(origin.actual))
        telling = [other for other in apart if np.count_nonzero(~np.isnan(other.actual)) >= least]
        forecasts.append(
            combine(origin.forecasts, weights(telling, [name for name in names if name in origin.forecasts]))
        )
    return forecasts


def without_days_of(origin: Origin, other: Origin) -> Origin:
    """The other origin, with the days missing that are tested from both."""
    days = other.index + np.arange(len(other.actual))
    shared = (days >= origin.index) & (days < origin.index + len(origin.actual))
    return replace(other, actual=np.where(shared, np.nan, other.actual))
