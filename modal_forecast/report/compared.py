"""A forecast of days that have come since, beside what came: one small chart and its numbers."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from modal_forecast.report import formats
from modal_forecast.report.figures import Table, a_day, finites, total
from modal_forecast.report.formats import Amounts
from modal_forecast.report.plots import Plot, line_plot, spread_labels


@dataclass(frozen=True)
class Compared:
    summary: str
    plot: Plot
    table: Table


def compared(of: Mapping[str, Any] | None, title: str, amounts: Amounts) -> Compared | None:
    """None if there is no day in it. Raises ValueError if its lists are of different lengths."""
    if not of or not of.get("ds"):
        return None
    days = [a_day(day) for day in of["ds"]]
    actual, yhat, lower, upper = (finites(of[name]) for name in ("actual", "yhat", "lower_80", "upper_80"))
    rows = [*zip(days, actual, yhat, lower, upper, strict=True)]
    return Compared(
        _summary(rows, amounts),
        line_plot(
            [("forecast", yhat), ("actual", actual)],
            spread_labels(days, "%d %b"),
            [("interval80", lower, upper)],
        ),
        Table(
            title,
            ("Day", "Actual", "Forecast", "80% from", "80% to"),
            tuple((formats.day(day), *(amounts.exact(value) for value in values)) for day, *values in rows),
        ),
    )


def _summary(rows: list[tuple[Any, ...]], amounts: Amounts) -> str:
    """Only of the days whose actual is known."""
    known = [row for row in rows if None not in row]
    if not known:
        return "None of its days has come yet."
    inside = sum(lower <= actual <= upper for _, actual, _, lower, upper in known)
    came, said = (total(row[column] for row in known) for column in (1, 2))
    return (
        f"Over {formats.days(len(known))}, {amounts(came)} came and {amounts(said)} was forecast; "
        f"{inside} of {len(known)} fell inside the 80% bounds."
    )
