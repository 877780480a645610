"""How good a forecast was, in the back-test: against what came, and against the seasonal naives."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from modal_forecast.backtest import Origin, independent_origins
from modal_forecast.models import BASELINES

Forecasts = Sequence[np.ndarray | None]
REPEATED = {"seasonal_naive_7": "last week's same days", "seasonal_naive_364": "last year's same days"}
# A mean of two forecasts often errs less than both, so a naive that did better need not have all of it.
NAIVE_SHARES = (0.0, 0.25, 0.5, 0.75)
# From fewer origins that share no day, an error a quarter larger than that of the naive is luck as often as
# not: on series cut to 200 and 300 days, giving way to every lead of it made the forecasts a tenth worse.
PROOF_ORIGINS, UNPROVEN_MARGIN = 2.0, 0.25


def score(origins: Sequence[Origin], forecasts: Forecasts) -> dict[str, float | int | None]:
    """mase, wape, bias and the number of origins of a forecast that was made at some of them.

    mase: mean over origins of the mean absolute error in that of last week's same day, in the history.
    wape: the sum of absolute errors as a share of the sum of absolute values.
    bias: mean of forecast less actual, as a share of the mean absolute value.
    None where a denominator is zero.
    """
    pairs = [(origin, made) for origin, made in zip(origins, forecasts, strict=True) if made is not None]
    if not pairs:
        return {"mase": None, "wape": None, "bias": None, "origins": 0}
    scaled = [origin.error(made) / origin.scale for origin, made in pairs if origin.scale > 0]
    actual = np.concatenate([origin.actual for origin, _ in pairs])
    errors = np.concatenate([made for _, made in pairs]) - actual
    total = float(np.nansum(np.abs(actual)))
    return {
        "mase": _number(np.mean(scaled)) if scaled else None,
        "wape": _number(np.nansum(np.abs(errors)) / total) if total > 0 else None,
        "bias": _number(np.nansum(errors) / total) if total > 0 else None,
        "origins": len(pairs),
    }


def mean_error(origins: Sequence[Origin], forecasts: Sequence[np.ndarray]) -> float:
    """Mean over origins of the mean absolute error in units of its scale, or of its size without one."""
    return float(
        np.mean([origin.error(made) / _unit(origin) for origin, made in zip(origins, forecasts, strict=True)])
    )


def best_baseline(origins: Sequence[Origin]) -> tuple[str, float]:
    """The seasonal naive with the smaller error over all origins, and that error.

    At an origin with less than a year of history the 364-day one repeats the last week.
    """
    errors = {name: mean_error(origins, [origin.baseline(name) for origin in origins]) for name in BASELINES}
    best = min(errors, key=lambda name: errors[name])
    return best, errors[best]


def skill_of(origins: Sequence[Origin], forecasts: Sequence[np.ndarray]) -> dict[str, Any]:
    """skill: 1 less the error in that of the better seasonal naive; beats_naive: whether that is above zero.

    skill_margin: how far below zero it tells nothing. why: all this in words. skill and beats_naive
    are None without origins.
    """
    if not origins:
        return {
            "skill": None,
            "skill_margin": 0.0,
            "beats_naive": None,
            "best_naive": None,
            "why": "The history is too short for a back-test: nothing tells how good the forecast is.",
        }
    name, naive = best_baseline(origins)
    ours = mean_error(origins, forecasts)
    skill = 1 - ours / naive if naive > 0 else 0.0
    wins = sum(
        origin.error(made) < origin.error(origin.baseline(name))
        for origin, made in zip(origins, forecasts, strict=True)
    )
    repeats = REPEATED[name]
    compared = f"{abs(skill):.0%} {'smaller' if skill > 0 else 'larger'} than that of repeating {repeats}"
    if naive == 0:
        compared = f"no smaller than that of repeating {repeats}, which was never wrong"
    days = len(origins[0].actual)
    if ours == naive and naive > 0:
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
        "skill": _number(skill),
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
        mixed = [mix(made, days, share) for made, days in zip(forecasts, repeated, strict=True)]
        if mean_error(origins, mixed) <= naive * (1 + skill_margin(origins)):
            return name, share
    return name, 1.0


def mix(forecast: np.ndarray, naive: np.ndarray, share: float) -> np.ndarray:
    """So much of a seasonal naive, and the rest of the forecast."""
    mixed: np.ndarray = (1 - share) * forecast + share * naive
    return mixed


def coverage(origins: Sequence[Origin], bounds: Sequence[Mapping[str, np.ndarray]]) -> dict[str, float]:
    """Share of days with a value that lay inside the bounds given for each origin."""
    shares = {}
    for level in ("80", "95"):
        inside = [
            (origin.actual >= bound[f"yhat_lower_{level}"]) & (origin.actual <= bound[f"yhat_upper_{level}"])
            for origin, bound in zip(origins, bounds, strict=True)
        ]
        known = [~np.isnan(origin.actual) for origin in origins]
        shares[f"coverage_{level}"] = _number(np.concatenate(inside)[np.concatenate(known)].mean())
    return shares


def _unit(origin: Origin) -> float:
    return origin.scale or float(np.nanmax(np.abs(origin.actual))) or 1.0


def _number(value: Any) -> float:
    """Four digits are more than a back-test knows."""
    return float(f"{float(value):.4g}")
