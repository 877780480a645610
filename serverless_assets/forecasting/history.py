"""The series that is forecast, and which days of daily_revenue belong to it."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import dagster as dg
import numpy as np
import pyarrow as pa

from modal_forecast.messages import ForecastRequest
from modal_forecast.validation import check_days, check_values
from serverless_assets.errors import UserError
from serverless_assets.warehouse import Warehouse

REVENUE = "daily_revenue"
# Whose holidays the forecast knows.
COUNTRY = "US"
# Days beyond a gap of so many days are left out if they hold less than this share of all orders: a date that
# was mistyped, not a shop that was closed. Beyond a gap of a year the share may be larger: a date that was
# never set, such as 1970-01-01.
GAP_DAYS, GAP_SHARE = 30, 0.01
LONG_GAP_DAYS, LONG_GAP_SHARE = 365, 0.1
# After a gap, a day as busy as usual is a shop that has opened again.
BUSY_SHARE = 0.5
# A history that ends earlier than this before the last complete day is worth a warning.
STALE_DAYS = 7
DAY = np.timedelta64(1, "D")


class HistoryError(UserError):
    """There is no history to forecast from; the message says why and what to do."""


@dataclass(frozen=True)
class Today:
    """The last day that has ended in UTC and in the business's zone, and the latest that has begun in one."""

    last_complete: date
    latest: date

    @classmethod
    def of(cls, timezone: str, now: datetime | None = None) -> "Today":
        """Today in UTC, in which daily_revenue cuts its days, and in the time zone of the business.

        A day is complete once it is over in both.
        """
        now = now or datetime.now(UTC)
        days = [now.astimezone(zone).date() for zone in (UTC, ZoneInfo(timezone))]
        return cls(min(days) - timedelta(days=1), max(days))


@dataclass(frozen=True)
class History:
    """Daily order revenue of all locations.

    table: ds date32, y float64 in USD, a row for every day from the first to the last; no row if no day of
        daily_revenue can be used.
    warnings: sentences on days that should not be there, or are not. notes: sentences on what is ordinary.
    left_out: how many orders do not count, of days that are not complete or are far from all others.
    """

    table: pa.Table
    warnings: Sequence[str] = ()
    notes: Sequence[str] = ()
    left_out: int = 0

    def not_empty(self) -> pa.Table:
        """The table, which has a row. Raises HistoryError if it has none."""
        if not self.table.num_rows:
            reason = f"There is no revenue to forecast from: {REVENUE} has no order of a day that is over."
            raise HistoryError(" ".join([reason, *self.warnings, *self.notes, "Load orders first."]))
        return self.table

    def request(self, horizon: int, country: str | None) -> ForecastRequest:
        """What to ask of the worker.

        Raises:
            HistoryError: there is no day.
            ForecastRefused: there are too few days, or values that cannot be.
        """
        request = ForecastRequest(self.not_empty(), horizon, country)
        days = request.history["ds"].to_numpy()
        check_days(days)
        check_values(days, request.history["y"].to_numpy())
        return request


def read_history(warehouse: Warehouse, today: Today) -> History:
    """The history as it is today."""
    if REVENUE not in warehouse.tables():
        raise dg.Failure(f"There is no {REVENUE} yet: run the transform job first.", allow_retries=False)
    revenue = warehouse.query(
        f"select ds, sum(revenue_usd) as y, sum(nr_orders) as orders from {warehouse.quoted_name(REVENUE)}"
        " group by ds order by ds"
    )
    return history_of(revenue, today)


def read_history_until(warehouse: Warehouse, last_day: date) -> pa.Table:
    """The table of the history that a forecast was made from whose data ended on `last_day`.

    Raises:
        HistoryError: daily_revenue does not end there any more.
    """
    history = read_history(warehouse, Today(last_day, last_day)).table
    found = history["ds"][-1].as_py() if history.num_rows else None
    if found != last_day:
        raise HistoryError(
            f"The forecast was made from data up to {last_day}, and {REVENUE} now ends on {found}: "
            "run the forecast job."
        )
    return history


def history_of(revenue: pa.Table, today: Today) -> History:
    """The history in the rows of daily_revenue (ds, y, orders), one row a day in any order. Pure.

    A day without a row had no orders anywhere: its revenue is zero, not unknown.
    """
    revenue = revenue.sort_by("ds")
    days = revenue["ds"].to_numpy().astype("datetime64[D]")
    orders = revenue["orders"].to_numpy().astype(float)
    future = days > np.datetime64(today.latest)
    running = (days > np.datetime64(today.last_complete)) & ~future
    stray = np.zeros(len(days), bool)
    stray[~(future | running)] = isolated(days[~(future | running)], orders[~(future | running)])
    used = ~(future | running | stray)
    warnings = [
        *_left_out(days[future], orders[future], "have not come yet", "has not come yet"),
        *_left_out(
            days[stray],
            orders[stray],
            *[f"{be} more than {GAP_DAYS} days from all others" for be in ("are", "is")],
        ),
    ]
    notes = [*_left_out(days[running], orders[running], "are not over yet", "is not over yet")]
    table = daily_total(days[used], np.array(revenue["y"].to_pylist(), float)[used])
    if table.num_rows:
        last = table["ds"][-1].as_py()
        late = (today.last_complete - last).days
        if late > STALE_DAYS:
            warnings.append(
                f"The history ends on {last}, {late} days before the last complete day, "
                f"{today.last_complete}: load newer data."
            )
    return History(table, warnings, notes, int(orders[~used].sum()))


def isolated(days: np.ndarray, orders: np.ndarray) -> np.ndarray:
    """Which days are too far from all others to be believed, a bool for each. Pure.

    days: datetime64[D], sorted, without those on which nothing was ordered. orders: how many on each.

    At the beginning: all before a gap of more than GAP_DAYS (LONG_GAP_DAYS) that hold less than GAP_SHARE
    (LONG_GAP_SHARE) of the orders. At the end: all after a gap of more than GAP_DAYS that hold less than
    GAP_SHARE, and fewer than BUSY_SHARE of the orders of a usual day on each.
    """
    found = np.zeros(len(days), bool)
    if len(days) < 2:
        return found
    gaps, before = np.diff(days) / DAY - 1, np.cumsum(orders)[:-1]
    total, usual = orders.sum(), np.median(orders)
    early = ((gaps > GAP_DAYS) & (before < GAP_SHARE * total)) | (
        (gaps > LONG_GAP_DAYS) & (before < LONG_GAP_SHARE * total)
    )
    if early.any():
        found[: np.flatnonzero(early)[-1] + 1] = True
    busiest_after = np.maximum.accumulate(orders[::-1])[::-1][1:]
    late = (gaps > GAP_DAYS) & (total - before < GAP_SHARE * total) & (busiest_after < BUSY_SHARE * usual)
    if late.any():
        found[np.flatnonzero(late)[0] + 1 :] = True
    return found


def daily_total(days: np.ndarray, values: np.ndarray) -> pa.Table:
    """A row for every day from the first to the last of `days`, which are sorted; 0 where there is none.

    Returns:
        ds date32, y float64 in the unit of the values.
    """
    calendar = np.arange(days[0], days[-1] + DAY) if len(days) else days
    filled = np.zeros(len(calendar))
    if len(days):
        filled[((days - days[0]) / DAY).astype(int)] = values
    return pa.table({"ds": pa.array(calendar, pa.date32()), "y": pa.array(filled, pa.float64())})


def _left_out(days: np.ndarray, orders: np.ndarray, these_days: str, this_day: str) -> Sequence[str]:
    """1 order dated 2027-06-01 is left out: the day has not come yet."""
    if not len(days):
        return ()
    count, first, last = int(orders.sum()), days[0], days[-1]
    when = f"{first}" if first == last else f"{first} to {last}"
    why = f"the day {this_day}" if first == last else f"these days {these_days}"
    return (f"{_counted(count, 'order')} dated {when} {_are(count)} left out: {why}.",)


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _are(count: int) -> str:
    return "is" if count == 1 else "are"
