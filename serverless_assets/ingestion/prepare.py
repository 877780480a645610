"""From the source to audited files on disk: all tables download at the same time."""

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from serverless_assets.ingestion import audit
from serverless_assets.ingestion.contract import ContractError, conform
from serverless_assets.ingestion.download import Download, Log, SourceError, TableSource
from serverless_assets.ingestion.tables import Table
from serverless_assets.ingestion.window import Window


@dataclass(frozen=True)
class Prepared:
    """A table's rows, checked and in the warehouse's columns and types, ready to be loaded."""

    table: Table
    path: Path
    content: audit.Content
    download: Download


@dataclass(frozen=True)
class Failed:
    """A table that cannot be loaded, and why in a sentence."""

    table: Table
    reason: str


def prepare(
    tables: Sequence[Table], source: TableSource, window: Window | None, scratch: Path, log: Log
) -> Iterator[Prepared | Failed]:
    """Fetch and audit `tables`, each by itself: one that fails does not stop the others.

    Facts are cut to `window` if there is one; snapshots are always whole. A fact that is dated by
    its parent has the parent downloaded too, whether or not the parent is among `tables`.
    """
    needed = list(dict.fromkeys([*tables, *(table.dated_by.parent for table in tables if table.dated_by)]))
    with ThreadPoolExecutor(max_workers=len(needed), thread_name_prefix="download") as pool:
        arrivals = {table.name: pool.submit(_arrive, table, source, window, scratch, log) for table in needed}
        try:
            for table in tables:
                yield _audited(table, arrivals, window, scratch)
        finally:
            source.cancelled.set()


def _arrive(table: Table, source: TableSource, window: Window | None, scratch: Path, log: Log) -> Download:
    wanted = window if table.event_time else None
    fetched = source.fetch(table.name, wanted, scratch / f"{table.name}.download", log)
    conformed = scratch / f"{table.name}.conformed.parquet"
    conform(fetched.path, table, conformed)
    fetched.path.unlink()
    return replace(fetched, path=conformed)


def _audited(
    table: Table, arrivals: dict[str, Future[Download]], window: Window | None, scratch: Path
) -> Prepared | Failed:
    try:
        download = arrivals[table.name].result()
        parent = arrivals[table.dated_by.parent.name].result() if table.dated_by else None
        path = download.path
        with audit.audit_connection(scratch) as connection:
            audit.check_keys(connection, table, path)
            if parent and table.dated_by:
                # A parent that came twice would double the child's rows.
                audit.check_keys(connection, table.dated_by.parent, parent.path)
                dated = scratch / f"{table.name}.dated.parquet"
                audit.add_event_time(connection, table, path, parent.path, dated)
                path = dated
            if window and table.event_time:
                kept = scratch / f"{table.name}.window.parquet"
                audit.keep_window(connection, table, path, window, kept)
                path = kept
            content = audit.content_of(connection, table, path)
    except (SourceError, ContractError) as error:
        return Failed(table, str(error))
    return Prepared(table, path, content, download)
