"""What rows say: their number and hash by month; and what changed rows make of those of a table."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date, datetime

import duckdb

from serverless_assets import sql
from serverless_assets.hashing import digest
from serverless_assets.ingestion.raw_table import RawTable
from serverless_assets.ingestion.state import MODULUS, Part, TableState, version_of
from serverless_assets.warehouse import Warehouse, is_deleted
from serverless_assets.warehouse.staging import StagedRows

# The month of all rows of a table without event time.
SNAPSHOT = date.min


@dataclass(frozen=True)
class Content:
    """The content of a table, whatever the order of its rows; `months` is empty for a snapshot.

    first, last: the event times of the first and the last row of a fact, in ISO format; empty if unknown.
    """

    rows: int
    hash: str
    months: Mapping[date, Part]
    first: str = ""
    last: str = ""


def latest_versions(rows: StagedRows, table: RawTable, since: str) -> str:
    """Keep the last version of each row by its `updated_at`: pages of an API may have a row twice.

    Rows that did not change since are left out of changes; rows that are deleted, of a whole table.

    Returns:
        The greatest `updated_at`, as it is requested the next time.
    """
    updated_at, columns = sql.identifier(str(table.updated_at)), ", ".join(map(sql.identifier, table.columns))
    key = ", ".join(map(sql.identifier, table.key))
    with rows.area.cursor() as connection:
        (latest,) = connection.execute(f"select max({updated_at}) from {rows.relation}").fetchone() or (None,)
        if since:
            kind = connection.sql(f"select {updated_at} from {rows.relation}").types[0]
            condition = f"{updated_at} < cast({sql.literal(since)} as {kind})"
            connection.execute(f"delete from {rows.relation} where {condition}")
        connection.execute(
            f"delete from {rows.relation} where rowid in ("
            f"select unnest(list(rowid order by {updated_at} desc, hash({columns}))[2:]) from {rows.relation}"
            f" group by {key} having count(*) > 1)"
        )
        if table.deleted and not since:
            connection.execute(f"delete from {rows.relation} where {_is_deleted(table)}")
    if latest is None:
        return since
    return f"{latest.isoformat()}Z" if isinstance(latest, datetime) else str(latest)


def changes(rows: StagedRows, table: RawTable, warehouse: Warehouse, state: TableState) -> Content:
    """Leave just the rows that differ from the table's of the same key, and those to delete from it.

    Returns:
        The content of the whole table once they have replaced those.
    """
    existing = rows.area.scratch / f"{rows.name}_existing.parquet"
    warehouse.save_rows_with_keys(table.shape, rows.parquet(), existing)
    file = f"read_parquet({sql.literal(str(existing))})"
    key = ", ".join(map(sql.identifier, table.key))
    same_key = " and ".join(f"arrived.{name} = before.{name}" for name in map(sql.identifier, table.key))
    same_row = " and ".join(
        f"arrived.{name} is not distinct from before.{name}" for name in map(sql.identifier, table.columns)
    )
    live = f"not ({_is_deleted(table)})"
    with rows.area.cursor() as connection:
        connection.execute(
            f"delete from {rows.relation} as arrived using {file} as before where {same_key} and {same_row}"
        )
        if table.deleted:
            connection.execute(
                f"delete from {rows.relation} where {_is_deleted(table)}"
                f" and ({key}) not in (select ({key}) from {file})"
            )
        new = f"from {rows.relation} where {live}"
        old = f"from {file} semi join {rows.relation} using ({key})"
        added, first, last = _parts(connection, table, new)
        removed, first_removed, last_removed = _parts(connection, table, old)
    existing.unlink()
    before = state.months or {} if table.event_time else {SNAPSHOT: Part.read(state.version)}
    parts = {
        month: before.get(month, Part()) + added.get(month, Part()) - removed.get(month, Part())
        for month in before.keys() | added.keys() | removed.keys()
    }
    first = _edge(min, state.first, first, first_removed)
    return _content(table, parts, first, _edge(max, state.last, last, last_removed))


def content_of(rows: StagedRows, table: RawTable) -> Content:
    """Count and hash the rows, month by month for a fact."""
    with rows.area.cursor() as connection:
        return _content(table, *_parts(connection, table, rows.query))


def _parts(
    connection: duckdb.DuckDBPyConnection, table: RawTable, query: str
) -> tuple[dict[date, Part], str, str]:
    """Return the rows of each month, and the event times of the first and the last row; empty without any.

    The rows of a snapshot are all of the month `SNAPSHOT`.
    """
    columns = ", ".join(map(sql.identifier, table.schema.names))
    month, first, last = f"date '{SNAPSHOT}'", "null", "null"
    if table.event_time:
        at = sql.identifier(table.event_time)
        month, first, last = f"cast(date_trunc('month', {at}) as date)", f"min({at})", f"max({at})"
    # The sum does not depend on the order of rows.
    months = connection.execute(
        f"select {month} as month, count(*), sum(hash({columns})), {first}, {last} {query} group by month"
    ).fetchall()
    # The names make a renamed column new content.
    schema = int(digest(f"{table.schema.names} {table.schema.types}"), 16)
    parts = {month: Part(count, (total + count * schema) % MODULUS) for month, count, total, *_ in months}
    times = [time.isoformat() for *_, first, last in months for time in (first, last) if time]
    return parts, min(times, default=""), max(times, default="")


def _edge(outer: Callable[[str, str], str], before: str, added: str, removed: str) -> str:
    """Return the outermost time of the rows once some were added and some removed; empty if unknown."""
    edge = outer(before, added or before)
    is_removed = edge == removed and edge != added
    return "" if not before or is_removed else edge


def _content(table: RawTable, parts: Mapping[date, Part], first: str, last: str) -> Content:
    if table.event_time:
        months = {month: parts[month] for month in sorted(parts) if parts[month].rows}
        rows = sum(part.rows for part in months.values())
        return Content(rows, version_of(table.schema, months), months, first, last)
    part = parts.get(SNAPSHOT, Part())
    return Content(part.rows, f"{part.hash}.{digest(f'{table.schema.names} {table.schema.types}')}", {})


def _is_deleted(table: RawTable) -> str:
    return is_deleted(table.shape, sql.identifier(table.deleted)) if table.deleted else "false"
