"""Top-down reconciliation: scale the forecasts of parts so that they add up to the total's on every day.

The total stays as it is. On each day a part gets `part * total / sum(parts)`, so that nothing falls below
zero and a day that is forecast as zero, such as a closed one, stays zero. Gross and Sohl, "Disaggregation
methods to expedite product line forecasting", 1990.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from modal_forecast.grain import GRAINS
from modal_forecast.messages import (
    FORECAST_SCHEMA,
    ForecastAnswer,
    ForecastRefused,
    ForecastRequest,
    SeriesAnswer,
)
from modal_forecast.series import is_signed
from modal_forecast.validation import LARGEST_VALUE

DAYS_OF_SHARE = 28
COLUMNS = FORECAST_SCHEMA.names[1:]


def reconcile_to_total(
    total: ForecastRequest,
    whole: ForecastAnswer,
    requests: Mapping[str, ForecastRequest],
    answers: Mapping[str, SeriesAnswer],
) -> dict[str, ForecastAnswer]:
    """Return the forecast of each part, of which `yhat` adds up to the total's on every day.

    A part that was refused gets its share of the total. The bounds move as far as yhat does, and not below
    zero where neither the history is signed nor the total below zero.

    Args:
        total, whole: the request for the total, and its forecast.
        requests, answers: for each part, with a history that ends on the total's last day.
    """
    forecasts = {
        name: answer
        if isinstance(answer, ForecastAnswer)
        else share_of_total(requests[name], total, whole, answer)
        for name, answer in answers.items()
    }
    total_yhat = whole.forecast["yhat"].to_numpy()
    yhat = scale_to_total(
        total_yhat, np.array([answer.forecast["yhat"].to_numpy() for answer in forecasts.values()])
    )
    # A part of a total below zero is below zero, or the parts would not add up.
    floor = np.where(total_yhat < 0, -np.inf, 0.0)
    return {
        name: _move(answer, scaled, floor if _is_unsigned(requests[name]) else None)
        for (name, answer), scaled in zip(forecasts.items(), yhat, strict=True)
    }


def scale_to_total(total: np.ndarray, parts: np.ndarray) -> np.ndarray:
    """Return the parts, (number of parts, days), scaled to add up to the total, (days,).

    The gap is shared in proportion to the parts' sizes without sign, which for parts that are not negative is
    `part * total / sum(parts)`. On a day on which all parts are zero the total is shared in proportion to
    their sizes over all days, or equally if there are none.
    """
    sizes = np.abs(parts)
    over_all_days = sizes.sum(axis=1) if sizes.any() else np.ones(len(parts))
    sizes = np.where(sizes.any(axis=0), sizes, over_all_days[:, np.newaxis])
    return parts + sizes / sizes.sum(axis=0) * (total - parts.sum(axis=0))


def share_of_total(
    request: ForecastRequest, total: ForecastRequest, whole: ForecastAnswer, refusal: ForecastRefused
) -> ForecastAnswer:
    """Return the total's forecast times the part's share of it in the last four weeks, or in the last month.

    The bounds are as wide as those of one of many independent parts: the total's times the root of the share.
    """
    days, values = _usable(request)
    total_days, total_values = _usable(total)
    grain = GRAINS[total.grain]
    recent = grain.numbers(days) > grain.numbers(total_days[-1:]) - grain.periods(DAYS_OF_SHARE)
    recent &= np.isin(days, total_days)
    same_days = total_values[np.isin(total_days, days[recent])]
    share = float(values[recent].sum() / same_days.sum()) if same_days.sum() > 0 else 0.0
    whole_columns = {name: whole.forecast[name].to_numpy() for name in COLUMNS}
    yhat = share * whole_columns["yhat"]
    columns = {
        name: yhat + np.sqrt(abs(share)) * (column - whole_columns["yhat"])
        for name, column in whole_columns.items()
    }
    if _is_unsigned(request):
        columns = {name: np.maximum(column, 0.0) for name, column in columns.items()}
    fallback = (
        f"It is forecast as its share of the total in the last {grain.counted(grain.periods(DAYS_OF_SHARE))}"
        f", {share:.2%}, because it was refused: {refusal}"
    )
    diagnostics: dict[str, Any] = {
        "model": "share of the total",
        "share": share,
        "fallbacks": [fallback],
        "n_history": len(values),
        "first_ds": str(days[0]) if len(days) else None,
        "last_ds": str(total_days[-1]),
        "grain": grain.name,
        "horizon": request.horizon,
        "country": request.country,
    }
    table = pa.table({"ds": whole.forecast["ds"], **columns}, schema=FORECAST_SCHEMA)
    return ForecastAnswer(table, diagnostics)


def _move(answer: ForecastAnswer, yhat: np.ndarray, floor: np.ndarray | None) -> ForecastAnswer:
    """Return the answer with this yhat, and its bounds moved as far, none of them below the floor."""
    before = answer.forecast["yhat"].to_numpy()
    columns = {name: answer.forecast[name].to_numpy() + (yhat - before) for name in COLUMNS}
    columns["yhat"] = yhat
    if floor is not None:
        columns = {name: np.maximum(column, floor) for name, column in columns.items()}
    # A sum and a difference round differently: nested to the last digit.
    lower, upper = columns["yhat"], columns["yhat"]
    for level in ("80", "95"):
        lower = columns[f"yhat_lower_{level}"] = np.minimum(columns[f"yhat_lower_{level}"], lower)
        upper = columns[f"yhat_upper_{level}"] = np.maximum(columns[f"yhat_upper_{level}"], upper)
    table = pa.table({"ds": answer.forecast["ds"], **columns}, schema=FORECAST_SCHEMA)
    return ForecastAnswer(table, answer.diagnostics)


def _usable(request: ForecastRequest) -> tuple[np.ndarray, np.ndarray]:
    """Days and values, without days that are repeated and values that are missing or too large."""
    days, values = request.history["ds"].to_numpy(), request.history["y"].to_numpy()
    distinct, counts = np.unique(days, return_counts=True)
    once = np.isin(days, distinct[counts == 1]) & ~np.isnat(days) & (np.abs(values) <= LARGEST_VALUE)
    return days[once], values[once]


def _is_unsigned(request: ForecastRequest) -> bool:
    _, values = _usable(request)
    return not is_signed(values)
