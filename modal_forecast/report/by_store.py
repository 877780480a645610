"""What each store may expect, and whether the stores add up to the total."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any

from modal_forecast.report import formats
from modal_forecast.report.daily import Daily, read_daily
from modal_forecast.report.figures import total
from modal_forecast.report.formats import Amounts
from modal_forecast.report.paths import line
from modal_forecast.report.plots import Shape
from modal_forecast.report.windows import WindowTotal, window_total

if TYPE_CHECKING:
    import pyarrow as pa

# Half a percent: less than people see in the figures.
SAME = 0.005
WIDEST_HERE = "Bounds add up each day's 80% bounds, where nothing better is known: less is likely."
SPARK_HEIGHT = 26
WEEKS_BACK, WEEKS_AHEAD = 26, 9
COLUMNS = ("yhat", "yhat_lower_80", "yhat_upper_80")
Ahead = Mapping[str, Daily]
Store = tuple[str, Daily, Ahead]


@dataclass(frozen=True)
class StoreRow:
    """last: what came, and in how many days if some are unknown; spark: weekly sums, of both series."""

    name: str
    last: str
    expected: str
    between: str
    compared: str
    spark: tuple[Shape, ...]


@dataclass(frozen=True)
class Stores:
    answer: str
    days: int
    rows: tuple[StoreRow, ...]
    total: StoreRow
    note: str


def by_store(
    stores: Sequence[Mapping[str, Any]],
    history: Daily,
    forecast: Ahead,
    main: WindowTotal,
    amounts: Amounts,
) -> Stores | None:
    """The stores by what they are expected to bring, most first. `main` is the window shown of the total."""
    if not stores:
        return None
    read = [_read(store, forecast["yhat"].start) for store in stores]
    given = [store.get("windows") or () for store in stores]
    windows = [
        _window(one, past, ahead, main.days) for one, (_, past, ahead) in zip(given, read, strict=True)
    ]
    ranked = sorted(zip(read, windows, strict=True), key=lambda pair: -(pair[1].total or 0))
    rows = tuple(_row(*store, window, amounts) for store, window in ranked)
    return Stores(
        answer=_adds_up([window.total for window in windows], main, amounts),
        days=main.days,
        rows=rows,
        total=_row("All stores", history, forecast, main, amounts),
        note="" if main.of_sum and all(window.of_sum for window in windows) else WIDEST_HERE,
    )


def _read(store: Mapping[str, Any], first: date) -> Store:
    columns = {column: _daily(store["forecast"], column, first) for column in COLUMNS}
    return str(store["name"]), _daily(store["history"], "y", first), columns


def _daily(table: pa.Table, column: str, first: date) -> Daily:
    """A store that opens soon has no history, and one that is too young no forecast."""
    return read_daily(table, column) if table.num_rows else Daily(first, ())


def _window(given: Sequence[Mapping[str, Any]], history: Daily, ahead: Ahead, days: int) -> WindowTotal:
    return window_total(history, ahead, days, next((one for one in given if one["days"] == days), None))


def _adds_up(totals: Sequence[float | None], main: WindowTotal, amounts: Amounts) -> str:
    stores = formats.counted(len(totals), "store")
    of_stores, period = total(totals), f"the next {formats.days(main.days)}"
    add = "adds" if len(totals) == 1 else "add"
    if of_stores is None or main.total is None:
        return f"{stores}; not every one has a forecast for each of {period}."
    if abs(of_stores - main.total) <= SAME * max(abs(main.total), 1e-9):
        return f"The {stores} {add} up to the total: {amounts(main.total)} in {period}."
    return (
        f"The {stores} {add} up to {amounts(of_stores)} in {period}; the total was forecast on its own "
        f"and says {amounts(main.total)}."
    )


def _row(name: str, history: Daily, forecast: Ahead, window: WindowTotal, amounts: Amounts) -> StoreRow:
    first = forecast["yhat"].start
    between = f"{amounts(window.lower)} to {amounts(window.upper)}" if window.lower is not None else ""
    return StoreRow(
        name=name,
        last=_last(history, first, window.days, amounts),
        expected=amounts(window.total),
        between=between,
        compared=_compared(history, first, window),
        spark=spark(history, forecast["yhat"]),
    )


def _last(history: Daily, first: date, days: int, amounts: Amounts) -> str:
    values = [history.at(first - timedelta(days=back)) for back in range(1, days + 1)]
    known = [value for value in values if value is not None]
    if not known:
        return formats.UNKNOWN
    return amounts(total(known)) + (f" in {formats.days(len(known))}" if len(known) < days else "")


def _compared(history: Daily, first: date, window: WindowTotal) -> str:
    if window.change is not None:
        return formats.percent(window.change)
    opened_since = history.start > first - timedelta(weeks=52)
    return "opened since" if opened_since else formats.UNKNOWN


def spark(history: Daily, ahead: Daily) -> tuple[Shape, ...]:
    """Whole weeks counted from the first day of the forecast, on one scale from zero."""
    past = [_week(history, ahead.start + timedelta(weeks=w)) for w in range(-WEEKS_BACK, 0)]
    coming = [_week(ahead, ahead.start + timedelta(weeks=w)) for w in range(WEEKS_AHEAD)]
    known = [0.0, *(week for week in past + coming if week is not None)]
    highest, span = max(known), (max(known) - min(known)) or 1

    def y(value: float) -> float:
        return 2 + (highest - value) / span * (SPARK_HEIGHT - 4)

    # The forecast's line starts where the actual one ends.
    joint = [*[None] * (WEEKS_BACK - 1), past[-1], *coming]
    lines = (("actual", [*past, *[None] * WEEKS_AHEAD]), ("forecast", joint))
    return tuple(Shape(layer, "line", line(values, y)) for layer, values in lines)


def _week(daily: Daily, first: date) -> float | None:
    return total(daily.at(first + timedelta(days=day)) for day in range(7))
