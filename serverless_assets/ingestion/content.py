"""What rows say: their number and hash by month; and what changed rows make of those of a table."""

import base64
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import date, datetime

import duckdb

from serverless_assets import sql
from serverless_assets.hashing import digest
from serverless_assets.ingestion.raw_table import RawTable
from serverless_assets.ingestion.state import HASHED_BY, TableState, version_of
from serverless_assets.warehouse import Warehouse, is_deleted
from serverless_assets.warehouse.staging import StagedRows

# Hashes of rows are numbers of 64 bits.
MODULUS = 1 << 64


@dataclass(frozen=True)
class Part:
    """The rows of one month, or of a whole table: how many, and a hash of what they say.

    The hash is the number of rows and the sum of theirs, so that of other rows is found by the difference.
    """

    rows: int
    hash: str

    @classmethod
    def of(cls, rows: int, total: int) -> "Part":
        digits = base64.urlsafe_b64encode((total % MODULUS).to_bytes(8)).decode().rstrip("=")
        return cls(rows, f"{rows:x}.{digits}")

    @classmethod
    def sum_in(cls, hash: str) -> tuple[int, int]:
        """Return the number of rows and the sum of their hashes, given the hash of a part."""
        rows, digits = hash.split(".")[:2]
        return int(rows, 16), int.from_bytes(base64.urlsafe_b64decode(digits + "="))


NO_ROWS = Part(0, "no rows")


def parts_in(state: TableState | None) -> Mapping[date, Part]:
    """Return the months of a fact with this state, as far as it has them."""
    if state is None or state.months is None or state.hashed_by != HASHED_BY:
        return {}
    return {date.fromisoformat(day): Part(Part.sum_in(hash)[0], hash) for day, hash in state.months.items()}


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
    before = f"read_parquet({sql.literal(str(existing))})"
    key = ", ".join(map(sql.identifier, table.key))
    same_key = " and ".join(f"arrived.{name} = before.{name}" for name in map(sql.identifier, table.key))
    same_row = " and ".join(
        f"arrived.{name} is not distinct from before.{name}" for name in map(sql.identifier, table.columns)
    )
    live = f"not ({_is_deleted(table)})"
    with rows.area.cursor() as connection:
        connection.execute(
            f"delete from {rows.relation} as arrived using {before} as before where {same_key} and {same_row}"
        )
        if table.deleted:
            connection.execute(
                f"delete from {rows.relation} where {_is_deleted(table)}"
                f" and ({key}) not in (select ({key}) from {before})"
            )
        new, old = (
            f"from {rows.relation} where {live}",
            f"from {before} semi join {rows.relation} using ({key})",
        )
        added, removed = (_sums(connection, table, query) for query in (new, old))
        (first, last), (first_removed, last_removed) = (_edges(connection, table, q) for q in (new, old))
    existing.unlink()
    months = state.months or {} if table.event_time else {"": state.version}
    sums = {date.fromisoformat(day) if day else None: Part.sum_in(hash) for day, hash in months.items()}
    for month in added.keys() | removed.keys():
        (rows_before, before_total), more, less = (of.get(month, (0, 0)) for of in (sums, added, removed))
        sums[month] = rows_before + more[0] - less[0], before_total + more[1] - less[1]
    return replace(
        _content(table, sums),
        first=_edge(min, state.first, first, first_removed),
        last=_edge(max, state.last, last, last_removed),
    )


def content_of(rows: StagedRows, table: RawTable) -> Content:
    """Count and hash the rows, month by month for a fact."""
    with rows.area.cursor() as connection:
        first, last = _edges(connection, table, rows.query)
        return replace(_content(table, _sums(connection, table, rows.query)), first=first, last=last)


def _sums(
    connection: duckdb.DuckDBPyConnection, table: RawTable, query: str
) -> dict[date | None, tuple[int, int]]:
    """Return the number of rows and the sum of their hashes by month; a snapshot is one month, None."""
    columns = ", ".join(map(sql.identifier, table.schema.names))
    month = (
        f"cast(date_trunc('month', {sql.identifier(table.event_time)}) as date)"
        if table.event_time
        else "null"
    )
    # The sum does not depend on the order of rows.
    sums = connection.execute(
        f"select {month} as month, count(*), sum(hash({columns})) {query} group by month"
    ).fetchall()
    # The names make a renamed column new content.
    schema = int(digest(f"{table.schema.names} {table.schema.types}"), 16)
    return {month: (count, total + count * schema) for month, count, total in sums}


def _edges(connection: duckdb.DuckDBPyConnection, table: RawTable, query: str) -> tuple[str, str]:
    """Return the event times of the first and the last row of a fact; empty ones if it has no rows."""
    if not table.event_time:
        return "", ""
    at = sql.identifier(table.event_time)
    first, last = connection.execute(f"select min({at}), max({at}) {query}").fetchone() or (None, None)
    return (first.isoformat(), last.isoformat()) if first and last else ("", "")


def _edge(outer: Callable[[str, str], str], before: str, added: str, removed: str) -> str:
    """Return the outermost time of the rows once some were added and some removed; empty if unknown."""
    edge = outer(before, added or before)
    is_removed = edge == removed and edge != added
    return "" if not before or is_removed else edge


def _content(table: RawTable, sums: Mapping[date | None, tuple[int, int]]) -> Content:
    parts = {month: Part.of(*sums[month]) for month in sorted(sums, key=str) if sums[month][0]}
    if table.event_time:
        months = {month: part for month, part in parts.items() if month}
        hash = version_of(table.schema, {month.isoformat(): part.hash for month, part in months.items()})
        return Content(sum(part.rows for part in months.values()), hash, months)
    part = parts.get(None, Part.of(0, 0))
    return Content(part.rows, f"{part.hash}.{digest(f'{table.schema.names} {table.schema.types}')}", {})


def _is_deleted(table: RawTable) -> str:
    return is_deleted(table.shape, sql.identifier(table.deleted)) if table.deleted else "false"
