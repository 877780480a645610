"""What arrived, brought into the warehouse: loaded, or left as it is."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import Any

from serverless_assets.ingestion.arrivals import AuditedTable
from serverless_assets.ingestion.audit import Part
from serverless_assets.ingestion.catalog import RawTable, Window
from serverless_assets.ingestion.decide import LoadDecision, as_it_was, decide
from serverless_assets.ingestion.prepare import Failed, Unchanged
from serverless_assets.ingestion.state import TableState
from serverless_assets.warehouse import JobStats, Warehouse, WarehouseError

Note = Mapping[str, Any]


@dataclass(frozen=True)
class LoadResult:
    """A table that is in the warehouse as the source has it, and what that took.

    rows: how many the table has, and `rows_before` how many it had before it was loaded; None if it was not.
    size: bytes downloaded.
    window: what of a fact was loaded or found unchanged; None is all of it.
    months: of a fact that was downloaded, what each holds.
    served: the columns and types of the source's own file; None if it was not downloaded.
    """

    table: RawTable
    decision: LoadDecision
    built_by: str
    rows: int
    size: int
    seconds: float
    url: str
    window: Window | None = None
    rows_before: int | None = None
    months: Mapping[date, Part] = field(default_factory=dict)
    work: JobStats = field(default_factory=JobStats)
    served: Mapping[str, str] | None = None


def load_table(
    warehouse: Warehouse,
    found: AuditedTable | Unchanged | Failed,
    note: Note | None,
    run_id: str,
    force: bool = False,
) -> LoadResult | Failed:
    """Load the table if its rows changed; keep with it what it then holds.

    note: the relation's before anything was asked; None if there was no relation.
    """
    if isinstance(found, Failed):
        return found
    held = None if note is None else TableState.from_note(note)
    try:
        if isinstance(found, AuditedTable):
            return _bring_in(warehouse, found, note or {}, held, run_id, force)
        assert held is not None
        decision = as_it_was(found.table, held, found.window, found.source)
        _keep(warehouse, found.table, note or {}, decision)
        rows = warehouse.row_count(found.table.name)
    except WarehouseError as error:
        return Failed(found.table, str(error))
    answer = found.answer
    return LoadResult(found.table, decision, held.built_by, rows, 0, answer.seconds, answer.url, found.window)


def _bring_in(
    warehouse: Warehouse, found: AuditedTable, note: Note, held: TableState | None, run_id: str, force: bool
) -> LoadResult:
    table, content, download, window = found.table, found.content, found.download, found.window
    decision = decide(table, held, window, content, found.key, found.known, found.source, run_id, force)
    work, before = JobStats(), None
    if decision.load:
        before = None if held is None else warehouse.row_count(table.name)
        work = _load(warehouse, found, note, window, decision.holding or TableState())
    else:
        _keep(warehouse, table, note, decision)
    return LoadResult(
        table,
        decision,
        run_id if decision.load or held is None else held.built_by,
        warehouse.row_count(table.name) if window else content.rows,
        download.bytes,
        download.seconds,
        download.url,
        window,
        before,
        content.months,
        work,
        found.served,
    )


def _keep(warehouse: Warehouse, table: RawTable, note: Note, decision: LoadDecision) -> None:
    """Keep what is newly known of a relation that stays, unless it was replaced in the meantime."""
    if decision.holding and warehouse.read_state(table.name) == note:
        warehouse.write_states({table.name: decision.holding.as_note()})


def _load(
    warehouse: Warehouse, found: AuditedTable, note: Note, window: Window | None, holding: TableState
) -> JobStats:
    shape = found.table.shape
    if window is None:
        return warehouse.replace(shape, found.path, holding.as_note())
    # The months beside the window are those of the note only if the relation is still the same.
    kept = holding.as_note() if warehouse.read_state(shape.name) == note else {}
    return warehouse.replace_between(shape, found.path, window.start, window.end, kept)
