"""What a forecast is made of, by the harmonic regression: trend, week, year and holidays."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from modal_forecast.models.calendar_columns import CalendarColumns
from modal_forecast.models.harmonic import HarmonicFit

WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
MONTHS = (
    "January", "February", "March", "April", "May", "June",
    "July", "August", "September", "October", "November", "December",
)  # fmt: skip
OWN_GROUPS = ("week", "year", "week in year", "turn of year")


def components(
    name: str,
    fit: HarmonicFit,
    calendar: CalendarColumns,
    values: np.ndarray,
    closed_weekdays: Sequence[int] = (),
    digits: int = 4,
) -> dict[str, Any]:
    """The parts as JSON values, a few kilobytes. What has an order is a list of [label, value], as a message
    does not keep the order of a mapping's keys.

    scale: "factor" if the effects multiply the trend (1.1 is a tenth more), "difference" if they are added to
        it, in the unit of the history.
    trend: [[first day of a month, level on average in it], ...], in the unit, forecast included.
    weekly: [[weekday, effect], ...], Monday first; null on a closed weekday, which has no effect to estimate.
    yearly: [[month, effect], ...], January first; null for a month that the last year has no day of.
    holidays: name, effect on the day itself, and on the days before and after; only those that the history
        has had.
    closed_weekdays: 0 for Monday.
    """
    factor = name.startswith("log_")
    end = len(fit.level)
    days = calendar.days[:end]
    table = calendar.table[:end]

    def shown(effect: float) -> float:
        return float(f"{np.exp(effect) if factor else effect:.{digits}g}")

    def contribution(group: str) -> np.ndarray:
        part = calendar.groups[group]
        made: np.ndarray = table[:, part] @ fit.effects[part]
        return made

    week = fit.effects[calendar.groups["week"]]
    weekly = [
        [name, None if day in closed_weekdays else shown(float(week[day]))]
        for day, name in enumerate(WEEKDAYS)
    ]
    year = contribution("year") + contribution("turn of year")
    months = days.astype("datetime64[M]")
    last_year = slice(max(0, end - 366), end)
    month_of = months.astype(int) % 12
    yearly: list[list[Any]] = []
    for month, month_name in enumerate(MONTHS):
        in_month = month_of[last_year] == month
        effect = shown(float(year[last_year][in_month].mean())) if in_month.any() else None
        yearly.append([month_name, effect])
    level = np.exp(fit.level) if factor else fit.level
    starts = np.unique(months)
    trend = [[f"{start}-01", float(f"{level[months == start].mean():.{digits + 2}g}")] for start in starts]
    return {
        "model": name,
        "scale": "factor" if factor else "difference",
        "trend": trend,
        "weekly": weekly,
        "yearly": yearly,
        "holidays": _holidays(fit, calendar, values, shown),
    }


def _holidays(
    fit: HarmonicFit, calendar: CalendarColumns, values: np.ndarray, shown: Any
) -> list[dict[str, Any]]:
    observed = ~np.isnan(values)
    found = []
    for name, part in calendar.groups.items():
        if name in OWN_GROUPS or not calendar.table[: len(values), part.start][observed].any():
            continue
        day, before, after = (shown(float(effect)) for effect in fit.effects[part])
        found.append({"holiday": name, "day": day, "day_before": before, "day_after": after})
    return found
