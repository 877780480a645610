"""What is expected of raw tables: enough rows, plausible and recent times, the same columns."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime, time, timedelta
from statistics import median

from serverless_assets.ingestion.raw_table import EARLIEST, END_OF_TIME, FRESH, RawTable
from serverless_assets.ingestion.state import TableState
from serverless_assets.months import next_month
from serverless_assets.warehouse import Warehouse

VOLUME, SCHEMA, FRESHNESS, EVENT_TIME = "volume", "schema", "freshness", "event_time"

# Times are UTC by contract. A source that writes its local times all the same is ahead by less than a day.
AHEAD = timedelta(days=1)
# A week holds one of each weekday: fewer days of a month say little of all of it.
SHORTEST_PART = timedelta(days=7)
FEWEST_MONTHS, MOST_MONTHS = 3, 6
LEAST, MOST = 0.5, 2.0

DAY = timedelta(days=1)

Columns = Mapping[str, str]


@dataclass(frozen=True)
class CheckOutcome:
    """Whether a table is as expected, a sentence that says so, and the numbers behind it, to plot."""

    passed: bool
    text: str
    numbers: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Month:
    """The rows of a fact in one month up to a day from now: how many, and the times of the first and last.

    These times are known of the first and the last month at least. Rows of still later times are `later`, the
    last of them at `latest`.
    """

    start: datetime
    rows: int
    first: datetime | None
    last: datetime | None
    later: int = 0
    latest: datetime | None = None


def checks_of(table: RawTable) -> Mapping[str, str]:
    """Return what each kind of check of a table tests, as its description in Dagster."""
    enough_rows = "The table has rows, about as many as before its last load."
    checks = {
        VOLUME: enough_rows,
        SCHEMA: "The source serves the columns and types that it served for the last load.",
        FRESHNESS: f"The source has confirmed the rows within {table.fresh / DAY:g} days.",
    }
    if table.event_time:
        checks |= {
            VOLUME: f"{enough_rows} The latest month's rows per day are {LEAST:g} to {MOST:g} times the "
            f"median of the {FEWEST_MONTHS} to {MOST_MONTHS} months before.",
            FRESHNESS: f"The newest row is not older than {table.fresh / DAY:g} days.",
            EVENT_TIME: "No row is dated later than a day from now, or before the first month that is loaded "
            "by itself.",
        }
    return checks


def row_count(rows: int, loss: str) -> CheckOutcome:
    """Check that there are rows, and about as many as before the last load; `loss` says how many are gone."""
    numbers = {"rows": float(rows)}
    if rows == 0:
        return CheckOutcome(False, "The table has no rows.", numbers)
    return CheckOutcome(not loss, loss or f"{rows:,} rows.", numbers)


def event_times(months: Sequence[Month], first_month: date, now: datetime) -> CheckOutcome:
    """Check for rows of impossible times, or that no run over months loads; name the one farthest off."""
    later = sum(month.later for month in months)
    early = [month for month in months if month.start.date() < first_month and month.rows]
    earlier = sum(month.rows for month in early)
    warnings = []
    if later:
        latest = max(month.latest for month in months if month.latest)
        warnings.append(
            f"{later:,} rows are dated later than a day from {now:%Y-%m-%d %H:%M} UTC, such as "
            f"{latest:%Y-%m-%d %H:%M}: loaded, and left out of volume and freshness."
        )
    if earlier:
        earliest = min(month.first for month in early if month.first)
        warnings.append(
            f"{earlier:,} rows are dated before {first_month:%Y-%m}, such as {earliest:%Y-%m-%d %H:%M}: only "
            "a load of the whole history brings them. SERVERLESS_FIRST_MONTH is the first to load by itself."
        )
    sentence = " ".join(warnings) or "All rows are dated from the first month up to now."
    return CheckOutcome(not warnings, sentence, {"later_rows": float(later), "earlier_rows": float(earlier)})


def volume(months: Sequence[Month]) -> CheckOutcome:
    """Check the rows per day of the latest month against the months before it.

    Freshness reports a source that has gone silent: time after the last row does not count here.
    """
    rates = rows_per_day([month for month in months if month.rows])
    before = [rate for _, rate in rates[-MOST_MONTHS - 1 : -1]]
    if len(before) < FEWEST_MONTHS:
        return CheckOutcome(
            True, f"Too early to say: {len(before)} months to compare with, {FEWEST_MONTHS} needed."
        )
    (month, rate), usual = rates[-1], median(before)
    ratio = {"ratio": rate / usual} if usual else {}
    return CheckOutcome(
        LEAST * usual <= rate <= MOST * usual,
        f"{rate:,.1f} rows per day in {month:%Y-%m}; the median of the {len(before)} months before is "
        f"{usual:,.1f}.",
        {"rows_per_day": rate, "usual_rows_per_day": usual, **ratio, "months_compared": len(before)},
    )


def rows_per_day(months: Sequence[Month]) -> Sequence[tuple[datetime, float]]:
    """Return the average of each month in order, none left out; per day, as months differ in length.

    A month that has just begun, or in which the history begins, is one of the days that it has rows of. One
    of less than a week is left out.
    """
    if not months:
        return []
    rows = {month.start: month.rows for month in months}
    oldest = min(month.first for month in months if month.first)
    newest = max(month.last for month in months if month.last)
    starts = [min(rows)]
    while (following := _next(starts[-1])) <= newest:
        starts.append(following)
    if newest - starts[-1] < SHORTEST_PART:
        starts.pop()
    return [
        # A single row has no span: it counts as a day's.
        (start, rows.get(start, 0) / max((min(_next(start), newest) - max(start, oldest)) / DAY, 1.0))
        for start in starts
    ]


def schema_change(before: Columns | None, served: Columns) -> str:
    """Return new, gone and changed columns, in a sentence; empty if there are none."""
    if before is None:
        return ""
    new = [f"{name} ({kind}) is new" for name, kind in served.items() if name not in before]
    gone = [f"{name} ({kind}) is gone" for name, kind in before.items() if name not in served]
    changed = [
        f"{name} was {before[name]} and is {kind}"
        for name, kind in served.items()
        if name in before and before[name] != kind
    ]
    changes = "; ".join([*new, *gone, *changed])
    return f"The source serves other columns than for the last load: {changes}." if changes else ""


def freshness(newest: datetime | None, now: datetime, what: str, allowed: timedelta = FRESH) -> CheckOutcome:
    """Check the age of the newest row, or of the last confirmation of a snapshot; `what` begins the sentence.

    Both times are in UTC without saying so, as all of the warehouse's.
    """
    if newest is None:
        return CheckOutcome(False, f"{what}: nothing yet.")
    # The clock of the source may be ahead.
    age = max(now - newest, timedelta(0))
    return CheckOutcome(
        age <= allowed,
        f"{what}: {newest:%Y-%m-%d %H:%M} UTC, {_format_age(age)} ago; {_format_age(allowed)} are allowed "
        "(`freshness: warn_after:` of the source sets it).",
        {"age_hours": round(age / timedelta(hours=1), 2), "allowed_hours": allowed / timedelta(hours=1)},
    )


def months_of(table: RawTable, warehouse: Warehouse, now: datetime) -> list[Month]:
    """Return the months of a fact: as its state has them if that is sure, else by a query.

    The state is not sure if somebody changed the rows, or if some are dated later than a day from now.
    """
    state = TableState.from_json(warehouse.read_state(table.name))
    months = [
        Month(datetime.combine(day, time()), part.rows, None, None)
        for day, part in sorted((state.months or {}).items())
    ]
    if state.months is None or sum(month.rows for month in months) != warehouse.row_count(table.name):
        return count_months(table, warehouse, now)
    if months:
        if not (state.first and state.last) or datetime.fromisoformat(state.last) >= now + AHEAD:
            return count_months(table, warehouse, now)
        months[0] = replace(months[0], first=datetime.fromisoformat(state.first))
        # A single month is both the first and the last.
        months[-1] = replace(months[-1], last=datetime.fromisoformat(state.last))
    return months


def count_months(table: RawTable, warehouse: Warehouse, now: datetime) -> list[Month]:
    """Query the months of a fact, by its event time alone.

    A relation that was not written by this version may hold times that Python has not: they are left out.
    """
    at = table.event_time
    earliest, end, until = (
        f"timestamp '{bound:%Y-%m-%d %H:%M:%S}'" for bound in (EARLIEST, END_OF_TIME, now + AHEAD)
    )
    usable = f"case when {at} < {until} then {at} end"
    rows = warehouse.query(
        f"select extract(year from {at}) as year, extract(month from {at}) as month, count({usable}) as nr,"
        f" min({usable}) as first, max({usable}) as last,"
        f" count(*) - count({usable}) as later, max({at}) as latest"
        f" from {warehouse.quoted_name(table.name)} where {at} >= {earliest} and {at} < {end} group by 1, 2"
    )
    return [
        Month(
            datetime(row["year"], row["month"], 1),
            row["nr"],
            row["first"],
            row["last"],
            row["later"],
            row["latest"] if row["later"] else None,
        )
        for row in rows.to_pylist()
    ]


def _next(start: datetime) -> datetime:
    following = next_month(start.date())
    return datetime(following.year, following.month, 1)


def _format_age(age: timedelta) -> str:
    hours = age / timedelta(hours=1)
    return f"{hours:,.1f} hours" if hours < 48 else f"{hours / 24:,.1f} days"
