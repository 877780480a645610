"""What the source answers for each table, and the files of those that are needed: each is fetched once."""

from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet as pq

from serverless_assets.ingestion import audit
from serverless_assets.ingestion.catalog import RawTable, Window
from serverless_assets.ingestion.contract import ContractError, audit_connection, conform
from serverless_assets.ingestion.decide import known_answer
from serverless_assets.ingestion.download import Download, Log, NotModified, SourceError, TableSource
from serverless_assets.ingestion.limits import start_thread
from serverless_assets.ingestion.state import CachedResponse, TableState


@dataclass(frozen=True)
class AuditedTable:
    """A table's rows, checked and in the warehouse's columns and types, ready to be loaded.

    `key` is that of the request, and `known` what to keep to ask whether the source would answer the same.
    `source` identifies the source, and `window` is what of a fact was asked for: None is its whole history.
    `served` are the columns and types of the source's own file.
    """

    table: RawTable
    path: Path
    content: audit.Content
    download: Download
    key: str
    known: CachedResponse
    source: str
    window: Window | None = None
    served: Mapping[str, str] = field(default_factory=dict)


@dataclass
class Arrivals:
    """The source's answers over one window, and over others where that one is not enough.

    `held` is what the relations hold; a table that is not in it is fetched without asking what changed.
    """

    source: TableSource
    window: Window | None
    scratch: Path
    log: Log
    held: Mapping[str, TableState]
    answers: dict[str, Future[Download | NotModified]] = field(default_factory=dict)
    files: dict[str, Future[Download]] = field(default_factory=dict)
    audited: dict[str, AuditedTable] = field(default_factory=dict)
    served: dict[str, Mapping[str, str]] = field(default_factory=dict)
    windows: dict[Window | None, "Arrivals"] = field(default_factory=dict)

    def over(self, window: Window | None) -> "Arrivals":
        """The answers over another window."""
        self.windows.setdefault(self.window, self)
        if window not in self.windows:
            scratch = self.scratch / f"{len(self.windows)}"
            scratch.mkdir()
            self.windows[window] = Arrivals(
                self.source, window, scratch, self.log, self.held, windows=self.windows
            )
        return self.windows[window]

    def ask(self, tables: Sequence[RawTable]) -> None:
        """Have the source say what it has."""
        for table in tables:
            if table.name not in self.answers:
                self.answers[table.name] = start_thread(self._ask, table)

    def threads(self) -> list[Future[Any]]:
        """All that was started, over this window and the others."""
        threads: list[Future[Any]] = []
        for arrivals in self.windows.values() or [self]:
            threads += [*arrivals.answers.values(), *arrivals.files.values()]
        return threads

    def answer(self, table: RawTable) -> Download | NotModified:
        self.ask([table])
        return self.answers[table.name].result()

    def is_current(self, table: RawTable) -> bool:
        """Whether the relation holds what the source would answer, dated by what its parent would."""
        if isinstance(self.answer(table), Download):
            return False
        known = self._known(table)
        return known is not None and known.dated_by == self._dated_by(table)

    def has_arrived_anew(self, table: RawTable) -> bool:
        """Whether the table's file is needed, and so its parent's; not if the source cannot give it."""
        try:
            return not self.is_current(table)
        except (SourceError, ContractError):
            return False

    def prepared(self, table: RawTable) -> AuditedTable:
        """The table's rows, downloaded if they have not been."""
        if table.name not in self.audited:
            self.audited[table.name] = self._audit(table)
        return self.audited[table.name]

    def _ask(self, table: RawTable) -> Download | NotModified:
        known = self._known(table)
        if known is None:
            return self._fetch(table)
        path = self._path(table, "download")
        answer = self.source.fetch_if_modified(
            table.name, self._window(table), path, self.log, known.validators
        )
        return answer if isinstance(answer, NotModified) else self._conformed(table, answer)

    def _fetch(self, table: RawTable) -> Download:
        path = self._path(table, "download")
        return self._conformed(table, self.source.fetch(table.name, self._window(table), path, self.log))

    def _conformed(self, table: RawTable, fetched: Download) -> Download:
        conformed = self._path(table, "conformed.parquet")
        conform(fetched.path, table, conformed)
        self.served[table.name] = {column.name: str(column.type) for column in pq.read_schema(fetched.path)}
        fetched.path.unlink()
        return replace(fetched, path=conformed)

    def _file(self, table: RawTable) -> Future[Download]:
        """The table's file, fetched now if the source had said that it is not needed."""
        if table.name not in self.files:
            self.ask([table])
            answered = self.answers[table.name]
            unneeded = answered.exception() is None and isinstance(answered.result(), NotModified)
            self.files[table.name] = (
                start_thread(self._fetch, table) if unneeded else answered  # type: ignore[assignment]
            )
        return self.files[table.name]

    def _audit(self, table: RawTable) -> AuditedTable:
        parent = table.dated_by.parent if table.dated_by else None
        file, parent_file = self._file(table), self._file(parent) if parent else None
        download = file.result()
        path = download.path
        # A parent that came twice would double the child's rows.
        dated_by = self.prepared(parent).content.hash if parent else ""
        with audit_connection(self.scratch) as connection:
            audit.check_keys(connection, table, path)
            if parent_file:
                path = self._dated(connection, table, path, parent_file.result().path)
            if self.window and table.event_time:
                kept = self._path(table, "window.parquet")
                audit.keep_window(connection, table, path, self.window, kept)
                path = kept
            content = audit.content_of(connection, table, path)
        key = self.source.request_key(table.name, self._window(table))
        known = CachedResponse(download.validators, dated_by)
        window, served = self._window(table), self.served[table.name]
        return AuditedTable(table, path, content, download, key, known, self.source.key, window, served)

    def _dated(
        self, connection: duckdb.DuckDBPyConnection, table: RawTable, path: Path, parent_path: Path
    ) -> Path:
        """The rows with the event time of their parents; without those of parents beyond the window.

        A source may cut the parents to the window and not the children. Whether the rows that are then left
        over belong to parents of other months, or to none at all, all of the parents tell.
        """
        dated = self._path(table, "dated.parquet")
        left_over = audit.add_event_time(connection, table, path, parent_path, dated)
        if left_over:
            assert table.dated_by is not None
            every_parent = self.over(None)._file(table.dated_by.parent).result().path
            audit.check_parents(connection, table, path, every_parent)
            self.log(f"{table.name}: {left_over:,} rows belong to other months than {self.window}: left out.")
        return dated

    def _dated_by(self, table: RawTable) -> str:
        """The version of the parent's rows as the source would answer them."""
        if table.dated_by is None:
            return ""
        parent = table.dated_by.parent
        if self.is_current(parent):
            return self.held[parent.name].within(parent, self.window)
        return self.prepared(parent).content.hash

    def _known(self, table: RawTable) -> CachedResponse | None:
        key = self.source.request_key(table.name, self._window(table))
        return known_answer(table, self.held.get(table.name), key)

    def _window(self, table: RawTable) -> Window | None:
        return self.window if table.event_time else None

    def _path(self, table: RawTable, suffix: str) -> Path:
        return self.scratch / f"{table.name}.{suffix}"
