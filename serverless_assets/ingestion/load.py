"""Fetch raw tables, decide of each whether it is loaded or left as it is, and do so."""

from collections.abc import Collection, Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path
from typing import Literal

from modal_forecast.report.formats import counted
from serverless_assets.ingestion.audit import within
from serverless_assets.ingestion.fetch import fetch_tables
from serverless_assets.ingestion.fetch_result import AuditedTable, Failed, Missing, Unchanged
from serverless_assets.ingestion.http_client import Log
from serverless_assets.ingestion.raw_table import RawTable
from serverless_assets.ingestion.source import HttpSource, Source
from serverless_assets.ingestion.state import (
    HASHED_BY,
    Part,
    TableState,
    definition_of,
    reason_to_load,
    responses_to_keep,
)
from serverless_assets.months import Window, name_months
from serverless_assets.names import FORCED, NAMES_IN_A_LINE, name_some
from serverless_assets.warehouse import JobStats, Warehouse, WarehouseError

NOT_LOADED_YET = "not loaded yet, and ingestion: reuse"

Write = Literal["upsert", "replace"]


@dataclass(frozen=True)
class LoadDecision:
    """What becomes of a table, and why.

    write: whether rows take the place of those with their keys, or of all those of the months `replaced`,
        where None means all months; None reuses the table as it is.
    version: of the rows that were requested, before and after alike.
    state: what to keep beside the table, along with the rows if it is loaded; None to leave what is kept.
    months: first days of those whose rows change, removed ones among them; for a fact.
    """

    write: Write | None
    reason: str
    version: str
    state: TableState | None
    months: Sequence[date] = ()
    replaced: Window | None = None

    @property
    def load(self) -> bool:
        return self.write is not None


@dataclass(frozen=True)
class LoadResult:
    """A table that is in the warehouse as the source has it, and what that took.

    fetched: what was downloaded, or that the source had nothing new.
    rows: how many the table has, and `rows_before` how many it had before it was loaded; None if it was not.
    """

    fetched: AuditedTable | Unchanged
    decision: LoadDecision
    built_by: str
    rows: int
    rows_before: int | None = None
    work: JobStats = field(default_factory=JobStats)

    @property
    def audited(self) -> AuditedTable | None:
        return self.fetched if isinstance(self.fetched, AuditedTable) else None

    @property
    def months(self) -> Mapping[date, Part]:
        """What each month of a fact holds that was downloaded."""
        return self.audited.content.months if self.audited else {}


def load_tables(
    tables: Sequence[RawTable],
    source: HttpSource,
    warehouse: Warehouse,
    window: Window | None,
    scratch: Path,
    log: Log,
    states: Mapping[str, TableState],
    run_id: str,
    force: bool = False,
) -> Generator[LoadResult | Failed, None, None]:
    """Load what changed at the source of `tables` since it was last loaded; everything by `force`.

    The arguments are those of `fetch_tables`.
    """
    # An interrupted run ends its downloads before the folder is removed that they write to.
    with closing(fetch_tables(tables, source, warehouse, window, scratch, log, states, force)) as results:
        for fetched in results:
            if isinstance(fetched, Failed):
                yield fetched
            else:
                yield _load(warehouse, fetched, run_id, force)


def _load(
    warehouse: Warehouse, fetched: AuditedTable | Unchanged, run_id: str, force: bool
) -> LoadResult | Failed:
    """Load the table if its rows changed, and keep the state that it is then in."""
    decision = decide_load(fetched, run_id, force)
    table, window, state = fetched.table, fetched.scope.window, fetched.scope.state
    work, rows_before = JobStats(), None
    kept = decision.state.as_json() if decision.state else {}
    replaced = decision.replaced
    keeps_rows = decision.write != "replace" or replaced is not None
    try:
        before = state or TableState()
        if kept and keeps_rows and TableState.from_json(warehouse.read_state(table.name)) != before:
            # Somebody has replaced the rows in the meantime, and those that stay are not those of `state`:
            # all are replaced if all were fetched, else it is unknown what the table holds.
            if replaced and window is None:
                replaced = None
            else:
                kept = {}
        if isinstance(fetched, AuditedTable) and decision.load:
            rows_before = None if state is None else warehouse.row_count(table.name)
            if decision.write == "upsert":
                work = warehouse.upsert_rows(table.shape, fetched.rows, kept, decision.months)
            else:
                rows_to_load = within(fetched.rows, table, replaced) if replaced else fetched.rows
                days = (replaced.start, replaced.end) if replaced else None
                work = warehouse.replace_rows(table.shape, rows_to_load, kept, days)
        elif kept:
            warehouse.write_states({table.name: kept})
        if isinstance(fetched, AuditedTable) and window is None:
            rows = fetched.content.rows
        else:
            rows = warehouse.row_count(table.name)
    except WarehouseError as error:
        return Failed(table, str(error))
    built_by = run_id if decision.load or state is None else state.built_by
    return LoadResult(fetched, decision, built_by, rows, rows_before, work)


def decide_reuse(tables: Sequence[RawTable], loaded: Collection[str], source: Source) -> Sequence[Failed]:
    """Return the tables that a run cannot reuse, as they are not `loaded`.

    It leaves out what reads optional ones, and fails for others and where there is no table at all.
    """
    absent = [table for table in tables if table.name not in loaded]
    if len(absent) == len(tables):
        return [Failed(table, NOT_LOADED_YET) for table in absent]
    return [
        Missing(table, NOT_LOADED_YET, True)
        if table.optional or source.lacks(table)
        else Failed(table, NOT_LOADED_YET)
        for table in absent
    ]


def decide_load(fetched: AuditedTable | Unchanged, run_id: str, force: bool = False) -> LoadDecision:
    """Return what to do with a fetched table."""
    table, source, state = fetched.table, fetched.scope.source, fetched.scope.state
    window = fetched.scope.window if table.event_time else None
    before = state or TableState()
    if isinstance(fetched, Unchanged):
        kept = None if before.source == source else replace(before, source=source)
        return LoadDecision(
            None, "unchanged at the source: not downloaded", before.within(table, window), kept
        )
    content, key, response = fetched.content, fetched.key, fetched.response
    loaded = TableState(
        content.hash,
        content.months if table.event_time else None,
        run_id,
        definition_of(table),
        responses_to_keep({key: response}),
        source,
        cursor=before.cursor if window else fetched.cursor,
        first=content.first,
        last=content.last,
    )
    # A window leaves a table laid out as it is, whatever the catalogue now says.
    as_defined = window is not None or before.definition == loaded.definition
    if before.within(table, window) == content.hash and as_defined and not force:
        renewed = replace(
            before.with_response(key, response), source=source, hashed_by=HASHED_BY, cursor=loaded.cursor
        )
        if window and not content.rows:
            # Months that the source does not have are nothing to keep, nor to publish.
            return LoadDecision(
                None, f"empty: the source has no rows of {name_months(window.months())}", content.hash, None
            )
        kept = None if renewed == before else renewed
        return LoadDecision(None, "unchanged content: not loaded", content.hash, kept)
    months_before = before.months or {}
    changed = [
        month
        for month in sorted(months_before.keys() | content.months.keys())
        if months_before.get(month) != content.months.get(month) and (window is None or month in window)
    ]
    cause = reason_to_load(table, state, window)
    reason = FORCED if force else f"loaded from the source: {cause or name_months(changed) or 'new content'}"
    kept = state.with_months(table, window, loaded) if state and window else loaded
    replaced, is_whole = window, window is None and not fetched.scope.since
    if is_whole and changed and table.has_months and not (force or cause):
        # Of a file of all months, such as one that grew by a day, those are loaded that differ. It is cheaper
        # to replace all rows than most of them.
        differing = Window.of_months(changed[0], changed[-1])
        rows = sum(part.rows for month, part in content.months.items() if month in differing)
        replaced = differing if rows * 2 <= content.rows else None
    write: Write = "upsert" if fetched.scope.since else "replace"
    return LoadDecision(write, reason, content.hash, kept, changed, replaced)


def loads_text(results: Sequence[LoadResult]) -> str:
    """Return which tables were loaded, with their rows, and how many were left as they are, in a sentence."""
    loaded = [
        f"{result.fetched.table.name} ({counted(result.rows, 'row')})"
        for result in results
        if result.decision.load
    ]
    unchanged = len(results) - len(loaded)
    kept = f"{counted(unchanged, 'table')} unchanged at the source."
    if not loaded:
        return f"Nothing loaded, {kept}"
    return f"Loaded {name_some(loaded, NAMES_IN_A_LINE)}" + (f"; {kept}" if unchanged else ".")
