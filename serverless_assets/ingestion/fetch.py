"""Fetch what changed of the raw tables into audited files: all tables download at the same time.

A table is requested conditionally, by the validators of the responses that it was loaded from. Its file is
then made to conform to the contract, dated by its parent, cut to the window and audited.
"""

from collections.abc import Generator, Iterable, Mapping, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from serverless_assets.ingestion import audit
from serverless_assets.ingestion.catalog import RawTable, Window
from serverless_assets.ingestion.contract import ContractError, audit_connection, conform
from serverless_assets.ingestion.http import NO_VALIDATORS
from serverless_assets.ingestion.limits import start_thread
from serverless_assets.ingestion.source import (
    Download,
    HttpSource,
    Log,
    MissingTable,
    NotModified,
    SourceError,
)
from serverless_assets.ingestion.state import CachedResponse, TableState, cached_response, window_to_load
from serverless_assets.months import name_months
from serverless_assets.warehouse import Warehouse, WarehouseError

# A thread that waits for the source stops at once; one may be converting a large file.
SECONDS_TO_STOP = 5.0


@dataclass(frozen=True)
class AuditedTable:
    """A table's rows, checked and in the warehouse's columns and types, ready to be loaded.

    key: identifies the request, and `response` what to keep to make it conditional the next time.
    source: identifies the source.
    window: what of a fact was fetched; None is its whole history.
    served: the columns and types of the source's own file.
    """

    table: RawTable
    path: Path
    content: audit.Content
    download: Download
    key: str
    response: CachedResponse
    source: str
    window: Window | None = None
    served: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Unchanged:
    """A table that holds what the source would answer over `window`, by the source's own word."""

    table: RawTable
    response: NotModified
    source: str
    window: Window | None = None


@dataclass(frozen=True)
class Failed:
    """A table that cannot be loaded, and why in a sentence; without an optional one, a run succeeds."""

    table: RawTable
    reason: str
    is_optional: bool = False


@dataclass(frozen=True)
class Missing(Failed):
    """A table that the source does not have, or whose parent it does not have."""


def ends_run(failed: Sequence[Failed], tables: Sequence[RawTable]) -> bool:
    """Whether nothing is built from `tables`, given those that failed and are not optional.

    Models that read none of the tables that are missing are built; that step then fails for the others.
    """
    return not all(isinstance(table, Missing) for table in failed) or len(failed) == len(tables)


def failure_sentence(reasons: Iterable[str]) -> str:
    """Return why a run fails, given the reason of each table that could not be loaded."""
    each = list(reasons)
    # Several tables have one reason if it is the machine's, such as a full disk.
    return (
        f"{len(each)} of the raw tables could not be loaded and stay as they were. "
        f"{' '.join(dict.fromkeys(each))}"
    )


FetchResult = AuditedTable | Unchanged | Failed


def fetch_tables(
    tables: Sequence[RawTable],
    source: HttpSource,
    warehouse: Warehouse,
    window: Window | None,
    scratch: Path,
    log: Log,
    states: Mapping[str, TableState] | None = None,
    force: bool = False,
) -> Generator[FetchResult, None, None]:
    """Fetch and audit `tables`, each by itself: one that fails stops only those that it dates.

    Facts are cut to `window` if there is one, or to more where that alone would leave the table wrong;
    snapshots are always whole. A fact that is dated by its parent has the parent requested too, whether or
    not the parent is among `tables`: a change of either may change it.

    Args:
        states: what each table holds; what did not change since is not downloaded, unless by `force`.
        force: also take rows that are far fewer than before.
    """
    states = states or {}
    parents = [table.dated_by.parent for table in tables if table.dated_by]
    fetch = Fetch(source, window, scratch, log, {} if force else states)
    run = FetchRun(tables, warehouse, fetch, states, force)
    try:
        for table in dict.fromkeys([*tables, *parents]):
            run.fetch_of(table).start([table])
        for table in tables:
            yield run.result(table)
    finally:
        source.cancelled.set()
        # They write into `scratch`, which may be removed next.
        wait(fetch.threads(), SECONDS_TO_STOP)


@dataclass
class FetchRun:
    """The results for `tables`, given what they hold; each is found once."""

    tables: Sequence[RawTable]
    warehouse: Warehouse
    fetch: "Fetch"
    states: Mapping[str, TableState]
    force: bool
    results: dict[RawTable, FetchResult] = field(default_factory=dict)

    def result(self, table: RawTable) -> FetchResult:
        if table not in self.results:
            self.results[table] = self._find_result(table)
        return self.results[table]

    def fetch_of(self, table: RawTable) -> "Fetch":
        """Return the fetch over the window that is to be loaded of the table."""
        requested = self.fetch.window if table.has_months else None
        window = window_to_load(table, self.states.get(table.name), self.fetch.source.key, requested)
        return self.fetch if window == requested else self.fetch.over(window)

    def _find_result(self, table: RawTable) -> FetchResult:
        if table.dated_by and table.dated_by.parent in self.tables:
            parent = self.result(table.dated_by.parent)
            if isinstance(parent, Failed):
                reason = f"{table.name} is dated by {parent.table.name}, which could not be loaded."
                return replace(parent, table=table, reason=reason)
        fetch, state = self.fetch_of(table), self.states.get(table.name)
        try:
            response = fetch.response(table)
            if isinstance(response, NotModified) and fetch.is_current(table):
                children = [
                    child for child in self.tables if child.dated_by and child.dated_by.parent == table
                ]
                if not any(self.fetch_of(child) is fetch and fetch.is_needed(child) for child in children):
                    return Unchanged(table, response, fetch.source.key, fetch.window_of(table))
            audited = self._without_repeated_keys(fetch.audited(table))
            if state is not None and not self.force:
                audit.refuse_row_loss(
                    self.warehouse, table, audited.window, audited.content, audited.source, state
                )
            return audited
        except MissingTable as error:
            return Missing(table, str(error), table.optional or error.is_sample)
        except (SourceError, ContractError, WarehouseError) as error:
            return Failed(table, str(error))

    def _without_repeated_keys(self, audited: AuditedTable) -> AuditedTable:
        """Return the rows over as many months as it takes for no key to be in the table twice.

        A row that the source has moved to a month of the window is still in the month that it was in: that
        month is loaded too, with those in between.
        """
        table, window, state = audited.table, audited.window, self.states.get(audited.table.name)
        windows = 0
        while state and window and state.within(table, window) != audited.content.hash:
            months = self.warehouse.months_with_keys(
                table.shape, table.key, audited.path, window.start, window.end
            )
            if not months:
                break
            windows += 1
            self.fetch.log(f"{table.name}: rows have moved here from {name_months(months)}: loaded too.")
            wider = Window.of_months(min(*months, window.start), max(*months, *window.months()))
            # Should still other months turn out to be concerned, all are loaded.
            audited = self.fetch.over(wider if windows == 1 else None).audited(table)
            window = audited.window
        return audited


@dataclass
class Fetch:
    """The responses of the source over one window, and over others where that one is not enough.

    Each table is requested once for a window. `states` are what the tables hold; a table that is not in it
    is fetched unconditionally.
    """

    source: HttpSource
    window: Window | None
    scratch: Path
    log: Log
    states: Mapping[str, TableState]
    responses: dict[str, Future[Download | NotModified]] = field(default_factory=dict)
    files: dict[str, Future[Download]] = field(default_factory=dict)
    audits: dict[str, AuditedTable] = field(default_factory=dict)
    served: dict[str, Mapping[str, str]] = field(default_factory=dict)
    windows: dict[Window | None, "Fetch"] = field(default_factory=dict)

    def over(self, window: Window | None) -> "Fetch":
        """Return the responses over another window."""
        self.windows.setdefault(self.window, self)
        if window not in self.windows:
            scratch = self.scratch / f"{len(self.windows)}"
            scratch.mkdir()
            self.windows[window] = Fetch(
                self.source, window, scratch, self.log, self.states, windows=self.windows
            )
        return self.windows[window]

    def start(self, tables: Sequence[RawTable]) -> None:
        """Request the tables in threads, unless they have been."""
        for table in tables:
            if table.name not in self.responses:
                self.responses[table.name] = start_thread(self._request, table)

    def response(self, table: RawTable) -> Download | NotModified:
        self.start([table])
        return self.responses[table.name].result()

    def is_current(self, table: RawTable) -> bool:
        """Whether the table holds what the source would answer, dated by what its parent would."""
        if isinstance(self.response(table), Download):
            return False
        cached = self._cached(table)
        return cached is not None and cached.dated_by == self._dated_by(table)

    def is_needed(self, table: RawTable) -> bool:
        """Whether the table's file is needed, and so its parent's; not if the source cannot give it."""
        try:
            return not self.is_current(table)
        except (SourceError, ContractError):
            return False

    def audited(self, table: RawTable) -> AuditedTable:
        """Return the table's audited rows, downloaded if they have not been."""
        if table.name not in self.audits:
            self.audits[table.name] = self._audit(table)
        return self.audits[table.name]

    def window_of(self, table: RawTable) -> Window | None:
        return self.window if table.has_months else None

    def threads(self) -> list[Future[Any]]:
        """Return all threads that were started, over this window and the others."""
        threads: list[Future[Any]] = []
        for fetch in self.windows.values() or [self]:
            threads += [*fetch.responses.values(), *fetch.files.values()]
        return threads

    def _request(self, table: RawTable, conditional: bool = True) -> Download | NotModified:
        """Fetch the table's file in the types of its contract, unless it did not change."""
        path, window = self._path(table, "download"), self.window_of(table)
        cached = self._cached(table) if conditional else None
        validators = cached.validators if cached else NO_VALIDATORS
        response = self.source.fetch(table.location, window, path, self.log, validators)
        if isinstance(response, NotModified):
            return response
        conformed = self._path(table, "conformed.parquet")
        conform(path, table, conformed)
        self.served[table.name] = {column.name: str(column.type) for column in pq.read_schema(path)}
        path.unlink()
        return replace(response, path=conformed)

    def _file(self, table: RawTable) -> Future[Download]:
        """Return the table's file, fetched now if the source had answered that it did not change."""
        if table.name not in self.files:
            self.start([table])
            file: Future[Any] = self.responses[table.name]
            if file.exception() is None and isinstance(file.result(), NotModified):
                file = start_thread(self._request, table, conditional=False)
            self.files[table.name] = file
        return self.files[table.name]

    def _audit(self, table: RawTable) -> AuditedTable:
        parent = table.dated_by.parent if table.dated_by else None
        file, parent_file = self._file(table), self._file(parent) if parent else None
        download, window = file.result(), self.window_of(table)
        path = download.path
        # A parent that came twice would double the child's rows.
        dated_by = self.audited(parent).content.hash if parent else ""
        with audit_connection(self.scratch) as connection:
            audit.check_keys(connection, table, path)
            if parent and parent_file:
                dated = self._path(table, "dated.parquet")
                orphans = audit.add_event_time(connection, table, path, parent_file.result().path, dated)
                if orphans:
                    # A source may cut the parents to the window and not the children. Whether these rows
                    # belong to parents of other months, or to none at all, all of the parents tell.
                    every_parent = self.over(None)._file(parent).result().path
                    audit.check_parents(connection, table, path, every_parent)
                    self.log(
                        f"{table.name}: {orphans:,} rows belong to other months than {self.window}: left out."
                    )
                path = dated
            if window:
                cut = self._path(table, "window.parquet")
                audit.keep_window(connection, table, path, window, cut)
                path = cut
            content = audit.content_of(connection, table, path)
        key, response = self._key(table), CachedResponse(download.validators, dated_by)
        served = self.served[table.name]
        return AuditedTable(table, path, content, download, key, response, self.source.key, window, served)

    def _dated_by(self, table: RawTable) -> str:
        """Return the version of the parent's rows as the source would answer them."""
        if table.dated_by is None:
            return ""
        parent = table.dated_by.parent
        if self.is_current(parent):
            return self.states[parent.name].within(parent, self.window)
        return self.audited(parent).content.hash

    def _cached(self, table: RawTable) -> CachedResponse | None:
        return cached_response(table, self.states.get(table.name), self._key(table))

    def _key(self, table: RawTable) -> str:
        return self.source.request_key(table.location, self.window_of(table))

    def _path(self, table: RawTable, suffix: str) -> Path:
        return self.scratch / f"{table.name}.{suffix}"
