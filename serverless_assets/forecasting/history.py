"""The history to forecast from, read from a relation, and warnings about what of it does not count."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import partial
from zoneinfo import ZoneInfo

import dagster as dg
import numpy as np
import pyarrow as pa

from modal_forecast.grain import Grain
from modal_forecast.messages import ForecastRequest
from modal_forecast.report.formats import counted, plural
from modal_forecast.validation import check_history
from serverless_assets.errors import UserError
from serverless_assets.forecasting.declaration import ForecastDeclaration, Parts
from serverless_assets.forecasting.periods import (
    GAP_DAYS,
    ONE_DAY,
    by_period,
    every_period,
    isolated,
    known_in_part,
)
from serverless_assets.hashing import json_digest
from serverless_assets.transformation.relation_states import refuse_unfinished
from serverless_assets.warehouse import Warehouse, WarehouseError


class HistoryError(UserError):
    """There is no history to forecast from."""


@dataclass(frozen=True)
class Today:
    """The last day that is over in UTC and in the business's time zone, and the latest that has begun."""

    last_complete: date
    latest: date

    @classmethod
    def of(cls, timezone: str, now: datetime | None = None) -> "Today":
        """Return today in UTC, in which relations cut their days, and in the time zone of the business."""
        now = now or datetime.now(UTC)
        days = [now.astimezone(zone).date() for zone in (UTC, ZoneInfo(timezone))]
        return cls(min(days) - timedelta(days=1), max(days))


@dataclass(frozen=True)
class History:
    """The total of each day, week or month.

    table: ds date32, y float64, a row for every period from the first to the last, by its first day; empty
        if none of the relation can be used.
    warnings: sentences on periods that are implausible or missing. notes: on those left out as usual.
    left_out: how many of what is counted do not: those of periods that are not complete or are isolated.
    step: the fewest days from one row of the relation to the next.
    """

    declaration: ForecastDeclaration
    table: pa.Table
    warnings: Sequence[str] = ()
    notes: Sequence[str] = ()
    left_out: int = 0
    step: int = 1

    def not_empty(self) -> pa.Table:
        """Return the table. Raises HistoryError if it is empty, or if its rows are further apart."""
        relation, grain = self.declaration.relation, self.declaration.time_grain
        if self.step >= grain.too_far:
            raise HistoryError(
                f"{relation} has values {self.step} days apart or more: such a series is not forecast "
                f"as {grain.plural}. Declare their `grain`, or a relation with values by {grain.name}."
            )
        if not self.table.num_rows:
            noun = self.declaration.counted
            reason = (
                f"There is nothing to forecast from: {relation} has no {noun} of a {grain.name} that is over."
            )
            raise HistoryError(" ".join([reason, *self.warnings, *self.notes, f"Load {plural(noun)} first."]))
        return self.table

    def request(self, horizon: int) -> ForecastRequest:
        """Return the request to the worker.

        Raises:
            HistoryError: there is none.
            ForecastRefused: there is too little of it, or impossible values.
        """
        declaration = self.declaration
        request = ForecastRequest(
            self.not_empty(), horizon, declaration.country, declaration.method, declaration.grain
        )
        check_history(request.history, declaration.time_grain)
        return request


def read_history(declaration: ForecastDeclaration, warehouse: Warehouse, today: Today) -> History:
    """Return the history as of today.

    Raises:
        dg.Failure: there is no such relation.
        UnfinishedError: its tests failed, or did not all run.
    """
    beside = declaration.beside_relation(warehouse)
    if declaration.relation not in beside.tables():
        raise dg.Failure(
            f"There is no {declaration.relation} yet. First run `serverless run transform`, or launch the "
            "job `transform`.",
            allow_retries=False,
        )
    refuse_unfinished(beside, declaration.relation)
    return history_of(declaration, query_history(declaration, warehouse), today)


def query_history(
    declaration: ForecastDeclaration, warehouse: Warehouse, parts: Parts | None = None
) -> pa.Table:
    """Return the relation's sums by day: ds, y, and `events`, how many of what is counted they are of.

    In any order: to sort ten million rows takes longer than to sum them.

    parts: each of which to sum by itself, with its `id` and `name` as text.
    """
    # A column may have the name of a keyword, which is only a name after a dot.
    columns = f"cast(history.{declaration.date} as date) as ds"
    if parts:
        columns += f", cast(history.{parts.id} as string) as id, cast(history.{parts.name} as string) as name"
    numbers = "1, 2, 3" if parts else "1"
    events = f"sum(history.{declaration.count.column})" if declaration.count else "count(*)"
    # The total, its parts, their accuracy and the report are all made from the same sums.
    warehouse = declaration.beside_relation(warehouse)
    state = warehouse.read_state(declaration.relation)
    try:
        return warehouse.query(
            f"select {columns}, sum(history.{declaration.value}) as y, {events} as events"
            f" from {warehouse.quoted_name(declaration.relation)} as history"
            f" where history.{declaration.date} is not null group by {numbers}",
            version=json_digest(state) if state else "",
        )
    except WarehouseError:
        _refuse_missing_columns(declaration, warehouse)
        raise


def _refuse_missing_columns(declaration: ForecastDeclaration, warehouse: Warehouse) -> None:
    """Raise `HistoryError` if the relation does not have the columns that the forecast names."""
    relation = declaration.relation
    names = warehouse.query(f"select * from {warehouse.quoted_name(relation)} where false").column_names
    declared = {"date": declaration.date, "value": declaration.value}
    if declaration.count:
        declared["count.column"] = declaration.count.column
    if declaration.parts:
        declared |= {"parts.id": declaration.parts.id, "parts.name": declaration.parts.name}
    lower = [name.lower() for name in names]
    for attribute, column in declared.items():
        if column.lower() not in lower:
            raise HistoryError(
                f"The forecast {declaration.name} has the {attribute} {column!r} in its defs.yaml, which is "
                f"no column of {relation}. It has {', '.join(names)}."
            )


def read_history_until(declaration: ForecastDeclaration, warehouse: Warehouse, last_day: date) -> pa.Table:
    """Return the history (ds, y) of a forecast whose data ended on `last_day`.

    Raises:
        HistoryError: the relation no longer ends there.
    """
    history = read_history(declaration, warehouse, Today(last_day, last_day)).table
    grain = declaration.time_grain
    now_ends = grain.last_day(history["ds"][-1].as_py()) if history.num_rows else None
    if now_ends != last_day:
        raise HistoryError(
            f"The forecast was made from data up to {last_day}, and {declaration.relation} now ends on "
            f"{now_ends}: run the {declaration.name} job."
        )
    return history


def history_of(declaration: ForecastDeclaration, totals: pa.Table, today: Today) -> History:
    """Return the history in rows of ds, y and events, one row a day in any order.

    A period without a row is one in which nothing happened anywhere: its total is zero, not unknown. A first
    or last week or month is left out if the rows begin or end in its midst.
    """
    grain = declaration.time_grain
    rows = totals.sort_by("ds")["ds"].to_numpy().astype("datetime64[D]")
    totals = by_period(totals, grain)
    days = totals["ds"].to_numpy().astype("datetime64[D]")
    events = np.array(totals["events"].to_pylist(), float)
    left_out = partial(_left_out, declaration.counted, grain)
    future = days > np.datetime64(today.latest)
    running = (grain.starts(days, 1) - ONE_DAY > np.datetime64(today.last_complete)) & ~future
    over = ~(future | running)
    stray = np.zeros(len(days), bool)
    stray[over] = isolated(days[over], events[over], grain)
    rows = rows[np.isin(grain.starts(rows), days[over & ~stray])]
    partly = over & ~stray & known_in_part(rows, days, grain)
    used = over & ~stray & ~partly
    far = f"more than {GAP_DAYS} days from all others"
    warnings = [
        *left_out(days[future], events[future], "have not come yet", "has not come yet"),
        *left_out(days[stray], events[stray], f"are {far}", f"is {far}"),
    ]
    notes = [
        *left_out(days[partly], events[partly], "are known in part", "is known in part"),
        *left_out(days[running], events[running], "are not over yet", "is not over yet"),
    ]
    calendar, y = every_period(days[used], np.array(totals["y"].to_pylist(), float)[used], grain)
    table = pa.table({"ds": pa.array(calendar, pa.date32()), "y": y})
    if table.num_rows:
        last = grain.last_day(table["ds"][-1].as_py())
        late = (today.last_complete - last).days
        if late > grain.stale_days:
            warnings.append(
                f"The history ends on {last}, {late} days before the last complete day, "
                f"{today.last_complete}: load newer data."
            )
    # Two rows may be all that there is yet; from three on, a step of a week or more is the series' own.
    step = int(np.diff(rows).min() / ONE_DAY) if len(rows) > 2 else 1
    return History(declaration, table, warnings, notes, int(events[~used].sum()), step)


def _left_out(
    noun: str, grain: Grain, days: np.ndarray, events: np.ndarray, these: str, this: str
) -> Sequence[str]:
    """Return a sentence such as "1 order dated 2027-06-01 is left out: the day has not come yet."."""
    if not len(days):
        return ()
    count, first, last = int(events.sum()), days[0], grain.starts(days[-1:], 1)[0] - ONE_DAY
    when = f"{first}" if first == last else f"{first} to {last}"
    why = f"the {grain.name} {this}" if len(days) == 1 else f"these {grain.plural} {these}"
    return (f"{counted(count, noun)} dated {when} {'is' if count == 1 else 'are'} left out: {why}.",)
