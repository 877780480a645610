"""The few figures that a decision is taken on."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, timedelta

from modal_forecast.report.daily import Daily

WINDOWS = (7, 30, 90)
# 52 weeks rather than a calendar year: a Saturday is then compared with a Saturday.
A_YEAR = timedelta(weeks=52)


@dataclass(frozen=True)
class WindowTotal:
    """The point forecast summed over the first `days` days, beside the actuals of the same days last year.

    There is no interval here on purpose: the sum of daily bounds is not a bound of the sum.
    A sum is None when one of its days is unknown: a sum of fewer days would look like a fall.
    """

    days: int
    last_day: date
    total: float | None
    last_year: float | None

    @property
    def change(self) -> float | None:
        """0.042 for 4.2 % more than last year."""
        if self.total is None or not self.last_year or self.last_year < 0:
            return None
        return self.total / self.last_year - 1


def window_totals(history: Daily, forecast: Daily) -> list[WindowTotal]:
    """One total for each window that the forecast fills, or one for the whole of a shorter forecast."""
    horizon = len(forecast.values)
    windows = [days for days in WINDOWS if days <= horizon] or [horizon]
    return [_window_total(history, forecast, days) for days in windows]


def last_actual(history: Daily) -> tuple[date, float]:
    """The latest day that has a value, and the value."""
    return max((history.day(i), value) for i, value in enumerate(history.values) if value is not None)


def _window_total(history: Daily, forecast: Daily, days: int) -> WindowTotal:
    window = [forecast.day(index) for index in range(days)]
    return WindowTotal(
        days=days,
        last_day=window[-1],
        total=_sum(forecast.at(day) for day in window),
        last_year=_sum(history.at(day - A_YEAR) for day in window),
    )


def _sum(values: Iterable[float | None]) -> float | None:
    total = 0.0
    for value in values:
        if value is None:
            return None
        total += value
    return total
