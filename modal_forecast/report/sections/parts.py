"""What each part may expect, and whether the parts add up to the total."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

from modal_forecast.report import formats
from modal_forecast.report.formats import Amounts
from modal_forecast.report.plots import Shape, line_path
from modal_forecast.report.sections.outlook import WindowTotal, window_total
from modal_forecast.report.values import PeriodValues, read_values, total

# Half a percent: a smaller difference cannot be seen in the amounts shown.
SUM_TOLERANCE = 0.005
SPARK_HEIGHT = 26
WEEKS_BACK, WEEKS_AHEAD = 26, 9
COLUMNS = ("yhat", "yhat_lower_80", "yhat_upper_80")


@dataclass(frozen=True)
class PartRow:
    """last: the actuals, and of how many days if some are unknown; spark: weekly sums of both series."""

    name: str
    last: str
    expected: str
    between: str
    last_year: str
    spark: tuple[Shape, ...]


@dataclass(frozen=True)
class PartsSection:
    noun: str
    answer: str
    days: int
    rows: tuple[PartRow, ...]
    total: PartRow
    note: str


def by_part(
    parts: Sequence[Mapping[str, Any]],
    noun: str,
    history: PeriodValues,
    forecast: Mapping[str, PeriodValues],
    main: WindowTotal,
    amounts: Amounts,
) -> PartsSection | None:
    """Return the parts in descending order of what they are expected to bring, the others together last.

    None if there are none.

    noun: what a part is. history, forecast: of the total; main: the window shown of it.
    """
    if not parts:
        return None
    first = forecast["yhat"].start

    def daily(table: Any, column: str) -> PeriodValues:
        # A part that begins soon has no history, and one that is too young no forecast.
        return read_values(table, column) if table.num_rows else PeriodValues(first, ())

    series = [
        (
            str(part["name"]),
            daily(part["history"], "y"),
            {column: daily(part["forecast"], column) for column in COLUMNS},
        )
        for part in parts
    ]
    windows = [window_total(past, ahead, main.days, {}) for _, past, ahead in series]
    amounts = amounts.of_one_precision(window.total for window in [*windows, main])
    rows = [
        _row(name, past, ahead["yhat"], window, amounts)
        for (name, past, ahead), window in zip(series, windows, strict=True)
    ]
    counts = [int(part.get("count") or 0) for part in parts]
    ranked = sorted(range(len(rows)), key=lambda index: (counts[index], -(windows[index].total or 0)))
    return PartsSection(
        noun=noun,
        answer=_sum_text(
            noun, sum(count or 1 for count in counts), [window.total for window in windows], main, amounts
        ),
        days=main.days,
        rows=tuple(rows[index] for index in ranked),
        total=_row(f"All {formats.plural(noun)}", history, forecast["yhat"], main, amounts),
        note=""
        if main.days == 1
        else f"The bounds of each {noun} are the sum of its 80% bounds of each day. Good and bad days partly "
        "cancel out, so they are wider than needed.",
    )


def _sum_text(
    noun: str, count: int, totals: Sequence[float | None], main: WindowTotal, amounts: Amounts
) -> str:
    parts = formats.counted(count, noun)
    of_parts, period = total(totals), f"the next {formats.days(main.days)}"
    add = "adds" if count == 1 else "add"
    if of_parts is None or main.total is None:
        return f"{parts}; not every one has a forecast for each of {period}."
    if abs(of_parts - main.total) <= SUM_TOLERANCE * max(abs(main.total), 1e-9):
        return f"The {parts} {add} up to the total: {amounts(main.total)} in {period}."
    return (
        f"The {parts} {add} up to {amounts(of_parts)} in {period}; the total was forecast on its own "
        f"and says {amounts(main.total)}."
    )


def _row(
    name: str, history: PeriodValues, forecast: PeriodValues, window: WindowTotal, amounts: Amounts
) -> PartRow:
    first, days = forecast.start, window.days
    recent = [history.at(first - timedelta(days=back)) for back in range(1, days + 1)]
    actuals = [value for value in recent if value is not None]
    last = amounts(total(actuals)) if actuals else formats.UNKNOWN
    if window.change is not None:
        last_year = formats.change(window.change)
    else:
        is_new = history.start > first - timedelta(weeks=52)
        last_year = "opened since" if is_new else formats.UNKNOWN
    return PartRow(
        name=name,
        last=f"{last} in {formats.days(len(actuals))}" if 0 < len(actuals) < days else last,
        expected=amounts(window.total),
        between=f"{amounts(window.lower)} to {amounts(window.upper)}" if window.lower is not None else "",
        last_year=last_year,
        spark=_spark(history, forecast),
    )


def _spark(history: PeriodValues, forecast: PeriodValues) -> tuple[Shape, ...]:
    """Return lines of whole weeks, counted from the first day of the forecast, on one scale from zero."""

    def week(daily: PeriodValues, number: int) -> float | None:
        first: date = forecast.start + timedelta(weeks=number)
        return total(daily.at(first + timedelta(days=day)) for day in range(7))

    past = [week(history, number) for number in range(-WEEKS_BACK, 0)]
    coming = [week(forecast, number) for number in range(WEEKS_AHEAD)]
    heights = [0.0, *(value for value in past + coming if value is not None)]
    highest, span = max(heights), (max(heights) - min(heights)) or 1

    def y(value: float) -> float:
        return 2 + (highest - value) / span * (SPARK_HEIGHT - 4)

    # The line of the forecast starts where that of the actuals ends.
    joined = [*[None] * (WEEKS_BACK - 1), past[-1], *coming]
    return (
        Shape("actual", "line", line_path([*past, *[None] * WEEKS_AHEAD], y)),
        Shape("forecast", "line", line_path(joined, y)),
    )
