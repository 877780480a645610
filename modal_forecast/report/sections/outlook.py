"""What to expect: totals of the coming days, beside those of the same days last year."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from itertools import pairwise
from typing import Any

from modal_forecast.report import formats
from modal_forecast.report.formats import Amounts
from modal_forecast.report.sections import Card
from modal_forecast.report.values import PeriodValues, total

WINDOWS = (7, 30, 90)
# The window that the opening sentence is about: stock is ordered for about a month.
MAIN_WINDOW = 30
# 52 weeks rather than a calendar year: a Saturday is then compared with a Saturday.
YEAR = timedelta(weeks=52)
BOUNDED = ("yhat", "yhat_lower_80", "yhat_upper_80")
WIDEST = "“At the widest” adds up each day's 80% bounds. Good and bad days partly cancel out: less is likely."
BOUNDS = "“Between” holds the total in about 80 of 100 cases."
LAST_YEAR = "Last year means 52 weeks earlier, so that the same weekdays are compared."


@dataclass(frozen=True)
class WindowTotal:
    """The point forecast summed over the first `days` days, beside the actuals of the same days last year.

    lower, upper: 80% bounds; if `adds_bounds`, sums of the daily ones, which are too wide for several days.
    A sum is None when one of its days is unknown: a sum of fewer days would look like a fall.
    """

    days: int
    last_day: date
    total: float | None
    lower: float | None
    upper: float | None
    last_year: float | None
    days_known_last_year: int
    adds_bounds: bool

    @property
    def change(self) -> float | None:
        """0.042 for 4.2 % more than last year."""
        if self.total is None or not self.last_year or self.last_year < 0:
            return None
        return self.total / self.last_year - 1


@dataclass(frozen=True)
class Outlook:
    """answer: the opening sentence; cards: one for each window, and one for the last actual day."""

    answer: str
    cards: tuple[Card, ...]
    notes: tuple[str, ...]


def window_totals(
    history: PeriodValues, forecast: Mapping[str, PeriodValues], widths: Mapping[int, float]
) -> list[WindowTotal]:
    """Return a total for each window that the forecast fills, or one for the whole of a shorter forecast."""
    horizon = len(forecast["yhat"].values)
    windows = [days for days in WINDOWS if days <= horizon] or [horizon]
    return [window_total(history, forecast, days, widths) for days in windows]


def window_total(
    history: PeriodValues, forecast: Mapping[str, PeriodValues], days: int, widths: Mapping[int, float]
) -> WindowTotal:
    """Return the total of the first `days` days of the forecast; widths: see sum_width()."""
    window = [forecast["yhat"].day(index) for index in range(days)]
    return total_of(window, [day - YEAR for day in window], history, forecast, widths)


def total_of(
    days: Sequence[date],
    last_year: Sequence[date],
    history: PeriodValues,
    forecast: Mapping[str, PeriodValues],
    widths: Mapping[int, float],
) -> WindowTotal:
    """Return the total of days, of which some may be past, beside the actuals of the days `last_year`."""
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
        days=len(days),
        last_day=days[-1],
        total=expected,
        lower=lower,
        upper=upper,
        last_year=total(actuals),
        days_known_last_year=sum(value is not None for value in actuals),
        adds_bounds=width is None,
    )


def sum_width(days: int, widths: Mapping[int, float]) -> float | None:
    """Return the bounds of a sum of so many days as a share of their added bounds; None if it is unknown.

    widths: those that the back-test measured, by number of days; between them the share changes evenly.
    """
    if days <= 1:
        return 1.0
    if not widths:
        return None
    known = [(1, 1.0), *sorted(widths.items())]
    for (fewer, of_fewer), (more, of_more) in pairwise(known):
        if days <= more:
            return of_fewer + (of_more - of_fewer) * (days - fewer) / (more - fewer)
    return known[-1][1]


def measured_widths(diagnostics: Mapping[str, Any]) -> dict[int, float]:
    """Return the widths that sum_width() takes from the back-test of a forecast."""
    sums = (diagnostics.get("backtest") or {}).get("sums") or {}
    return {int(days): measured["width"] for days, measured in sums.items()}


def main_window(windows: Sequence[WindowTotal]) -> WindowTotal:
    """Return the window to show where there is room for one only: a month, or the last."""
    return next((window for window in windows if window.days == MAIN_WINDOW), windows[-1])


def outlook(history: PeriodValues, windows: Sequence[WindowTotal], amounts: Amounts) -> Outlook:
    last_day, last_value = max(
        (d, v) for d, v in zip(history.days(), history.values, strict=True) if v is not None
    )
    last = Card("Last actual day", amounts(last_value), formats.day(last_day))
    notes = []
    if not all(window.adds_bounds for window in windows):
        notes.append(BOUNDS)
    if any(window.adds_bounds for window in windows):
        notes.append(WIDEST)
    if any(window.days_known_last_year for window in windows):
        notes.append(LAST_YEAR)
    cards = (*(_card(window, amounts) for window in windows), last)
    return Outlook(_answer(main_window(windows), amounts), cards, tuple(notes))


def _answer(window: WindowTotal, amounts: Amounts) -> str:
    amounts = amounts.of_one_precision([window.total, window.lower, window.upper])
    period = "the next day" if window.days == 1 else f"the next {window.days} days"
    between = _bounds(window, amounts)
    expected = f"Expect about {amounts(window.total)} in {period}" + (f", {between}." if between else ".")
    if window.change is None:
        return expected
    if abs(window.change) < formats.NEGLIGIBLE:
        return f"{expected} That is about as much as on the same days of last year."
    change = f"{formats.share(abs(window.change))} {'more' if window.change > 0 else 'less'}"
    return f"{expected} That is {change} than on the same days of last year."


def _card(window: WindowTotal, amounts: Amounts) -> Card:
    amounts = amounts.of_one_precision([window.total, window.lower, window.upper, window.last_year])
    if window.change is not None:
        last_year = f"{formats.change(window.change)} on last year's {amounts(window.last_year)}"
    elif window.last_year is not None:
        last_year = f"last year {amounts(window.last_year)}"
    elif not window.days_known_last_year:
        last_year = "no last year to compare with"
    else:
        last_year = f"last year known on {window.days_known_last_year} of {formats.days(window.days)}"
    return Card(
        label="Next day" if window.days == 1 else f"Next {window.days} days",
        value=amounts(window.total),
        detail=("to " if window.days > 1 else "") + formats.day(window.last_day),
        beside=tuple(line for line in (_bounds(window, amounts), last_year) if line),
    )


def _bounds(window: WindowTotal, amounts: Amounts) -> str:
    """between $80,100 and $96,500; empty if the bounds are unknown"""
    if window.lower is None or window.upper is None:
        return ""
    between = f"between {amounts(window.lower)} and {amounts(window.upper)}"
    return f"at the widest {between}" if window.adds_bounds else between
