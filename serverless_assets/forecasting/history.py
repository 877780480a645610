"""The history to forecast from: which days of daily_revenue count, and warnings about those that do not."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import dagster as dg
import numpy as np
import pyarrow as pa

from modal_forecast.messages import ForecastRequest
from modal_forecast.validation import check_days, check_values
from serverless_assets.errors import UserError
from serverless_assets.names import REVENUE
from serverless_assets.transformation.fingerprints import is_model
from serverless_assets.warehouse import Warehouse

# The country whose holidays the forecast uses.
COUNTRY = "US"
# Days beyond a gap of more than GAP_DAYS are left out if they hold less than GAP_SHARE of all orders: these
# are mistyped dates, not a shop that was closed. Beyond a gap of a year the share may be larger, as for a
# date that was never set, such as 1970-01-01.
GAP_DAYS, GAP_SHARE = 30, 0.01
LONG_GAP_DAYS, LONG_GAP_SHARE = 365, 0.1
# After a gap, a day with at least this share of a usual day's orders is a shop that has opened again.
BUSY_SHARE = 0.5
# A warning is given for a history that ends more than this many days before the last complete day.
STALE_DAYS = 7
DAY = np.timedelta64(1, "D")


class HistoryError(UserError):
    """There is no history to forecast from."""


@dataclass(frozen=True)
class Today:
    """The last day that is over in UTC and in the business's time zone, and the latest that has begun."""

    last_complete: date
    latest: date

    @classmethod
    def of(cls, timezone: str, now: datetime | None = None) -> "Today":
        """Return today in UTC, in which daily_revenue cuts its days, and in the time zone of the business."""
        now = now or datetime.now(UTC)
        days = [now.astimezone(zone).date() for zone in (UTC, ZoneInfo(timezone))]
        return cls(min(days) - timedelta(days=1), max(days))


@dataclass(frozen=True)
class History:
    """Daily order revenue of all stores.

    table: ds date32, y float64 in USD, a row for every day from the first to the last; empty if no day of
        daily_revenue can be used.
    warnings: sentences on days that are implausible or missing. notes: sentences on days left out as usual.
    left_out: the number of orders that do not count: of days that are not complete or are isolated.
    """

    table: pa.Table
    warnings: Sequence[str] = ()
    notes: Sequence[str] = ()
    left_out: int = 0

    def not_empty(self) -> pa.Table:
        """Return the table. Raises HistoryError if it is empty."""
        if not self.table.num_rows:
            reason = f"There is no revenue to forecast from: {REVENUE} has no order of a day that is over."
            raise HistoryError(" ".join([reason, *self.warnings, *self.notes, "Load orders first."]))
        return self.table

    def request(self, horizon: int, country: str | None) -> ForecastRequest:
        """Return the request to the worker.

        Raises:
            HistoryError: there is no day.
            ForecastRefused: there are too few days, or impossible values.
        """
        request = ForecastRequest(self.not_empty(), horizon, country)
        days = request.history["ds"].to_numpy()
        check_days(days)
        check_values(days, request.history["y"].to_numpy())
        return request


def has_revenue(manifest: Mapping[str, Any]) -> bool:
    """Whether the dbt project of this manifest has what is forecast: a model or a source daily_revenue."""
    nodes = (node for node in manifest["nodes"].values() if is_model(node))
    relations = [node.get("alias") or node["name"] for node in nodes]
    relations += [source["identifier"] for source in manifest["sources"].values()]
    return REVENUE in relations


def read_history(warehouse: Warehouse, today: Today) -> History:
    """Return the history as of today. Raises dg.Failure if there is no daily_revenue."""
    if REVENUE not in warehouse.tables():
        raise dg.Failure(f"There is no {REVENUE} yet: run the transform job first.", allow_retries=False)
    revenue = warehouse.query(
        f"select ds, sum(revenue_usd) as y, sum(nr_orders) as orders from {warehouse.quoted_name(REVENUE)}"
        " group by ds order by ds"
    )
    return history_of(revenue, today)


def read_history_until(warehouse: Warehouse, last_day: date) -> pa.Table:
    """Return the history (ds, y) of a forecast whose data ended on `last_day`.

    Raises:
        HistoryError: daily_revenue no longer ends there.
    """
    history = read_history(warehouse, Today(last_day, last_day)).table
    now_ends = history["ds"][-1].as_py() if history.num_rows else None
    if now_ends != last_day:
        raise HistoryError(
            f"The forecast was made from data up to {last_day}, and {REVENUE} now ends on {now_ends}: "
            "run the forecast job."
        )
    return history


def history_of(revenue: pa.Table, today: Today) -> History:
    """Return the history in rows of daily_revenue (ds, y, orders), one row a day in any order.

    A day without a row had no orders anywhere: its revenue is zero, not unknown.
    """
    revenue = revenue.sort_by("ds")
    days = revenue["ds"].to_numpy().astype("datetime64[D]")
    orders = revenue["orders"].to_numpy().astype(float)
    future = days > np.datetime64(today.latest)
    running = (days > np.datetime64(today.last_complete)) & ~future
    over = ~(future | running)
    stray = np.zeros(len(days), bool)
    stray[over] = isolated(days[over], orders[over])
    used = over & ~stray
    far = f"more than {GAP_DAYS} days from all others"
    warnings = [
        *_left_out(days[future], orders[future], "have not come yet", "has not come yet"),
        *_left_out(days[stray], orders[stray], f"are {far}", f"is {far}"),
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
    """Return which days are too far from all others to be plausible, a bool for each.

    days: datetime64[D], sorted, only days with orders. orders: the number on each.

    At the beginning: all before a gap of more than GAP_DAYS (LONG_GAP_DAYS) that hold less than GAP_SHARE
    (LONG_GAP_SHARE) of the orders. At the end: all after a gap of more than GAP_DAYS that hold less than
    GAP_SHARE, and fewer than BUSY_SHARE of the orders of a usual day on each.
    """
    is_isolated = np.zeros(len(days), bool)
    if len(days) < 2:
        return is_isolated
    gaps, before = np.diff(days) / DAY - 1, np.cumsum(orders)[:-1]
    total, usual = orders.sum(), np.median(orders)
    early = ((gaps > GAP_DAYS) & (before < GAP_SHARE * total)) | (
        (gaps > LONG_GAP_DAYS) & (before < LONG_GAP_SHARE * total)
    )
    if early.any():
        is_isolated[: np.flatnonzero(early)[-1] + 1] = True
    busiest_after = np.maximum.accumulate(orders[::-1])[::-1][1:]
    late = (gaps > GAP_DAYS) & (total - before < GAP_SHARE * total) & (busiest_after < BUSY_SHARE * usual)
    if late.any():
        is_isolated[np.flatnonzero(late)[0] + 1 :] = True
    return is_isolated


def daily_total(days: np.ndarray, values: np.ndarray) -> pa.Table:
    """Return ds date32 and y float64, a row for every day from the first to the last; 0 where there is none.

    days: datetime64[D], sorted. values: one for each.
    """
    calendar = np.arange(days[0], days[-1] + DAY) if len(days) else days
    filled = np.zeros(len(calendar))
    if len(days):
        filled[((days - days[0]) / DAY).astype(int)] = values
    return pa.table({"ds": pa.array(calendar, pa.date32()), "y": pa.array(filled, pa.float64())})


def _left_out(days: np.ndarray, orders: np.ndarray, these_days: str, this_day: str) -> Sequence[str]:
    """Return a sentence such as "1 order dated 2027-06-01 is left out: the day has not come yet."."""
    if not len(days):
        return ()
    count, first, last = int(orders.sum()), days[0], days[-1]
    counted = f"{count:,} order" if count == 1 else f"{count:,} orders"
    when = f"{first}" if first == last else f"{first} to {last}"
    why = f"the day {this_day}" if first == last else f"these days {these_days}"
    return (f"{counted} dated {when} {'is' if count == 1 else 'are'} left out: {why}.",)
