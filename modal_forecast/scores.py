"""How good a forecast was, in the back-test: against what came, and against the seasonal naives."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from modal_forecast.backtest import Origin
from modal_forecast.models import BASELINES

Forecasts = Sequence[np.ndarray | None]


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

    why: the same in words for people. Both are None without origins.
    """
    if not origins:
        return {
            "skill": None,
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
    repeats = "last week's days" if name == "seasonal_naive_7" else "last year's days"
    compared = f"{abs(skill):.0%} {'smaller' if skill > 0 else 'larger'} than that of repeating {repeats}"
    if naive == 0:
        compared = f"no smaller than that of repeating {repeats}, which was never wrong"
    days = len(origins[0].actual)
    if ours == naive and naive > 0:
        return {
            "skill": 0.0,
            "beats_naive": False,
            "best_naive": name,
            "why": f"From {len(origins)} earlier days of the history, {days} days ahead, nothing that was "
            f"tried erred less than repeating {repeats}: that is the forecast.",
        }
    return {
        "skill": _number(skill),
        "beats_naive": skill > 0,
        "best_naive": name,
        "why": f"From {len(origins)} earlier days of the history, {days} days ahead, the forecast's error "
        f"was {compared}, and smaller from {wins} of them.",
    }


def naive_if_better(origins: Sequence[Origin], forecasts: Sequence[np.ndarray]) -> str | None:
    """The seasonal naive that erred less than these forecasts; None if none did, or nothing tells."""
    if not origins:
        return None
    name, error = best_baseline(origins)
    return name if error < mean_error(origins, forecasts) else None


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
