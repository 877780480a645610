"""What each part may expect, and whether the parts add up to the total."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from modal_forecast.diagnostics import listed
from modal_forecast.report import formats
from modal_forecast.report.formats import Amounts
from modal_forecast.report.plots import Shape, line_path
from modal_forecast.report.sections.outlook import WindowTotal, window_total
from modal_forecast.report.values import PeriodValues, read_values, total

# Half a percent: a smaller difference cannot be seen in the amounts shown.
SUM_TOLERANCE = 0.005
SPARK_HEIGHT = 26
# The small charts show sums of so many periods, so many of these back and ahead, by the grain.
SPARKS = {"day": (7, 26, 9), "week": (1, 26, 13), "month": (1, 24, 12)}
SPARK_TITLES = {
    "day": ("By week: the last half year and {} ahead", "week"),
    "week": ("By week: the last half year and {} ahead", "week"),
    "month": ("By month: the last two years and {} ahead", "month"),
}
COLUMNS = ("yhat", "yhat_lower_80", "yhat_upper_80")


@dataclass(frozen=True)
class PartRow:
    """last: the actuals, and of how many periods if some are unknown; spark: sums of both series."""

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
    window: str
    spark_title: str
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
    first, grain = forecast["yhat"].start, history.grain

    def values(table: Any, column: str) -> PeriodValues:
        # A part that begins soon has no history, and one that is too young no forecast.
        return read_values(table, column, grain) if table.num_rows else PeriodValues(first, (), grain)

    series = [
        (
            str(part["name"]),
            values(part["history"], "y"),
            {column: values(part["forecast"], column) for column in COLUMNS},
        )
        for part in parts
    ]
    windows = [
        window_total(
            past, ahead, main.count, {int(n): width for n, width in (part.get("widths") or {}).items()}
        )
        for part, (_, past, ahead) in zip(parts, series, strict=True)
    ]
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
        window=grain.counted(main.count),
        spark_title=_spark_title(forecast["yhat"]),
        rows=tuple(rows[index] for index in ranked),
        total=_row(f"All {formats.plural(noun)}", history, forecast["yhat"], main, amounts),
        note=_note(noun, [name for name, *_ in series], windows, main),
    )


def _note(noun: str, names: Sequence[str], windows: Sequence[WindowTotal], main: WindowTotal) -> str:
    """Say why the bounds of one part are wider than those of all, and of which parts they are too wide."""
    bounded = [(name, of) for name, of in zip(names, windows, strict=True) if of.lower is not None]
    if not bounded:
        return ""
    grain, sentences = main.grain, []
    if len(bounded) > 1:
        sentences.append(
            f"The bounds of one {noun} are in proportion wider than those of all together, which balance out."
        )
    added = [name for name, of in bounded if of.adds_bounds]
    if added:
        whose = f"each {noun}" if len(added) == len(bounded) else listed(added)
        sentences.append(
            f"The bounds of {whose} add up the 80% bounds of each {grain.name}, as the back-test has too few "
            f"sums to tell how far good and bad {grain.plural} cancel out: less is likely."
        )
    return " ".join(sentences)


def _spark_title(forecast: PeriodValues) -> str:
    title, noun = SPARK_TITLES[forecast.grain.name]
    size, _, ahead = SPARKS[forecast.grain.name]
    return title.format(formats.counted(min(ahead, len(forecast.values) // size), noun))


def _sum_text(
    noun: str, count: int, totals: Sequence[float | None], main: WindowTotal, amounts: Amounts
) -> str:
    parts = formats.counted(count, noun)
    of_parts, period = total(totals), f"the next {main.grain.counted(main.count)}"
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
    first, count, grain = forecast.start, window.count, window.grain
    recent = [history.at(grain.start(first, -back)) for back in range(1, count + 1)]
    actuals = [value for value in recent if value is not None]
    last = amounts(total(actuals)) if actuals else formats.UNKNOWN
    if window.change is not None:
        last_year = formats.change(window.change)
    else:
        is_new = history.start > grain.start(first, -grain.year)
        last_year = "opened since" if is_new else formats.UNKNOWN
    return PartRow(
        name=name,
        last=f"{last} in {grain.counted(len(actuals))}" if 0 < len(actuals) < count else last,
        expected=amounts(window.total),
        between=f"{amounts(window.lower)} to {amounts(window.upper)}" if window.lower is not None else "",
        last_year=last_year,
        spark=_spark(history, forecast),
    )


def _spark(history: PeriodValues, forecast: PeriodValues) -> tuple[Shape, ...]:
    """Return lines of sums, counted from the first period of the forecast, on one scale from zero."""
    grain = forecast.grain
    size, back, ahead = SPARKS[grain.name]

    def sum_of(values: PeriodValues, number: int) -> float | None:
        return total(values.at(grain.start(forecast.start, number * size + index)) for index in range(size))

    past = [sum_of(history, number) for number in range(-back, 0)]
    coming = [sum_of(forecast, number) for number in range(ahead)]
    heights = [0.0, *(value for value in past + coming if value is not None)]
    highest, span = max(heights), (max(heights) - min(heights)) or 1

    def y(value: float) -> float:
        return 2 + (highest - value) / span * (SPARK_HEIGHT - 4)

    # The line of the forecast starts where that of the actuals ends.
    joined = [*[None] * (back - 1), past[-1], *coming]
    return (
        Shape("actual", "line", line_path([*past, *[None] * ahead], y)),
        Shape("forecast", "line", line_path(joined, y)),
    )
