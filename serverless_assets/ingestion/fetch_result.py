"""What is requested of a raw table, and what became of it: audited rows, no change, or a failure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from serverless_assets.ingestion.content import Content
from serverless_assets.ingestion.http import NO_VALIDATORS, Validators
from serverless_assets.ingestion.raw_table import RawTable
from serverless_assets.ingestion.state import HASHED_BY, CachedResponse, TableState, reason_to_load
from serverless_assets.months import Window
from serverless_assets.warehouse.staging import StagedRows


@dataclass(frozen=True)
class Scope:
    """What of a table is requested.

    state: what the warehouse holds of it; None if there is no such table.
    source: identifies where its rows come from.
    since: the `updated_at` since which its changes are requested; empty if its rows are.
    window: the months to load; None is all of the table, or its changes, which are of any month.
    """

    table: RawTable
    state: TableState | None
    source: str
    since: str
    window: Window | None

    @classmethod
    def of(
        cls, table: RawTable, state: TableState | None, source: str, window: Window | None, force: bool
    ) -> "Scope":
        """Return what to request of a table in a run over `window`.

        Changes are added to, and some months replaced in, a table that is known to hold this source's rows
        alone: beside other rows, they would make a table that no source has.
        """
        before = state or TableState()
        is_sources = bool(before.version) and before.source == source
        has_parts = before.months is not None or not table.event_time
        adds_changes = bool(table.updated_at) and not force and not reason_to_load(table, state)
        if adds_changes and is_sources and has_parts and before.cursor:
            return cls(table, state, source, before.cursor, None)
        has_months = is_sources and before.months is not None and before.hashed_by == HASHED_BY
        if window and table.has_months and (state is None or has_months):
            return cls(table, state, source, "", window.with_lookback(table.lookback))
        return cls(table, state, source, "", None)

    def response_from(self, key: str) -> CachedResponse | None:
        """Return the response to a request that the table was loaded from, if it may be conditional."""
        if self.state is None or reason_to_load(self.table, self.state):
            return None
        response = self.state.responses.get(key)
        # Rows that a parent dates are known only with that parent's.
        return response if response and (response.dated_by or not self.table.dated_by) else None


@dataclass(frozen=True)
class Download:
    """A complete parquet file on disk, its size in bytes, and the seconds that it took."""

    path: Path
    url: str
    bytes: int
    seconds: float
    validators: Validators = NO_VALIDATORS


@dataclass(frozen=True)
class NotModified:
    """The source's answer that the file is still the one that the validators came with."""

    url: str
    seconds: float
    bytes: int = 0


@dataclass(frozen=True)
class FetchedTable:
    """A table of which what its scope says was requested."""

    scope: Scope

    @property
    def table(self) -> RawTable:
        return self.scope.table


@dataclass(frozen=True)
class AuditedTable(FetchedTable):
    """A table's rows, staged in the warehouse's columns and types, and checked.

    rows: those to insert, replace and delete, if changes were requested; `content` is that of the whole table
        afterwards.
    key: identifies the request, and `response` what to keep to make it conditional the next time.
    served: the columns and types of the source's own file.
    cursor: the greatest `updated_at` so far.
    """

    rows: StagedRows
    content: Content
    download: Download
    key: str
    response: CachedResponse
    served: Mapping[str, str] = field(default_factory=dict)
    cursor: str = ""


@dataclass(frozen=True)
class Unchanged(FetchedTable):
    """A table that holds what the source would answer, by the source's own word."""

    download: NotModified


@dataclass(frozen=True)
class Failed:
    """A table that cannot be loaded, and why in a sentence; without an optional one, a run succeeds."""

    table: RawTable
    reason: str
    is_optional: bool = False


@dataclass(frozen=True)
class Missing(Failed):
    """A table that the source does not have, or a page of it; or whose parent it does not have."""


def ends_run(failed: Sequence[Failed], tables: Sequence[RawTable]) -> bool:
    """Whether nothing is built from `tables`, given those that failed and are not optional.

    Models that read none of the tables that are missing are built; that step then fails for the others.
    """
    return not all(isinstance(table, Missing) for table in failed) or len(failed) == len(tables)


def failure_sentence(reasons: Iterable[str]) -> str:
    """Return why a run fails, given the reason of each table that could not be loaded."""
    sentences = list(reasons)
    # Several tables have one reason if it is the machine's, such as a full disk.
    return (
        f"{len(sentences)} of the raw tables could not be loaded and stay as they were. "
        f"{' '.join(dict.fromkeys(sentences))}"
    )


FetchResult = AuditedTable | Unchanged | Failed
