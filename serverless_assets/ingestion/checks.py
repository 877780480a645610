"""The Dagster checks of raw tables: enough rows, plausible times, recent, the same columns.

A file that breaks the contract was refused before it was loaded. What differs from an expectation may be
wrong or just unusual, such as a sale or a holiday: it warns, and stops nothing.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from statistics import median
from typing import Any

import dagster as dg

from serverless_assets.asset_keys import asset_key, asset_name
from serverless_assets.ingestion.content import Part
from serverless_assets.ingestion.raw_table import EARLIEST, END_OF_TIME, RawTable
from serverless_assets.ingestion.state import HASHED_BY, TableState
from serverless_assets.metadata import latest_materialization
from serverless_assets.months import next_month
from serverless_assets.warehouse import Warehouse, WarehouseError

VOLUME, SCHEMA, FRESHNESS, EVENT_TIME = "volume", "schema", "freshness", "event_time"

FRESH = timedelta(days=3)
# Times are UTC by contract. A source that writes its local times all the same is ahead by less than a day.
AHEAD = timedelta(days=1)
# A week holds one of each weekday: fewer days of a month say little of all of it.
SHORTEST_PART = timedelta(days=7)
FEWEST_MONTHS, MOST_MONTHS = 3, 6
LEAST, MOST = 0.5, 2.0

DAY = timedelta(days=1)

Columns = Mapping[str, str]

# Metadata keys of what the source served.
COLUMNS, CHANGE, CONFIRMED = "source_schema", "source_schema_change", "source_confirmed_at"
ROW_LOSS, NOT_LOADED = "row_loss", "columns_not_loaded"


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
        FRESHNESS: f"The source has confirmed the rows within {FRESH // DAY} days.",
    }
    if table.event_time:
        checks |= {
            VOLUME: f"{enough_rows} The latest month's rows per day are {LEAST:g} to {MOST:g} times the "
            f"median of the {FEWEST_MONTHS} to {MOST_MONTHS} months before.",
            FRESHNESS: f"The newest row is not older than {FRESH // DAY} days.",
            EVENT_TIME: "No row is dated later than a day from now, or before the first month that is loaded "
            "by itself.",
        }
    return checks


def check_specs(tables: Iterable[RawTable]) -> list[dg.AssetCheckSpec]:
    """Return the checks beside each table, each named for the table and the kind."""
    return [
        dg.AssetCheckSpec(f"{table.name}_{kind}", asset=asset_key(table.name), description=description)
        for table in tables
        for kind, description in checks_of(table).items()
    ]


@dataclass(frozen=True)
class SourceObservation:
    """What the source served for a table, as kept in the metadata of the table's materializations.

    columns: columns and types of the last file; None if unknown.
    change: what was new of them, empty if nothing.
    confirmed_at: when the source last confirmed that the table is as it has it, in UTC without a zone.
    row_loss: the warning about rows that the last load removed, empty if there is none.
    """

    columns: Columns | None = None
    change: str = ""
    confirmed_at: datetime | None = None
    row_loss: str = ""

    @classmethod
    def in_metadata(cls, metadata: Mapping[str, dg.MetadataValue]) -> "SourceObservation":
        """Return the observation in a materialization's metadata; an empty one if it has none."""
        columns, change, confirmed, loss = map(metadata.get, (COLUMNS, CHANGE, CONFIRMED, ROW_LOSS))
        return cls(
            {column.name: column.type for column in columns.value.columns}
            if isinstance(columns, dg.TableSchemaMetadataValue)
            else None,
            str(change.value) if change else "",
            datetime.fromtimestamp(float(confirmed.value), UTC).replace(tzinfo=None)
            if isinstance(confirmed, dg.TimestampMetadataValue)
            else None,
            str(loss.value) if loss else "",
        )

    def updated(
        self, served: Columns | None, now: datetime, row_loss: str | None = None
    ) -> "SourceObservation":
        """Return the observation after a response; `served` is None if the table did not change.

        row_loss: of the load that followed; None if there was none.
        """
        loss = self.row_loss if row_loss is None else row_loss
        if served is None:
            return replace(self, confirmed_at=now, row_loss=loss)
        return SourceObservation(served, schema_change(self.columns, served), now, loss)

    def not_loaded(self, table: RawTable) -> str:
        """Return the columns of the last file that the catalogue does not have, with their types."""
        columns = self.columns or {}
        return ", ".join(f"{name} ({kind})" for name, kind in columns.items() if name not in table.columns)

    def as_metadata(self, table: RawTable) -> dict[str, Any]:
        metadata: dict[str, Any] = {CHANGE: self.change, ROW_LOSS: self.row_loss}
        metadata[NOT_LOADED] = self.not_loaded(table)
        if self.columns is not None:
            metadata[COLUMNS] = dg.TableSchema([dg.TableColumn(*column) for column in self.columns.items()])
        if self.confirmed_at is not None:
            metadata[CONFIRMED] = dg.MetadataValue.timestamp(self.confirmed_at.replace(tzinfo=UTC))
        return {name: value for name, value in metadata.items() if value != ""}


@dataclass(frozen=True)
class CheckRunner:
    """Runs the checks that a run selected, at the time `now`, in UTC without a zone.

    `first_month` is the first that runs over months load. The months of a table are asked for once.
    """

    context: dg.AssetExecutionContext
    warehouse: Warehouse
    first_month: date
    now: datetime = field(default_factory=lambda: datetime.now(UTC).replace(tzinfo=None))
    _months: dict[str, list[Month]] = field(default_factory=dict)

    def last_observation(self, table: RawTable) -> SourceObservation:
        """Return what the source served when the table was last materialized."""
        materialization = latest_materialization(self.context.instance, asset_key(table.name))
        return SourceObservation.in_metadata(materialization.metadata if materialization else {})

    def results(self, table: RawTable, observation: SourceObservation) -> list[dg.AssetCheckResult]:
        """Return the results of the table's selected checks: they warn, and never fail a run."""
        selected = {key.name for key in self.context.selected_asset_check_keys}
        kinds = {f"{table.name}_{kind}": kind for kind in checks_of(table)}
        kinds = {name: kind for name, kind in kinds.items() if name in selected}
        try:
            outcomes = {name: self._run(table, kind, observation) for name, kind in kinds.items()}
        except WarehouseError as error:
            outcomes = dict.fromkeys(kinds, CheckOutcome(False, f"The table could not be looked at. {error}"))
        return [
            dg.AssetCheckResult(
                passed=outcome.passed,
                asset_key=asset_key(table.name),
                check_name=name,
                severity=dg.AssetCheckSeverity.WARN,
                description=outcome.text,
                metadata=dict(outcome.numbers),
            )
            for name, outcome in outcomes.items()
        ]

    def without_loading(self, tables: Iterable[RawTable]) -> Iterator[dg.AssetCheckResult]:
        """Run the selected checks of tables that the run does not load."""
        selected = {asset_name(key.asset_key) for key in self.context.selected_asset_check_keys}
        for table in tables:
            if table.name in selected:
                yield from self.results(table, self.last_observation(table))

    def months(self, table: RawTable) -> list[Month]:
        """Return the months of a fact: as its state has them if that is sure, else by a query."""
        if table.name not in self._months:
            state = TableState.from_json(self.warehouse.read_state(table.name))
            months = months_in(state, self.warehouse.row_count(table.name), self.now)
            if months is None:
                query = months_query(table, self.warehouse.quoted_name(table.name), self.now)
                months = months_of(self.warehouse.query(query).to_pylist())
            self._months[table.name] = list(months)
        return self._months[table.name]

    def _run(self, table: RawTable, kind: str, observation: SourceObservation) -> CheckOutcome:
        if kind == SCHEMA:
            unchanged = "The source serves the columns and types that it served before."
            return CheckOutcome(not observation.change, observation.change or unchanged)
        if kind == EVENT_TIME:
            return event_times(self.months(table), self.first_month, self.now)
        if kind == VOLUME:
            outcome = row_count(self.warehouse.row_count(table.name), observation.row_loss)
            return volume(self.months(table)) if outcome.passed and table.event_time else outcome
        if table.event_time:
            newest = max((month.last for month in self.months(table) if month.last), default=None)
            return freshness(newest, self.now, "Newest row")
        return freshness(observation.confirmed_at, self.now, "Last confirmed by the source")


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

    That a source has gone silent is for the freshness to tell: no time counts after the last row.
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


def freshness(newest: datetime | None, now: datetime, what: str) -> CheckOutcome:
    """Check the age of the newest row, or of the last confirmation of a snapshot; `what` begins the sentence.

    Both times are in UTC without saying so, as all of the warehouse's.
    """
    if newest is None:
        return CheckOutcome(False, f"{what}: nothing yet.")
    # The clock of the source may be ahead.
    age = max(now - newest, timedelta(0))
    return CheckOutcome(
        age <= FRESH,
        f"{what}: {newest:%Y-%m-%d %H:%M} UTC, {_format_age(age)} ago; {_format_age(FRESH)} are allowed.",
        {"age_hours": round(age / timedelta(hours=1), 2), "allowed_hours": FRESH / timedelta(hours=1)},
    )


def months_in(state: TableState, rows: int, now: datetime) -> Sequence[Month] | None:
    """Return the months of a fact that has so many rows, as its state has them; None if they may be others.

    They may be if somebody changed the rows, and are if some are dated later than a day from now.
    """
    if state.months is None or state.hashed_by != HASHED_BY:
        return None
    months = [
        Month(datetime.fromisoformat(day), Part.sum_in(hash)[0], None, None)
        for day, hash in sorted(state.months.items())
    ]
    is_known = bool(state.first and state.last) or not months
    if not is_known or sum(month.rows for month in months) != rows:
        return None
    if months:
        first, last = (datetime.fromisoformat(time) for time in (state.first, state.last))
        if last >= now + AHEAD:
            return None
        months[0] = replace(months[0], first=first)
        # Which is the same one if there is just one.
        months[-1] = replace(months[-1], last=last)
    return months


def months_of(rows: Iterable[Mapping[str, Any]]) -> list[Month]:
    """Return the months in the result of `months_query`."""
    months = []
    for row in rows:
        start, latest = datetime(row["year"], row["month"], 1), row["latest"] if row["later"] else None
        months.append(Month(start, row["nr"], row["first"], row["last"], row["later"], latest))
    return months


def months_query(table: RawTable, relation: str, now: datetime) -> str:
    """Return a query for the rows of each month; it reads the event time alone.

    A relation that was not written by this version may hold times that Python has not: they are left out.
    """
    at = table.event_time
    earliest, end, until = (
        f"timestamp '{time:%Y-%m-%d %H:%M:%S}'" for time in (EARLIEST, END_OF_TIME, now + AHEAD)
    )
    usable = f"case when {at} < {until} then {at} end"
    return (
        f"select extract(year from {at}) as year, extract(month from {at}) as month, count({usable}) as nr,"
        f" min({usable}) as first, max({usable}) as last,"
        f" count(*) - count({usable}) as later, max({at}) as latest"
        f" from {relation} where {at} >= {earliest} and {at} < {end} group by 1, 2"
    )


def _next(start: datetime) -> datetime:
    following = next_month(start.date())
    return datetime(following.year, following.month, 1)


def _format_age(age: timedelta) -> str:
    hours = age / timedelta(hours=1)
    return f"{hours:,.1f} hours" if hours < 48 else f"{hours / 24:,.1f} days"
