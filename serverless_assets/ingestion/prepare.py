"""From the source to audited files on disk: what changed of all tables downloads at the same time."""

from collections.abc import Generator, Mapping, Sequence
from concurrent.futures import wait
from dataclasses import dataclass
from pathlib import Path

from serverless_assets.ingestion.arrivals import Arrivals, Prepared
from serverless_assets.ingestion.contract import ContractError
from serverless_assets.ingestion.download import Log, NotModified, SourceError, TableSource
from serverless_assets.ingestion.holding import Holding
from serverless_assets.ingestion.tables import Table
from serverless_assets.ingestion.window import Window

# A thread that waits for the source stops at once; one may be converting a large file.
SECONDS_TO_STOP = 5.0


@dataclass(frozen=True)
class Unchanged:
    """A table whose relation holds what the source would answer, by the source's own word."""

    table: Table
    answer: NotModified


@dataclass(frozen=True)
class Failed:
    """A table that cannot be loaded, and why in a sentence."""

    table: Table
    reason: str


def prepare(
    tables: Sequence[Table],
    source: TableSource,
    window: Window | None,
    scratch: Path,
    log: Log,
    held: Mapping[str, Holding] | None = None,
    force: bool = False,
) -> Generator[Prepared | Unchanged | Failed, None, None]:
    """Fetch and audit `tables`, each by itself: one that fails does not stop the others.

    Facts are cut to `window` if there is one; snapshots are always whole. A fact that is dated by
    its parent has the parent asked for too, whether or not the parent is among `tables`: what either
    of them answers may change it.

    held: what each relation holds; what the source says is the same is not downloaded, unless by `force`.
    """
    needed = list(dict.fromkeys([*tables, *(table.dated_by.parent for table in tables if table.dated_by)]))
    arrivals = Arrivals(source, window, scratch, log, {} if force else held or {})
    arrivals.ask(needed)
    try:
        for table in tables:
            yield _prepared(table, tables, arrivals)
    finally:
        source.cancelled.set()
        # They write into `scratch`, which may be removed next.
        wait(arrivals.threads(), SECONDS_TO_STOP)


def _prepared(table: Table, tables: Sequence[Table], arrivals: Arrivals) -> Prepared | Unchanged | Failed:
    try:
        answer = arrivals.answer(table)
        if isinstance(answer, NotModified) and arrivals.is_current(table):
            children = [child for child in tables if child.dated_by and child.dated_by.parent == table]
            if not any(arrivals.has_arrived_anew(child) for child in children):
                return Unchanged(table, answer)
        return arrivals.prepared(table)
    except (SourceError, ContractError) as error:
        return Failed(table, str(error))
