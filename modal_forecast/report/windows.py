"""Totals of the coming days, and what came on the same days of last year."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

from modal_forecast.report.daily import Daily
from modal_forecast.report.figures import figure, total

WINDOWS = (7, 30, 90)
# The one that the opening sentence is about: stock is ordered for about a month.
MAIN_WINDOW = 30
# 52 weeks rather than a calendar year: a Saturday is then compared with a Saturday.
A_YEAR = timedelta(weeks=52)


@dataclass(frozen=True)
class WindowTotal:
    """The point forecast summed over the first `days` days, beside the actuals of the same days last year.

    lower, upper: around the total. `of_sum` says whether they were made for the sum; if not, they are the
    sums of the daily 80% bounds, which are too wide.
    A sum is None when one of its days is unknown: a sum of fewer days would look like a fall.
    """

    days: int
    last_day: date
    total: float | None
    lower: float | None
    upper: float | None
    of_sum: bool
    last_year: float | None
    days_known_last_year: int

    @property
    def change(self) -> float | None:
        """0.042 for 4.2 % more than last year."""
        if self.total is None or not self.last_year or self.last_year < 0:
            return None
        return self.total / self.last_year - 1


def main_window(windows: Sequence[WindowTotal]) -> WindowTotal:
    """The window that one figure is given for where there is room for one only: a month, or the last."""
    return next((window for window in windows if window.days == MAIN_WINDOW), windows[-1])


def window_totals(
    history: Daily, forecast: Mapping[str, Daily], given: Sequence[Mapping[str, Any]] = ()
) -> list[WindowTotal]:
    """One total for each window that the forecast fills, or one for the whole of a shorter forecast."""
    horizon = len(forecast["yhat"].values)
    windows = [days for days in WINDOWS if days <= horizon] or [horizon]
    bounds = {window["days"]: window for window in given}
    return [window_total(history, forecast, days, bounds.get(days)) for days in windows]


def window_total(
    history: Daily, forecast: Mapping[str, Daily], days: int, given: Mapping[str, Any] | None = None
) -> WindowTotal:
    """`given`: bounds of the sum, see ReportInput.windows."""
    window = [forecast["yhat"].day(index) for index in range(days)]
    last_year = [history.at(day - A_YEAR) for day in window]
    lower, upper = figure(given, "lower_80"), figure(given, "upper_80")
    given_both = lower is not None and upper is not None
    if not given_both:
        lower, upper = (_total(forecast[f"yhat_{side}_80"], window) for side in ("lower", "upper"))
    return WindowTotal(
        days=days,
        last_day=window[-1],
        total=_total(forecast["yhat"], window),
        lower=lower,
        upper=upper,
        of_sum=given_both or days == 1,
        last_year=total(last_year),
        days_known_last_year=sum(value is not None for value in last_year),
    )


def last_actual(history: Daily) -> tuple[date, float]:
    """The latest day that has a value, and the value."""
    return max((history.day(i), value) for i, value in enumerate(history.values) if value is not None)


def _total(daily: Daily, window: Sequence[date]) -> float | None:
    return total(daily.at(day) for day in window)
