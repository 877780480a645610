"""What the model told of its forecast, as a report shows it. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from modal_forecast.calendars import holidays_of
from modal_forecast.components import MONTHS, WEEKDAYS
from modal_forecast.scores import REPEATED

if TYPE_CHECKING:
    import pyarrow as pa


MODELS = {
    "prophet": "Prophet",
    "linear_straight": "Week, year and holidays on a straight trend",
    "linear_bending": "Week, year and holidays on a bending trend",
    "linear_flat": "Week, year and holidays without a trend",
    "log_straight": "The same in factors, straight trend",
    "log_bending": "The same in factors, bending trend",
    "log_flat": "The same in factors, without a trend",
    "recent_8_weeks": "The last 8 weeks on average",
    "recent_26_weeks": "The last 26 weeks on average",
    "last_years": "Earlier years at today's level",
    "last_years_half_way": "Earlier years half way to today's level",
    "seasonal_naive_7": "Repeating last week",
    "seasonal_naive_364": "Repeating last year",
}


def told(diagnostics: Mapping[str, Any], forecast: pa.Table, country: str | None) -> dict[str, Any]:
    """The fields of a ReportInput that the diagnostics of an answer fill; those that they do not are not
    among them.

    diagnostics: as model.forecast() says. forecast: ds date32. country: whose holidays were used.
    """
    found: dict[str, Any] = {"notes": _notes(diagnostics)}
    if (diagnostics.get("backtest") or {}).get("origins"):
        found["backtest"] = _backtest(diagnostics)
    if diagnostics.get("components"):
        found["components"] = _components(diagnostics["components"], forecast, country)
    return found


def _notes(diagnostics: Mapping[str, Any]) -> Sequence[str]:
    clipped = diagnostics.get("clipped_yhat_days", 0)
    below = [f"The forecast was below zero on {clipped} days and raised to zero there."] if clipped else []
    return [*diagnostics.get("fallbacks", ()), *below]


def _backtest(diagnostics: Mapping[str, Any]) -> Mapping[str, Any]:
    tested, candidates = diagnostics["backtest"], diagnostics.get("candidates", {})
    naive = diagnostics.get("best_naive")
    return {
        **tested,
        "horizon": tested.get("horizon_days"),
        "skill": diagnostics.get("skill"),
        "beats_naive": diagnostics.get("beats_naive"),
        **({"naive": {"name": REPEATED[naive], **candidates.get(naive, {})}} if naive in REPEATED else {}),
        "models": [
            {"name": _model_name(name), "mase": scores.get("mase"), "weight": scores.get("weight")}
            for name, scores in sorted(
                candidates.items(), key=lambda item: (-item[1].get("weight", 0.0), item[0])
            )
        ],
        **({"last_origin": _compared(diagnostics["last_origin"])} if diagnostics.get("last_origin") else {}),
    }


def _model_name(name: str) -> str:
    return MODELS.get(name) or name.replace("_", " ").capitalize()


def _compared(origin: Mapping[str, Any]) -> Mapping[str, Any]:
    first = np.datetime64(origin["first_ds"])
    days = [str(day) for day in np.arange(first, first + len(origin["actual"]))]
    made = origin["forecast"]
    return {
        "ds": days,
        "actual": origin["actual"],
        "yhat": made,
        "lower_80": origin.get("lower_80", made),
        "upper_80": origin.get("upper_80", made),
    }


def _components(parts: Mapping[str, Any], forecast: pa.Table, country: str | None) -> Mapping[str, Any]:
    days = forecast["ds"].to_numpy().astype("datetime64[D]")
    level = _levels(parts["trend"], days)
    first = days[0]
    # On a day on which all is closed, all that a day brings is lost.
    shut = set(days[forecast["yhat"].to_numpy() == 0])

    def in_unit(effect: float | None, day: np.datetime64) -> float | None:
        if effect is None or parts["scale"] == "difference":
            return effect
        return (effect - 1) * level(day)

    def closed_or(effect: float | None) -> float | None:
        return -level(first) if effect is None else in_unit(effect, first)

    return {
        "weekly": [closed_or(effect) for effect in _in_order(parts["weekly"], WEEKDAYS)],
        "yearly": [in_unit(effect, first) for effect in _in_order(parts["yearly"], MONTHS)],
        "trend": [{"ds": month, "value": value} for month, value in parts["trend"]],
        "holidays": [
            {"name": name, "ds": str(day), "effect": -level(day) if day in shut else in_unit(effect, day)}
            for name, day, effect in _coming(parts["holidays"], days, country)
        ],
    }


def _levels(trend: Sequence[tuple[str, float]], days: np.ndarray) -> Callable[[np.datetime64], float]:
    """The level of the month of a day; before and after the trend, that of its first and its last month."""
    months = np.array([month for month, _ in trend], "datetime64[M]")
    values = [float(value) for _, value in trend]

    def level(day: np.datetime64) -> float:
        index = int(np.searchsorted(months, day.astype("datetime64[M]"), "right")) - 1
        return values[max(index, 0)]

    return level


def _in_order(effects: Any, labels: Sequence[str]) -> list[float | None]:
    """The effects in the order of their labels.

    Records of earlier versions hold a mapping, whose keys a message has sorted; its months are numbers.
    """
    pairs = effects.items() if isinstance(effects, Mapping) else effects
    by_label = {str(label): effect for label, effect in pairs}
    return [by_label.get(label, by_label.get(str(number))) for number, label in enumerate(labels, 1)]


def _coming(
    known: Sequence[Mapping[str, Any]], days: np.ndarray, country: str | None
) -> Iterator[tuple[str, np.datetime64, float]]:
    """The holidays among the days of which the history tells the effect, in order of days."""
    dated = holidays_of(country, days)
    coming = [
        (day, found["holiday"], float(found["day"]))
        for found in known
        for day in dated.get(found["holiday"], ())
    ]
    yield from ((name, day, effect) for day, name, effect in sorted(coming))
