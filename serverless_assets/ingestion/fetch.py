"""Fetch what changed of the raw tables, and stage and audit it: sixteen tables at the same time.

A table is requested conditionally, by the validators of the responses that it was loaded from. Its file is
then read once into a staged table: in the types of the contract, dated by its parent. The audit follows.
"""

from collections import deque
from collections.abc import Callable, Generator, Hashable, Mapping, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import RLock
from types import MappingProxyType
from typing import Any, TypeVar

import duckdb

from serverless_assets.ingestion import audit
from serverless_assets.ingestion.content import changes, content_of, latest_versions
from serverless_assets.ingestion.contract import ContractError
from serverless_assets.ingestion.fetch_result import (
    AuditedTable,
    Download,
    Failed,
    FetchResult,
    Missing,
    NotModified,
    Scope,
    Unchanged,
)
from serverless_assets.ingestion.http import NO_VALIDATORS, Validators
from serverless_assets.ingestion.http_client import Log, MissingPage, MissingTable, SourceError
from serverless_assets.ingestion.raw_table import RawTable
from serverless_assets.ingestion.source import HttpSource
from serverless_assets.ingestion.stage import stage
from serverless_assets.ingestion.state import CachedResponse, TableState, reason_to_load
from serverless_assets.months import Window, name_months
from serverless_assets.stopping import start_thread
from serverless_assets.warehouse import Warehouse, WarehouseError
from serverless_assets.warehouse.staging import StagingArea

# Each takes a connection to the source and up to four threads, of which a container may allow 1,000.
TABLES_AT_ONCE = 16
# A thread that waits for the source stops at once; one may be converting a large file.
SECONDS_TO_STOP = 5.0

Result = TypeVar("Result")


def fetch_tables(
    tables: Sequence[RawTable],
    source: HttpSource,
    warehouse: Warehouse,
    window: Window | None,
    scratch: Path,
    log: Log,
    states: Mapping[str, TableState] = MappingProxyType({}),
    force: bool = False,
    to_load: bool = True,
) -> Generator[FetchResult, None, None]:
    """Fetch and audit `tables`, each by itself: one that fails stops only those that it dates.

    Facts are cut to `window` if there is one, or to more where that alone would leave the table wrong;
    snapshots are always whole. A fact that is dated by its parent has the parent requested too, whether or
    not the parent is among `tables`: a change of either may change it.

    Args:
        states: what each table holds; what did not change since is not downloaded, unless by `force`.
        force: also take rows that are far fewer than before.
        to_load: what is staged may be loaded until the next result is asked for.
    """
    with warehouse.staging(scratch, source.limits.memory_mib, to_load) as area:
        scopes = {
            needed.name: Scope.of(needed, states.get(needed.name), source.key_of(needed), window, force)
            for table in tables
            for needed in table.with_parent
        }
        fetch = _Fetch(tables, source, warehouse, scratch, log, scopes, force, area, deque(tables))
        try:
            for _ in range(TABLES_AT_ONCE):
                fetch.start_next()
            for table in tables:
                # A load takes a table out of the area: those that it dates come first.
                for child in fetch.children(table):
                    fetch.result(child)
                yield fetch.result(table)
        finally:
            with fetch.lock:
                # From here on, none is started.
                source.cancelled.set()
            area.stop()
            # They write into `scratch`, which may be removed next.
            wait(fetch.threads.values(), SECONDS_TO_STOP)


@dataclass(frozen=True)
class _Fetch:
    """One fetch of `tables`. Each is requested, staged and audited once for each window, in a thread."""

    tables: Sequence[RawTable]
    source: HttpSource
    warehouse: Warehouse
    scratch: Path
    log: Log
    scopes: Mapping[str, Scope]
    force: bool
    area: StagingArea
    waiting: deque[RawTable]
    threads: dict[Hashable, Future[Any]] = field(default_factory=dict)
    lock: RLock = field(default_factory=RLock)

    def start_next(self, _: object = None) -> None:
        """Begin with the next table, and with the one after that when it is done."""
        with self.lock:
            while self.waiting and not self.source.cancelled.is_set():
                table = self.waiting.popleft()
                for needed in table.with_parent:
                    self.start(self.request, needed, self.scopes[needed.name].window)
                result = self.start(self.find_result, table)
                if not result.done():
                    result.add_done_callback(self.start_next)
                    return

    def start(self, work: Callable[..., Result], table: RawTable, *window: Window | None) -> Future[Result]:
        """Do the work in a thread, unless it was begun before."""
        with self.lock:
            key = (work.__name__, table.name, *window)
            if key not in self.threads:
                self.threads[key] = start_thread(work, table, *window)
            return self.threads[key]

    def response(self, table: RawTable, window: Window | None) -> Download | NotModified:
        return self.start(self.request, table, window).result()

    def audited(self, table: RawTable, window: Window | None) -> AuditedTable:
        return self.start(self.audit_rows, table, window).result()

    def result(self, table: RawTable) -> FetchResult:
        return self.start(self.find_result, table).result()

    def children(self, table: RawTable) -> list[RawTable]:
        return [child for child in self.tables if child.dated_by and child.dated_by.parent == table]

    def find_result(self, table: RawTable) -> FetchResult:
        if table.dated_by and table.dated_by.parent in self.tables:
            parent = self.result(table.dated_by.parent)
            if isinstance(parent, Failed):
                reason = f"{table.name} is dated by {parent.table.name}, which could not be loaded."
                return replace(parent, table=table, reason=reason)
        scope = self.scopes[table.name]
        try:
            response = self.response(table, scope.window)
            if isinstance(response, NotModified) and self.is_current(table, scope.window):
                needed_by = (
                    child
                    for child in self.children(table)
                    if self.scopes[child.name].window == scope.window and self.is_needed(child, scope.window)
                )
                if not any(needed_by):
                    return Unchanged(scope, response)
            audited = self.without_repeated_keys(self.audited(table, scope.window))
            if scope.state is not None and not self.force:
                audit.refuse_row_loss(audited, scope.state, self.warehouse)
            return audited
        except MissingTable as error:
            return Missing(table, str(error), table.optional or error.is_sample)
        except MissingPage as error:
            # The source has the table, so it is not one that a run may do without.
            return Missing(table, str(error))
        except (SourceError, ContractError, WarehouseError) as error:
            return Failed(table, str(error))
        except duckdb.Error as error:
            # The disk is full, say.
            reason = str(error).strip().splitlines()[0]
            return Failed(table, f"{table.name} could not be audited ({reason}).")

    def request(self, table: RawTable, window: Window | None) -> Download | NotModified:
        """Fetch the table's file, unless it did not change."""
        cached = self.cached(table, window)
        return self.download(table, window, cached.validators if cached else NO_VALIDATORS)

    def download(
        self, table: RawTable, window: Window | None, validators: Validators = NO_VALIDATORS
    ) -> Download | NotModified:
        path, since = self.scratch / f"{_name(table, window)}.download", self.scopes[table.name].since
        return self.source.fetch(table, window, path, self.log, validators, since)

    def audit_rows(self, table: RawTable, window: Window | None) -> AuditedTable:
        parent = self.audited(table.dated_by.parent, window) if table.dated_by else None
        download, scope = self.response(table, window), self.scopes[table.name]
        if isinstance(download, NotModified):
            # It did not change, but what dates it did.
            download = self.download(table, window)
        assert isinstance(download, Download)
        # A table that may turn out to be unchanged is not written to the warehouse for that.
        is_loaded = window is None and bool(self.force or reason_to_load(table, scope.state))
        rows = self.area.rows(_name(table, window), for_warehouse=is_loaded)
        served = stage(rows, table, download.path, parent.rows if parent else None)
        download.path.unlink()
        cursor = latest_versions(rows, table, scope.since) if table.updated_at else ""
        audit.check_keys(rows, table)
        if parent:
            parents = parent.table
            if undated := audit.check_parents(rows, table, lambda: self.audited(parents, None).rows):
                self.log(f"{table.name}: {undated:,} rows belong to other months than {window}: left out.")
        if window:
            rows = audit.within(rows, table, window)
        if scope.since and scope.state:
            content = changes(rows, table, self.warehouse, scope.state)
        else:
            content = content_of(rows, table)
        return AuditedTable(
            replace(scope, window=window),
            rows,
            content,
            download,
            key=self.source.request_key(table, window, scope.since),
            # The child's rows follow from the parent's, too.
            response=CachedResponse(download.validators, parent.content.hash if parent else ""),
            served={column.name: str(column.type) for column in served},
            cursor=cursor,
        )

    def without_repeated_keys(self, audited: AuditedTable) -> AuditedTable:
        """Return the rows over as many months as it takes for no key to be in the table twice.

        A row that the source has moved to a month of the window is still in the month that it was in: that
        month is loaded too, with those in between.
        """
        table, window, state = audited.table, audited.scope.window, audited.scope.state
        windows = 0
        while state and window and state.within(table, window) != audited.content.hash:
            months = self.warehouse.months_with_keys(
                table.shape, table.key, audited.rows, window.start, window.end
            )
            if not months:
                break
            windows += 1
            self.log(f"{table.name}: rows have moved here from {name_months(months)}, so that is loaded too.")
            wider = Window.of_months(min(*months, window.start), max(*months, *window.months()))
            # Should still other months turn out to be concerned, all are loaded.
            audited = self.audited(table, wider if windows == 1 else None)
            window = audited.scope.window
        return audited

    def cached(self, table: RawTable, window: Window | None) -> CachedResponse | None:
        scope = self.scopes[table.name]
        key = self.source.request_key(table, window, scope.since)
        return None if self.force else scope.response_from(key)

    def is_current(self, table: RawTable, window: Window | None) -> bool:
        """Whether the table holds what the source would answer, dated by what its parent would."""
        if isinstance(self.response(table, window), Download):
            return False
        cached = self.cached(table, window)
        if cached is None or table.dated_by is None:
            return cached is not None
        parent = table.dated_by.parent
        state = self.scopes[parent.name].state
        if state and self.is_current(parent, window):
            return cached.dated_by == state.within(parent, window)
        return cached.dated_by == self.audited(parent, window).content.hash

    def is_needed(self, table: RawTable, window: Window | None) -> bool:
        """Whether the table's file is needed, and so its parent's; not if the source cannot give it."""
        try:
            return not self.is_current(table, window)
        except (SourceError, ContractError):
            return False


def _name(table: RawTable, window: Window | None) -> str:
    """Return a name for the table's rows over the window."""
    return f"{table.name}_{window.start}_{window.end}" if window else table.name
