"""From the source to audited files on disk: what changed of all tables downloads at the same time."""

from collections.abc import Generator, Mapping, Sequence
from concurrent.futures import wait
from dataclasses import dataclass, field
from pathlib import Path

from serverless_assets.ingestion.arrivals import Arrivals, AuditedTable
from serverless_assets.ingestion.catalog import RawTable, Window
from serverless_assets.ingestion.contract import ContractError
from serverless_assets.ingestion.decide import named, window_to_load
from serverless_assets.ingestion.download import Log, NotModified, SourceError, TableSource
from serverless_assets.ingestion.row_loss import refuse_row_loss
from serverless_assets.ingestion.state import TableState
from serverless_assets.warehouse import Warehouse, WarehouseError

# A thread that waits for the source stops at once; one may be converting a large file.
SECONDS_TO_STOP = 5.0


@dataclass(frozen=True)
class Unchanged:
    """A table whose relation holds what the source would answer over `window`, by the source's own word.

    `source` identifies the source.
    """

    table: RawTable
    answer: NotModified
    source: str
    window: Window | None = None


@dataclass(frozen=True)
class Failed:
    """A table that cannot be loaded, and why in a sentence."""

    table: RawTable
    reason: str


Outcome = AuditedTable | Unchanged | Failed


def prepare(
    tables: Sequence[RawTable],
    source: TableSource,
    warehouse: Warehouse,
    window: Window | None,
    scratch: Path,
    log: Log,
    held: Mapping[str, TableState] | None = None,
    force: bool = False,
) -> Generator[Outcome, None, None]:
    """Fetch and audit `tables`, each by itself: one that fails stops only those that it dates.

    Facts are cut to `window` if there is one, or to more where that alone would leave the table wrong, see
    `Preparation`; snapshots are always whole. A fact that is dated by its parent has the parent asked for
    too, whether or not the parent is among `tables`: what either of them answers may change it.

    held: what each relation holds; what the source says is the same is not downloaded, unless by `force`.
    force: also take rows that are far fewer than before.
    """
    held = held or {}
    needed = list(dict.fromkeys([*tables, *(table.dated_by.parent for table in tables if table.dated_by)]))
    arrivals = Arrivals(source, window, scratch, log, {} if force else held)
    preparation = Preparation(tables, warehouse, arrivals, held, force)
    try:
        for table in needed:
            preparation.arrivals_of(table).ask([table])
        for table in tables:
            yield preparation.outcome(table)
    finally:
        source.cancelled.set()
        # They write into `scratch`, which may be removed next.
        wait(arrivals.threads(), SECONDS_TO_STOP)


@dataclass
class Preparation:
    """What becomes of each of `tables`, given what the relations in the warehouse hold."""

    tables: Sequence[RawTable]
    warehouse: Warehouse
    arrivals: Arrivals
    held: Mapping[str, TableState]
    force: bool
    outcomes: dict[RawTable, Outcome] = field(default_factory=dict)

    def outcome(self, table: RawTable) -> Outcome:
        if table not in self.outcomes:
            self.outcomes[table] = self._outcome(table)
        return self.outcomes[table]

    def arrivals_of(self, table: RawTable) -> Arrivals:
        """The answers over what is to be loaded of the table."""
        held, source = self.held.get(table.name), self.arrivals.source.key
        asked = self.arrivals.window if table.event_time else None
        window = window_to_load(table, held, source, asked)
        return self.arrivals if window == asked else self.arrivals.over(window)

    def _outcome(self, table: RawTable) -> Outcome:
        parent = table.dated_by.parent if table.dated_by else None
        if parent in self.tables:
            assert parent is not None
            of_parent = self.outcome(parent)
            if isinstance(of_parent, Failed):
                return Failed(table, of_parent.reason)
        arrivals = self.arrivals_of(table)
        try:
            answer = arrivals.answer(table)
            if isinstance(answer, NotModified) and arrivals.is_current(table):
                children = [
                    child for child in self.tables if child.dated_by and child.dated_by.parent == table
                ]
                alongside = [child for child in children if self.arrivals_of(child) is arrivals]
                if not any(arrivals.has_arrived_anew(child) for child in alongside):
                    window = arrivals.window if table.event_time else None
                    return Unchanged(table, answer, arrivals.source.key, window)
            prepared = self._without_repeated_keys(arrivals.prepared(table))
            if not self.force:
                refuse_row_loss(self.warehouse, prepared, self.held.get(table.name))
            return prepared
        except (SourceError, ContractError, WarehouseError) as error:
            return Failed(table, str(error))

    def _without_repeated_keys(self, prepared: AuditedTable) -> AuditedTable:
        """The rows over as many months as it takes for no key to be in the table twice.

        A row that the source has moved to a month of the window is still in the month that it was in: that
        month is loaded too, with those in between.
        """
        table, held = prepared.table, self.held.get(prepared.table.name)
        if held is None or prepared.window is None:
            return prepared
        window, windows = prepared.window, 0
        while held.within(table, window) != prepared.content.hash:
            shape, path = table.shape, prepared.path
            months = self.warehouse.months_with_keys(shape, table.key, path, window.start, window.end)
            if not months:
                break
            windows += 1
            self.arrivals.log(f"{table.name}: rows have moved here from {named(months)}: loaded too.")
            wider = Window.of_months(min(*months, window.start), max(*months, *window.months()))
            # Should still other months turn out to be concerned, all are loaded.
            prepared = self.arrivals.over(wider if windows == 1 else None).prepared(table)
            if prepared.window is None:
                break
            window = prepared.window
        return prepared
