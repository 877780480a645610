"""Parts and their total, from requests for the same days to forecasts that add up.

What is certain changes least. A forecast's variance is (WAPE of its back-test x mean of |y|)^2 with the mean
over the history's last 364 days: the square of its mean absolute error, whose ratio to the variance is the
same for all series. Without a back-test it is in proportion to the squared mean, with the other series'
median WAPE. A day that is forecast as exactly zero, such as a closed one, stays zero.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from modal_forecast.daily import is_signed
from modal_forecast.messages import (
    FORECAST_SCHEMA,
    HISTORY_SCHEMA,
    ForecastAnswer,
    ForecastRefused,
    ForecastRequest,
)
from modal_forecast.reconcile import reconcile
from modal_forecast.validation import LARGEST_VALUE

Answers = Mapping[str, ForecastAnswer | ForecastRefused]

DAYS_OF_LEVEL = 364
DAYS_OF_SHARE = 28
COLUMNS = FORECAST_SCHEMA.names[1:]
# Narrow to wide, as they lie on a day.
IN_ORDER = ("yhat_lower_95", "yhat_lower_80", "yhat", "yhat_upper_80", "yhat_upper_95")


def for_the_same_days(
    requests: Mapping[str, ForecastRequest], total: str
) -> tuple[dict[str, ForecastRequest], dict[str, str]]:
    """The requests with histories that all end on the total's last day, and in words what was done to which.

    The total's request must be one that can be forecast.
    """
    last = requests[total].history["ds"].to_numpy()[-1]
    aligned, said = {}, {}
    for name, request in requests.items():
        history = request.history
        days = history["ds"].to_numpy()
        later = days > last  # False where there is no day
        if later.any():
            said[name] = f"{later.sum()} days after the total's last one, {last}, are left out."
            history, days = history.filter(pa.array(~later)), days[~later]
        known = days[~np.isnat(days)]
        if len(known) and known[-1] < last:
            said[name] = f"The history ends on {known[-1]}: it is forecast from {last} on, as its total is."
            end = pa.table({"ds": np.array([last]), "y": pa.nulls(1, pa.float64())}, schema=HISTORY_SCHEMA)
            history = pa.concat_tables([history, end])
        aligned[name] = ForecastRequest(history, request.horizon, request.country)
    return aligned, said


def add_up(
    requests: Mapping[str, ForecastRequest], answers: Answers, total: str, said: Mapping[str, str]
) -> dict[str, ForecastAnswer]:
    """Answers whose `yhat` add up to the total's on every day.

    A part that was refused gets its share of the total. The bounds move as far as yhat does, and not below
    zero where the history is not signed. Each says `reconciled`: True and `reconciled_change`: the sum of
    changes of yhat as a percentage of its sum, both without sign, None if that sum is 0.

    requests, said: as for_the_same_days() gives them. answers: to these; the total's must be a forecast.
    """
    whole = answers[total]
    assert isinstance(whole, ForecastAnswer)
    made = {
        name: answer
        if isinstance(answer, ForecastAnswer)
        else share_of_total(requests[name], requests[total], whole, answer)
        for name, answer in answers.items()
    }
    parts = [name for name in made if name != total]
    before = {name: answer.forecast["yhat"].to_numpy() for name, answer in made.items()}
    uncertain = variances(requests, made)
    sums, changed = _reconcile_day_by_day(
        before[total],
        np.array([before[name] for name in parts]),
        uncertain[total],
        np.array([uncertain[name] for name in parts]),
        np.array([_unsigned(requests[name]) for name in parts]),
        _unsigned(requests[total]),
    )
    after = {total: sums} | dict(zip(parts, changed, strict=True))
    return {
        name: _moved(answer, after[name], _unsigned(requests[name]), said.get(name))
        for name, answer in made.items()
    }


def variances(
    requests: Mapping[str, ForecastRequest], answers: Mapping[str, ForecastAnswer]
) -> dict[str, float]:
    """Of each forecast's errors, but for a factor that is the same for all; see above."""
    wapes = {name: (answer.diagnostics.get("backtest") or {}).get("wape") for name, answer in answers.items()}
    known = [wape for wape in wapes.values() if wape is not None]
    usual = float(np.median(known)) if known else 1.0
    # Of the largest one, so that no square leaves a double.
    levels = {name: _level(requests[name]) for name in answers}
    largest = max(levels.values()) or 1.0
    return {
        name: ((usual if wape is None else wape) * levels[name] / largest) ** 2
        for name, wape in wapes.items()
    }


def share_of_total(
    request: ForecastRequest, total: ForecastRequest, whole: ForecastAnswer, refusal: ForecastRefused
) -> ForecastAnswer:
    """The total's forecast times the part's share of it, in the last 28 days as far as the part has values.

    Its bounds are as wide as those of one of many independent parts: the total's times the root of the share.
    """
    days, values = _usable(request)
    total_days, total_values = _usable(total)
    since = total_days[-1] - DAYS_OF_SHARE
    recent = (days > since) & np.isin(days, total_days)
    of = total_values[np.isin(total_days, days[recent])]
    share = float(values[recent].sum() / of.sum()) if len(of) and of.sum() > 0 else 0.0
    old = {name: whole.forecast[name].to_numpy() for name in COLUMNS}
    yhat = share * old["yhat"]
    columns = {name: yhat + np.sqrt(abs(share)) * (old[name] - old["yhat"]) for name in COLUMNS}
    if _unsigned(request):
        columns = {name: np.maximum(column, 0.0) for name, column in columns.items()}
    said = (
        f"It is forecast as its share of the total in the last {DAYS_OF_SHARE} days, {share:.2%}, because it "
        f"was refused: {refusal.reason}"
    )
    about: dict[str, Any] = {
        "model": "share of the total",
        "share": share,
        "fallbacks": [said],
        "n_history": len(values),
        "first_ds": str(days[0]) if len(days) else None,
        "last_ds": str(total_days[-1]),
        "horizon": request.horizon,
        "country": request.country,
    }
    return ForecastAnswer(pa.table({"ds": whole.forecast["ds"], **columns}, schema=FORECAST_SCHEMA), about)


def _reconcile_day_by_day(
    total: np.ndarray,
    parts: np.ndarray,
    variance_of_total: float,
    variances: np.ndarray,
    unsigned: np.ndarray,
    total_unsigned: bool,
) -> tuple[np.ndarray, np.ndarray]:
    """As reconcile(), where what is forecast as exactly zero is certain, and signs are as in the history."""
    changed = np.zeros_like(parts)
    uncertain = np.vstack([total, parts]) != 0
    for pattern in np.unique(uncertain, axis=1).T:
        if pattern[1:].any():
            on = (uncertain == pattern[:, np.newaxis]).all(axis=0)
            of_all = np.where(pattern, np.append(variance_of_total, variances), 0.0)
            if of_all.sum() == 0:
                of_all = pattern.astype(float)
            _, changed[:, on] = reconcile(total[on], parts[:, on], of_all[0], of_all[1:])
    # These two do nothing unless a series among them is signed.
    changed = np.where(unsigned[:, np.newaxis], np.maximum(changed, 0.0), changed)
    if total_unsigned:
        above, below = np.maximum(changed, 0.0).sum(axis=0), -np.minimum(changed, 0.0).sum(axis=0)
        held = np.divide(above, below, out=np.ones_like(above), where=below > above)
        changed = np.where(changed < 0, changed * held, changed)
        return np.maximum(changed.sum(axis=0), 0.0), changed
    return changed.sum(axis=0), changed


def _moved(answer: ForecastAnswer, yhat: np.ndarray, unsigned: bool, said: str | None) -> ForecastAnswer:
    before = answer.forecast["yhat"].to_numpy()
    columns = {name: answer.forecast[name].to_numpy() + (yhat - before) for name in COLUMNS}
    columns["yhat"] = yhat
    if unsigned:
        columns = {name: np.maximum(column, 0.0) for name, column in columns.items()}
    # A sum and a difference round differently: nested to the last digit.
    for inner, outer in (("yhat", "80"), ("80", "95")):
        low, high = (inner, inner) if inner == "yhat" else (f"yhat_lower_{inner}", f"yhat_upper_{inner}")
        columns[f"yhat_lower_{outer}"] = np.minimum(columns[f"yhat_lower_{outer}"], columns[low])
        columns[f"yhat_upper_{outer}"] = np.maximum(columns[f"yhat_upper_{outer}"], columns[high])
    size = float(np.abs(before).sum())
    change = float(f"{100 * np.abs(yhat - before).sum() / size:.4g}") if size > 0 else None
    about = {**answer.diagnostics, "reconciled": True, "reconciled_change": change}
    if said:
        about["fallbacks"] = [*(answer.diagnostics.get("fallbacks") or []), said]
    return ForecastAnswer(pa.table({"ds": answer.forecast["ds"], **columns}, schema=FORECAST_SCHEMA), about)


def _usable(request: ForecastRequest) -> tuple[np.ndarray, np.ndarray]:
    """Days and values, without days that are repeated and values that are missing or wild."""
    days, values = request.history["ds"].to_numpy(), request.history["y"].to_numpy()
    first, counts = np.unique(days, return_counts=True)
    once = np.isin(days, first[counts == 1]) & ~np.isnat(days) & (np.abs(values) <= LARGEST_VALUE)
    return days[once], values[once]


def _level(request: ForecastRequest) -> float:
    """Mean of |y| in the last 364 days; 0 if there is none."""
    days, values = _usable(request)
    last = request.history["ds"].to_numpy()[-1:]
    recent = np.abs(values[days > last - DAYS_OF_LEVEL]) if len(days) else values
    return float(recent.mean()) if len(recent) else 0.0


def _unsigned(request: ForecastRequest) -> bool:
    _, values = _usable(request)
    return not is_signed(values)
