"""What to expect by calendar week and month, beside the same weeks and months of last year."""

from collections.abc import Callable, Mapping, Sequence
from datetime import date, timedelta

from modal_forecast.report import formats
from modal_forecast.report.formats import Amounts
from modal_forecast.report.sections import Table
from modal_forecast.report.sections.outlook import YEAR, WindowTotal, total_of
from modal_forecast.report.values import PeriodValues

WEEKS_SHOWN = 8
HEADINGS = ("Expected", "80% bounds", "Against last year")


def by_period(
    history: PeriodValues, forecast: Mapping[str, PeriodValues], widths: Mapping[int, float], amounts: Amounts
) -> tuple[Table, ...]:
    """Return a table of weeks and one of months; each is left out if the forecast fills none.

    A week or month that has begun counts what came on its days so far. widths: see outlook.sum_width().
    """
    tables = []
    for caption, first_day, label, most in (
        ("By week", _monday, _week_label, WEEKS_SHOWN),
        ("By month", lambda day: day.replace(day=1), _month_label, None),
    ):
        periods = {}
        for days in _periods(forecast["yhat"], first_day)[:most]:
            last_year = [_a_year_before(day, caption == "By week") for day in days]
            period = total_of(days, [day for day in last_year if day], history, forecast, widths)
            if period.total is not None:
                periods[label(days, forecast["yhat"].start)] = period
        if periods:
            shown = amounts.of_one_precision(
                value for period in periods.values() for value in (period.total, period.lower, period.upper)
            )
            rows = [_row(name, period, shown) for name, period in periods.items()]
            tables.append(Table(caption, (caption.removeprefix("By ").capitalize(), *HEADINGS), tuple(rows)))
    return tuple(tables)


def _periods(forecast: PeriodValues, first_day: Callable[[date], date]) -> list[list[date]]:
    """Return the days of each whole week or month that has a day of the forecast, and ends within it."""
    periods: dict[date, list[date]] = {}
    day = first_day(forecast.start)
    # The day after the last one tells whether the last period is whole.
    while day <= forecast.end + timedelta(days=1):
        periods.setdefault(first_day(day), []).append(day)
        day += timedelta(days=1)
    return list(periods.values())[:-1]


def _monday(day: date) -> date:
    return day - timedelta(days=day.weekday())


def _a_year_before(day: date, by_weekday: bool) -> date | None:
    """Return the same weekday or the same date of last year; None for 29 February."""
    if by_weekday:
        return day - YEAR
    try:
        return day.replace(year=day.year - 1)
    except ValueError:
        return None


def _week_label(days: Sequence[date], start: date) -> str:
    first, last = days[0], days[-1]
    return f"{first.day} {first:%b} to {last.day} {last:%b %Y}{_so_far(days, start)}"


def _month_label(days: Sequence[date], start: date) -> str:
    return f"{days[0]:%B %Y}{_so_far(days, start)}"


def _so_far(days: Sequence[date], start: date) -> str:
    came = sum(day < start for day in days)
    return f", {came} of {formats.days(len(days))} past" if came else ""


def _row(label: str, period: WindowTotal, amounts: Amounts) -> tuple[str, ...]:
    bounds = formats.UNKNOWN
    if period.lower is not None and period.upper is not None:
        bounds = f"{amounts(period.lower)} to {amounts(period.upper)}"
    change = formats.UNKNOWN if period.change is None else formats.change(period.change)
    return label, amounts(period.total), bounds, change
