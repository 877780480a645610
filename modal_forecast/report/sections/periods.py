"""What to expect by calendar week and month, beside the same weeks and months of last year."""

from collections.abc import Mapping, Sequence
from datetime import date

from modal_forecast.grain import DAY, MONTH, WEEK, Grain
from modal_forecast.report import formats
from modal_forecast.report.formats import Amounts
from modal_forecast.report.sections import Table
from modal_forecast.report.sections.outlook import WindowTotal, total_of
from modal_forecast.report.values import PeriodValues

# The tables of a forecast, by its grain, and their rows at most.
SHOWN = {"day": ((WEEK, 8), (MONTH, None)), "week": ((WEEK, 13),), "month": ((MONTH, None),)}
HEADINGS = ("Expected", "80% bounds", "Against last year")


def by_period(
    history: PeriodValues, forecast: Mapping[str, PeriodValues], widths: Mapping[int, float], amounts: Amounts
) -> tuple[Table, ...]:
    """Return a table of weeks and one of months; each is left out if the forecast fills none.

    A week or month of days that has begun counts what came on its days so far. A forecast by week has weeks
    only, as a week may lie in two months, and one by month months. widths: see outlook.sum_width().
    """
    grain, tables = history.grain, []
    for period, most in SHOWN[grain.name]:
        totals = {}
        for days in whole_periods(forecast["yhat"], period)[:most]:
            last_year = [_a_year_before(day, grain, period) for day in days]
            total = total_of(days, [day for day in last_year if day], history, forecast, widths)
            if total.total is not None:
                totals[_label(days, period, forecast["yhat"].start)] = total
        if totals:
            precise = amounts.of_one_precision(
                value for total in totals.values() for value in (total.total, total.lower, total.upper)
            )
            rows = [_row(name, total, precise) for name, total in totals.items()]
            headings = (period.name.capitalize(), *HEADINGS)
            tables.append(Table(f"By {period.name}", headings, tuple(rows)))
    return tuple(tables)


def whole_periods(forecast: PeriodValues, period: Grain) -> list[list[date]]:
    """Return the forecast's first days in each whole `period` that has one of them, and ends within it."""
    periods: dict[date, list[date]] = {}
    index = forecast.index(period.start(forecast.start))
    # What comes after the last one tells whether the last period is whole.
    while index <= len(forecast.values):
        day = forecast.day(index)
        periods.setdefault(period.start(day), []).append(day)
        index += 1
    return list(periods.values())[:-1]


def _a_year_before(day: date, grain: Grain, period: Grain) -> date | None:
    """Return the same weekday, week or date of last year; None for 29 February."""
    if grain is period or period is WEEK:
        return grain.start(day, -grain.year)
    try:
        return day.replace(year=day.year - 1)
    except ValueError:
        return None


def _label(days: Sequence[date], period: Grain, start: date) -> str:
    """23 to 29 Nov 2026, 2 of 7 days past; 28 Dec 2026 to 3 Jan 2027; or November 2026"""
    first, last = days[0], period.last_day(days[0])
    came = sum(day < start for day in days)
    name = period.label(first)
    if period is WEEK:
        month = f" {first:%b}" if first.month != last.month else ""
        year = f" {first.year}" if first.year != last.year else ""
        name = f"{first.day}{month}{year} to {formats.short_date(last)}"
    return name + (f", {came} of {DAY.counted(len(days))} past" if came else "")


def _row(label: str, period: WindowTotal, amounts: Amounts) -> tuple[str, ...]:
    bounds = formats.UNKNOWN
    if period.lower is not None and period.upper is not None:
        bounds = f"{amounts(period.lower)} to {amounts(period.upper)}"
    change = formats.UNKNOWN if period.change is None else formats.change(period.change)
    return label, amounts(period.total), bounds, change
