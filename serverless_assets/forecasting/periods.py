"""Which days, weeks or months of a relation count, and a value for every one of them. Pure."""

import numpy as np
import pyarrow as pa

from modal_forecast.grain import DAY, Grain

# Days beyond a gap of more than GAP_DAYS are left out if they hold less than GAP_SHARE of all orders: these
# are mistyped dates, not a shop that was closed. Beyond a gap of a year the share may be larger, as for a
# date that was never set, such as 1970-01-01.
GAP_DAYS, GAP_SHARE = 30, 0.01
LONG_GAP_DAYS, LONG_GAP_SHARE = 365, 0.1
# After a gap, a day with at least this share of a usual day's orders is a shop that has opened again.
BUSY_SHARE = 0.5
# Of a relation with more rows than this in each period, a period can be known in part.
ROWS_A_PERIOD = 1.5
ONE_DAY = np.timedelta64(1, "D")


def known_in_part(rows: np.ndarray, periods: np.ndarray, grain: Grain) -> np.ndarray:
    """Return which of the periods the rows begin or end in the midst of, a bool for each.

    Only the first and the last can be, if the rows keep further from its beginning or end than from that of
    any other: a shop may well be closed on Sundays. None if there is about one row a period, whichever of its
    days that is dated with.

    rows: days, sorted. periods: first days of periods.
    """
    starts, first, count = np.unique(grain.starts(rows), return_index=True, return_counts=True)
    if len(starts) < 3 or len(rows) < ROWS_A_PERIOD * len(starts):
        return np.zeros(len(periods), bool)
    after_start = rows[first] - starts
    before_end = grain.starts(starts, 1) - rows[first + count - 1]
    ends = starts[[0, -1]][[after_start[0] > after_start[1:].max(), before_end[-1] > before_end[:-1].max()]]
    return np.isin(periods, ends)


def by_period(totals: pa.Table, grain: Grain) -> pa.Table:
    """Return rows of ds, y and events summed by period, each by its first day.

    A period all of whose values are null has none.
    """
    if grain is DAY:
        return totals.sort_by("ds")
    starts = grain.starts(totals["ds"].to_numpy().astype("datetime64[D]"))
    totals = totals.set_column(totals.column_names.index("ds"), "ds", pa.array(starts, pa.date32()))
    totals = totals.set_column(totals.column_names.index("y"), "y", totals["y"].cast(pa.float64()))
    summed = totals.group_by("ds").aggregate([("y", "sum"), ("events", "sum")])
    return summed.rename_columns({"y_sum": "y", "events_sum": "events"}).sort_by("ds")


def isolated(days: np.ndarray, events: np.ndarray, grain: Grain) -> np.ndarray:
    """Return which periods are too far from all others to be plausible, a bool for each.

    days: the first ones of periods, datetime64[D], sorted, only with events. events: how many in each.

    At the beginning: all before a gap of more than GAP_DAYS (LONG_GAP_DAYS) that hold less than GAP_SHARE
    (LONG_GAP_SHARE) of the events. At the end: all after a gap of more than GAP_DAYS that hold less than
    GAP_SHARE, and fewer than BUSY_SHARE of the events of a usual period in each.
    """
    is_isolated = np.zeros(len(days), bool)
    if len(days) < 2:
        return is_isolated
    gaps, before = np.diff(days) / ONE_DAY - grain.longest_days, np.cumsum(events)[:-1]
    total, usual = events.sum(), np.median(events)
    early = ((gaps > GAP_DAYS) & (before < GAP_SHARE * total)) | (
        (gaps > LONG_GAP_DAYS) & (before < LONG_GAP_SHARE * total)
    )
    if early.any():
        is_isolated[: np.flatnonzero(early)[-1] + 1] = True
    busiest_after = np.maximum.accumulate(events[::-1])[::-1][1:]
    late = (gaps > GAP_DAYS) & (total - before < GAP_SHARE * total) & (busiest_after < BUSY_SHARE * usual)
    if late.any():
        is_isolated[np.flatnonzero(late)[0] + 1 :] = True
    return is_isolated


def every_period(days: np.ndarray, values: np.ndarray, grain: Grain) -> tuple[np.ndarray, np.ndarray]:
    """Return the first day and the value of each period from the first to the last; 0 without a value.

    days: the first ones of periods, datetime64[D], sorted. values: one for each; those of a period that is
        there twice are added, NaN as zero unless there is no other.
    """
    calendar = grain.calendar(days[0], days[-1]) if len(days) else days
    filled: np.ndarray = np.zeros(len(calendar))
    if len(days):
        index, has_value = grain.numbers(days) - grain.numbers(days[:1]), ~np.isnan(values)
        filled = np.bincount(index, np.where(has_value, values, 0.0), len(calendar))
        filled[np.setdiff1d(index, index[has_value])] = np.nan
    return calendar, filled
