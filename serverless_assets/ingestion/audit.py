"""Check fetched rows before they may replace those of the table: keys, parents, months, content, number."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import duckdb
import pyarrow as pa

from serverless_assets import sql
from serverless_assets.hashing import digest
from serverless_assets.ingestion.catalog import RawTable, Window
from serverless_assets.ingestion.contract import ContractError, Problem, parquet, refuse
from serverless_assets.ingestion.state import TableState, version_of
from serverless_assets.months import name_months
from serverless_assets.warehouse import Warehouse


@dataclass(frozen=True)
class Part:
    """The rows of one month, or of a whole table: how many, and a hash of what they say."""

    rows: int
    hash: str


NO_ROWS = Part(0, "no rows")

# A load that keeps a smaller share of the rows than this is refused. A few rows (a month of a small shop) may
# well be half as many the day after: of those, only an empty table is refused.
LEAST_KEPT, FEW_ROWS = 0.5, 10
# A load that keeps a smaller share of the rows is warned of.
USUALLY_KEPT = 0.9


@dataclass(frozen=True)
class Content:
    """The content of a table, whatever the order of its rows; `months` is empty for a snapshot."""

    rows: int
    hash: str
    months: Mapping[date, Part]


def check_keys(connection: duckdb.DuckDBPyConnection, table: RawTable, path: Path) -> None:
    """Raise `ContractError` unless the key is unique and key and event time are never null."""
    required = list(table.key)
    if table.event_time in table.columns:
        required.append(str(table.event_time))
    counts = ", ".join(f"count(*) - count({sql.identifier(name)})" for name in required)
    key = ", ".join(map(sql.identifier, table.key))
    nulls = connection.execute(f"select {counts} from {parquet(path)}").fetchone() or ()
    problems = [
        Problem(table.name, name, "no nulls", f"{count:,} rows without a value")
        for name, count in zip(required, nulls, strict=True)
        if count
    ]
    repeated = connection.execute(
        f"select {key}, count(*) as times from {parquet(path)} group by all having times > 1 limit 1"
    ).fetchone()
    if repeated and not problems:
        *value, times = repeated
        repetition = f"{', '.join(map(repr, value))} {times} times"
        problems.append(Problem(table.name, "+".join(table.key), "unique values", repetition))
    refuse(problems)


def add_event_time(
    connection: duckdb.DuckDBPyConnection, table: RawTable, path: Path, parent_path: Path, target: Path
) -> int:
    """Write the rows of `path` that have a parent, with the parent's event time as a last column.

    Returns:
        The number of rows that have no parent in `parent_path`, and are not written.
    """
    joined, key = _joined(table, path, parent_path)
    time = f"parent.{sql.identifier(str(table.event_time))}"
    _write(connection, f"select child.*, {time} from {joined} where {key} is not null", target)
    (orphans,) = connection.execute(f"select count(*) from {joined} where {key} is null").fetchone() or (0,)
    return int(orphans)


def check_parents(
    connection: duckdb.DuckDBPyConnection, table: RawTable, path: Path, parent_path: Path
) -> None:
    """Raise `ContractError` unless every row of `path` has a parent in `parent_path`."""
    joined, key = _joined(table, path, parent_path)
    assert table.dated_by is not None
    child = f"child.{sql.identifier(table.dated_by.column)}"
    orphans, example = connection.execute(
        f"select count(*), min({child}) from {joined} where {key} is null"
    ).fetchone() or (0, None)
    if orphans:
        parent = table.dated_by.parent.name
        others = f"{orphans:,} rows of others, such as {example!r}"
        refuse([Problem(table.name, table.dated_by.column, f"keys of {parent}", others)])


def _joined(table: RawTable, path: Path, parent_path: Path) -> tuple[str, str]:
    """Return children beside their parents in SQL, and the parent's key, null where there is none."""
    if table.dated_by is None or table.event_time is None:
        raise ValueError(f"{table.name} has its own event time, or none")
    (parent_key,) = table.dated_by.parent.key
    key = f"parent.{sql.identifier(parent_key)}"
    return (
        f"{parquet(path)} as child left join {parquet(parent_path)} as parent"
        f" on child.{sql.identifier(table.dated_by.column)} = {key}"
    ), key


def keep_window(
    connection: duckdb.DuckDBPyConnection, table: RawTable, path: Path, window: Window, target: Path
) -> None:
    """Write the rows of `path` whose event time lies in the window."""
    event_time = sql.identifier(str(table.event_time))
    _write(
        connection,
        f"select * from {parquet(path)}"
        f" where {event_time} >= date '{window.start}' and {event_time} < date '{window.end}'",
        target,
    )


def content_of(connection: duckdb.DuckDBPyConnection, table: RawTable, path: Path) -> Content:
    """Count and hash the rows, month by month for a fact."""
    columns = ", ".join(map(_hashed, table.schema))
    month = (
        f"cast(date_trunc('month', {sql.identifier(table.event_time)}) as date)"
        if table.event_time
        else "null"
    )
    rows = connection.execute(
        f"select {month} as month, count(*), sum(md5_number_lower(concat_ws(chr(31), {columns})))"
        f" from {parquet(path)} group by month order by month"
    ).fetchall()
    # The sum does not depend on the order of rows; the names make a renamed column new content.
    schema = f"{table.schema.names} {table.schema.types}"
    parts = {month: Part(count, digest(f"{schema} {count} {total}")) for month, count, total in rows}
    return Content(
        rows=sum(part.rows for part in parts.values()),
        hash=version_of(table.schema, {str(month or ""): part.hash for month, part in parts.items()}),
        months=parts if table.event_time else {},
    )


def refuse_row_loss(
    warehouse: Warehouse,
    table: RawTable,
    window: Window | None,
    content: Content,
    source: str,
    state: TableState,
) -> None:
    """Raise `ContractError` if the rows are none, or far fewer than the ones that they are to replace.

    The rows of another source are not compared with, unless there are none instead of them.
    """
    if state.within(table, window) == content.hash:
        return
    if window is None:
        before = warehouse.row_count(table.name)
    else:
        start, end = (f"timestamp '{day} 00:00:00'" for day in (window.start, window.end))
        within = f"{table.event_time} >= {start} and {table.event_time} < {end}"
        counted = f"select count(*) as nr from {warehouse.quoted_name(table.name)} where {within}"
        before = int(warehouse.query(counted)["nr"][0].as_py())
    emptied = before > 0 and content.rows == 0 and window is None
    same_source = state.source in ("", source)
    if emptied or (same_source and before >= FEW_ROWS and content.rows < before * LEAST_KEPT):
        months = f" of {window}" if window else ""
        raise ContractError(
            f"{table.name}: the source serves {content.rows:,} rows{months} instead of the {before:,} in the "
            f"table. Fewer than {LEAST_KEPT:.0%} are refused, and the table stays as it was. If the source "
            "is right, run again with rebuild: all (--rebuild)."
        )


def row_loss_warning(before: int | None, rows: int, emptied: Sequence[date]) -> str:
    """Return what to warn of after a load, in sentences; empty if there is nothing.

    before, rows: of the table; `before` is None for a first load.
    emptied: months that have no rows any more.
    """
    sentences = []
    if before is not None and rows < before * USUALLY_KEPT:
        sentences.append(f"The last load left {rows:,} rows where there were {before:,}.")
    if emptied:
        sentences.append(f"The last load left no rows of {name_months(emptied)}.")
    return " ".join(sentences)


def _hashed(column: pa.Field) -> str:
    """Return SQL for a value as text that differs from the text of any other value.

    A text begins with its length, so that no character in it can pass for the end of a column or for null.
    """
    name = sql.identifier(column.name)
    text = (
        f"strlen({name}) || ':' || {name}" if pa.types.is_string(column.type) else f"cast({name} as varchar)"
    )
    return f"coalesce({text}, '')"


def _write(connection: duckdb.DuckDBPyConnection, query: str, target: Path) -> None:
    try:
        connection.execute(f"copy ({query}) to {sql.literal(str(target))} (format parquet, compression zstd)")
    except duckdb.Error as error:
        raise ContractError(f"{target.name} could not be written ({error}).") from None
