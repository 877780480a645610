"""What is asked of a raw table once it is in: as much as usual, recent, its source as it was? Pure.

What breaks the contract was refused before it was loaded. What is found here may be wrong or just unusual,
a sale or a holiday, say: it warns, and stops nothing.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from statistics import median
from typing import Any

from serverless_assets.ingestion.tables import Table
from serverless_assets.ingestion.window import next_month

VOLUME, SCHEMA, FRESHNESS = "volume", "schema", "freshness"

FRESH = timedelta(days=3)
# A week holds one of each weekday: fewer days of a month say little of all of it.
SHORTEST_PART = timedelta(days=7)
FEWEST_MONTHS, MOST_MONTHS = 3, 6
LEAST, MOST = 0.5, 2.0

DAY = timedelta(days=1)

Columns = Mapping[str, str]


@dataclass(frozen=True)
class Finding:
    """Whether all is as expected, what there is to say of it, and the numbers behind that, to plot."""

    passed: bool
    words: str
    numbers: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Month:
    """The rows of a fact in one month: how many, and the times of the first and the last."""

    start: datetime
    rows: int
    first: datetime
    last: datetime


def checks_of(table: Table) -> Mapping[str, str]:
    """The checks of a table: the kind of each by its name, which begins with the table's."""
    kinds = (VOLUME, SCHEMA, FRESHNESS) if table.event_time else (SCHEMA, FRESHNESS)
    return {f"{table.name}_{kind}": kind for kind in kinds}


def described(table: Table, kind: str) -> str:
    """What a check of this kind looks at, for people."""
    days = FRESH // DAY
    if kind == VOLUME:
        return (
            f"The latest month's rows per day are {LEAST:g} to {MOST:g} times the median of the "
            f"{FEWEST_MONTHS} to {MOST_MONTHS} months before."
        )
    if kind == SCHEMA:
        return "The source serves the columns and types that it served for the last load."
    if table.event_time:
        return f"The newest row is not older than {days} days."
    return f"The source has confirmed the rows within {days} days."


def volume(months: Sequence[Month]) -> Finding:
    """Rows per day of the latest month against the months before it.

    That a source has gone silent is for the freshness to tell: no time counts after the last row.
    """
    rates = rows_per_day(months)
    before = [rate for _, rate in rates[-MOST_MONTHS - 1 : -1]]
    if len(before) < FEWEST_MONTHS:
        return Finding(
            True, f"Too early to say: {len(before)} months to compare with, {FEWEST_MONTHS} needed."
        )
    (month, rate), usual = rates[-1], median(before)
    ratio = {"ratio": rate / usual} if usual else {}
    return Finding(
        LEAST * usual <= rate <= MOST * usual,
        f"{rate:,.1f} rows per day in {month:%Y-%m}; the median of the {len(before)} months before is "
        f"{usual:,.1f}.",
        {"rows_per_day": rate, "usual_rows_per_day": usual, **ratio, "months_compared": len(before)},
    )


def rows_per_day(months: Sequence[Month]) -> Sequence[tuple[datetime, float]]:
    """The average of each month in order, none left out; per day, as months differ in length.

    A month that has just begun, or in which the history begins, is one of the days that it has rows of. One
    of less than a week is left out.
    """
    if not months:
        return []
    rows = {month.start: month.rows for month in months}
    oldest, newest = min(month.first for month in months), max(month.last for month in months)
    starts = [min(rows)]
    while (following := _next(starts[-1])) <= newest:
        starts.append(following)
    if newest - starts[-1] < SHORTEST_PART:
        starts.pop()
    return [
        (start, rows.get(start, 0) / _days(max(start, oldest), min(_next(start), newest))) for start in starts
    ]


def schema(change: str | None) -> Finding:
    """What differs between what the source served and what it served for the load before."""
    return Finding(not change, change or "The source serves the columns and types that it served before.")


def schema_change(before: Columns | None, served: Columns) -> str:
    """New, gone and changed columns, in a sentence; empty if there are none, or nothing to compare with."""
    if before is None:
        return ""
    new = [f"{name} ({kind}) is new" for name, kind in served.items() if name not in before]
    gone = [f"{name} ({kind}) is gone" for name, kind in before.items() if name not in served]
    changed = [
        f"{name} was {before[name]} and is {kind}"
        for name, kind in served.items()
        if name in before and before[name] != kind
    ]
    told = "; ".join([*new, *gone, *changed])
    return f"The source serves other columns than for the last load: {told}." if told else ""


def freshness(newest: datetime | None, now: datetime, what: str) -> Finding:
    """The age of the newest row, or of the source's last word on a snapshot; `what` begins the sentence.

    Both times are in UTC without saying so, as all of the warehouse's.
    """
    if newest is None:
        return Finding(False, f"{what}: nothing yet.")
    age = now - newest
    return Finding(
        age <= FRESH,
        f"{what}: {newest:%Y-%m-%d %H:%M} UTC, {_in_words(age)} ago; {_in_words(FRESH)} are allowed.",
        {"age_hours": round(age / timedelta(hours=1), 2), "allowed_hours": FRESH / timedelta(hours=1)},
    )


def months_of(rows: Iterable[Mapping[str, Any]]) -> Sequence[Month]:
    """The months in the answer to `months_query`."""
    return [
        Month(datetime(row["year"], row["month"], 1), row["nr"], row["first"], row["last"]) for row in rows
    ]


def months_query(table: Table, relation: str) -> str:
    """A query for the rows of each month; it reads the event time alone."""
    at = table.event_time
    return (
        f"select extract(year from {at}) as year, extract(month from {at}) as month, count(*) as nr,"
        f" min({at}) as first, max({at}) as last from {relation} group by 1, 2"
    )


def _next(start: datetime) -> datetime:
    following = next_month(start.date())
    return datetime(following.year, following.month, 1)


def _days(start: datetime, end: datetime) -> float:
    # A single row has no span: it counts as a day's.
    return max((end - start) / DAY, 1.0)


def _in_words(age: timedelta) -> str:
    hours = age / timedelta(hours=1)
    return f"{hours:,.1f} hours" if hours < 48 else f"{hours / 24:,.1f} days"
