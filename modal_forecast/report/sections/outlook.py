"""What to expect: totals of the coming periods, beside those of the same periods last year."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from itertools import pairwise
from typing import Any

from modal_forecast.grain import Grain
from modal_forecast.report import formats
from modal_forecast.report.formats import Amounts
from modal_forecast.report.sections import Card
from modal_forecast.report.values import PeriodValues, total

BOUNDED = ("yhat", "yhat_lower_80", "yhat_upper_80")
WIDEST = "“At the widest” adds up each {0}'s 80% bounds. Good and bad {1} partly cancel out: less is likely."
BOUNDS = "“Between” holds the total in about 80 of 100 cases."
LAST_YEAR = "Last year means 52 weeks earlier, so that the same weekdays are compared."


@dataclass(frozen=True)
class WindowTotal:
    """The point forecast summed over the first `count` periods, beside the actuals of the same last year.

    last: the first day of the last period.
    lower, upper: 80% bounds; if `adds_bounds`, sums of those of each period, which are too wide for several.
    A sum is None when one of its values is unknown: a sum of fewer would look like a fall.
    """

    grain: Grain
    count: int
    last: date
    total: float | None
    lower: float | None
    upper: float | None
    last_year: float | None
    known_last_year: int
    adds_bounds: bool

    @property
    def change(self) -> float | None:
        """0.042 for 4.2 % more than last year."""
        if self.total is None or not self.last_year or self.last_year < 0:
            return None
        return self.total / self.last_year - 1


@dataclass(frozen=True)
class Outlook:
    """answer: the opening sentence; cards: one for each window, and one for the last actual day.

    warning: what is wrong with the data, empty if nothing is.
    """

    answer: str
    warning: str
    cards: tuple[Card, ...]
    notes: tuple[str, ...]


def window_totals(
    history: PeriodValues, forecast: Mapping[str, PeriodValues], widths: Mapping[int, float]
) -> list[WindowTotal]:
    """Return a total for each window that the forecast fills, or one for the whole of a shorter forecast."""
    horizon = len(forecast["yhat"].values)
    windows = [count for count in history.grain.windows if count <= horizon] or [horizon]
    return [window_total(history, forecast, count, widths) for count in windows]


def window_total(
    history: PeriodValues, forecast: Mapping[str, PeriodValues], count: int, widths: Mapping[int, float]
) -> WindowTotal:
    """Return the total of the first `count` periods of the forecast; widths: see sum_width()."""
    window = [forecast["yhat"].day(index) for index in range(count)]
    # 52 weeks rather than a calendar year: a Saturday is then compared with a Saturday.
    last_year = [history.grain.start(day, -history.grain.year) for day in window]
    return total_of(window, last_year, history, forecast, widths)


def total_of(
    days: Sequence[date],
    last_year: Sequence[date],
    history: PeriodValues,
    forecast: Mapping[str, PeriodValues],
    widths: Mapping[int, float],
) -> WindowTotal:
    """Return the total of periods, of which some may be past, beside the actuals of those of `last_year`."""
    first = forecast["yhat"].start
    came = total(history.at(day) for day in days if day < first)
    ahead = [day for day in days if day >= first]
    sums = {name: total(forecast[name].at(day) for day in ahead) for name in BOUNDED}
    expected, lower, upper = (sums[name] for name in BOUNDED)
    width = sum_width(len(ahead), widths)
    if expected is not None and lower is not None and upper is not None and width is not None:
        lower, upper = expected - width * (expected - lower), expected + width * (upper - expected)
    expected, lower, upper = (total([came, value]) for value in (expected, lower, upper))
    actuals = [history.at(day) for day in last_year]
    return WindowTotal(
        grain=history.grain,
        count=len(days),
        last=days[-1],
        total=expected,
        lower=lower,
        upper=upper,
        last_year=total(actuals),
        known_last_year=sum(value is not None for value in actuals),
        adds_bounds=width is None,
    )


def sum_width(count: int, widths: Mapping[int, float]) -> float | None:
    """Return the bounds of a sum of so many periods as a share of their added bounds; None if it is unknown.

    widths: those that the back-test measured, by number of periods; between them the share changes evenly.
    """
    if count <= 1:
        return 1.0
    if not widths:
        return None
    measured = [(1, 1.0), *sorted(widths.items())]
    for (fewer, of_fewer), (more, of_more) in pairwise(measured):
        if count <= more:
            return of_fewer + (of_more - of_fewer) * (count - fewer) / (more - fewer)
    return measured[-1][1]


def measured_widths(diagnostics: Mapping[str, Any]) -> dict[int, float]:
    """Return the widths that sum_width() takes from the back-test of a forecast."""
    sums = (diagnostics.get("backtest") or {}).get("sums") or {}
    return {int(count): measured["width"] for count, measured in sums.items()}


def main_window(windows: Sequence[WindowTotal]) -> WindowTotal:
    """Return the window to show where there is room for one only: a month of days, or the last."""
    return next((window for window in windows if window.count == window.grain.windows[1]), windows[-1])


def outlook(
    history: PeriodValues, windows: Sequence[WindowTotal], amounts: Amounts, made_on: date | None = None
) -> Outlook:
    """Return what the windows say. From old data they are not called the next ones: they may be past."""
    last_day, last_value = max(
        (d, v) for d, v in zip(history.days(), history.values, strict=True) if v is not None
    )
    grain = history.grain
    last = Card(f"Last actual {grain.name}", amounts(last_value), grain.label(last_day))
    notes = []
    if not all(window.adds_bounds for window in windows):
        notes.append(BOUNDS)
    if any(window.adds_bounds for window in windows):
        notes.append(WIDEST.format(grain.name, grain.plural))
    if any(window.known_last_year for window in windows) and grain.cycle > 1:
        notes.append(LAST_YEAR)
    end, warning = grain.last_day(history.end), ""
    days_old = (made_on - end).days if made_on else 0
    is_old = days_old > grain.stale_days
    if is_old:
        warning = (
            f"The data ends on {formats.day(end)}, {days_old} days before this forecast was made: "
            "load newer data."
        )
    cards = (*(_card(window, amounts, is_old) for window in windows), last)
    return Outlook(_answer(main_window(windows), amounts, is_old), warning, cards, tuple(notes))


def _answer(window: WindowTotal, amounts: Amounts, is_old: bool) -> str:
    amounts = amounts.of_one_precision([window.total, window.lower, window.upper])
    grain = window.grain
    between = _bounds(window, amounts)
    of_periods = f"{amounts(window.total)} in the {_periods(window, is_old)}"
    expected = f"{'The forecast is' if is_old else 'Expect'} about {of_periods}" + (
        f", {between}." if between else "."
    )
    if window.change is None:
        return expected
    if abs(window.change) < formats.NEGLIGIBLE:
        return (
            f"{expected} That is about as much as {grain.preposition} the same {grain.plural} of last year."
        )
    change = f"{formats.share(abs(window.change))} {'more' if window.change > 0 else 'less'}"
    return f"{expected} That is {change} than {grain.preposition} the same {grain.plural} of last year."


def _periods(window: WindowTotal, is_old: bool) -> str:
    """next 30 days, or of old data: 30 days from Thu 30 Apr 2026"""
    grain = window.grain
    if is_old:
        return f"{grain.counted(window.count)} from {grain.label(grain.start(window.last, 1 - window.count))}"
    return f"next {grain.name if window.count == 1 else grain.counted(window.count)}"


def _card(window: WindowTotal, amounts: Amounts, is_old: bool) -> Card:
    amounts = amounts.of_one_precision([window.total, window.lower, window.upper, window.last_year])
    grain = window.grain
    if window.change is not None:
        last_year = f"{formats.change(window.change)} on last year's {amounts(window.last_year)}"
    elif window.last_year is not None:
        last_year = f"last year {amounts(window.last_year)}"
    elif not window.known_last_year:
        last_year = "no last year to compare with"
    else:
        periods = f"{window.known_last_year} of {grain.counted(window.count)}"
        last_year = f"last year known {grain.preposition} {periods}"
    return Card(
        label=_periods(window, is_old).replace("next", "Next"),
        value=amounts(window.total),
        detail=("to " if window.count > 1 else "") + grain.label(window.last),
        beside=tuple(line for line in (_bounds(window, amounts), last_year) if line),
    )


def _bounds(window: WindowTotal, amounts: Amounts) -> str:
    """between $80,100 and $96,500; empty if the bounds are unknown"""
    if window.lower is None or window.upper is None:
        return ""
    between = f"between {amounts.range(window.lower, window.upper)}"
    return f"at the widest {between}" if window.adds_bounds else between
