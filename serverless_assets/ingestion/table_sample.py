"""What a file says of a table: its columns, and guesses of its key and event time."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import combinations
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from serverless_assets.errors import UserError
from serverless_assets.ingestion.check_rules import AHEAD
from serverless_assets.ingestion.contract import declared_type
from serverless_assets.ingestion.raw_table import EARLIEST, END_OF_TIME, FRESH, TIMESTAMP

SAMPLE_ROWS = 10_000
# A pair of columns is looked for among the first ones alone.
COLUMNS_OF_A_PAIR = 8
# The time of a change moves with each change, and the row with it to another month.
TIME_OF_A_CHANGE = re.compile(r"updat|modif|chang|delet|sync|load|ingest|extract", re.IGNORECASE)
DECIMAL = r"^-?(0|[1-9]\d*)(\.\d+)?$"


class AddTableError(UserError):
    """A table that cannot be declared; the message says why and what to do."""


@dataclass(frozen=True)
class Sample:
    """What a file says of a table.

    columns: names and data types.
    others: columns that cannot be loaded, and their types.
    event_time: the column whose times are like those of events, if there is one.
    not_event_time: else the first column of times, and what is unlike events in it.
    decimals: the columns of text whose values all are numbers, some with a fraction.
    """

    columns: Mapping[str, str]
    others: Mapping[str, str]
    key: Sequence[str]
    event_time: str | None
    not_event_time: tuple[str, str] | None
    decimals: Sequence[str]
    rows: int


def read_sample(path: Path, table: str, has_all_rows: bool, now: datetime | None = None) -> Sample:
    """Return what the schema and the first rows of a file say of a table.

    Args:
        has_all_rows: whether the file has all rows of the table, and not only its first page.
        now: in UTC without a zone; the present by default.

    Raises:
        AddTableError: the file cannot be read, or no columns identify its rows.
    """
    try:
        with pq.ParquetFile(path) as file:
            kinds = {field.name: declared_type(field.type) for field in file.schema_arrow}
            others = {field.name: str(field.type) for field in file.schema_arrow if not kinds[field.name]}
            columns = {name: kind for name, kind in kinds.items() if kind}
            batch = next(file.iter_batches(SAMPLE_ROWS, columns=list(columns)), None)
    except (pa.ArrowException, OSError) as error:
        raise AddTableError(f"The file of {table} cannot be read as parquet ({error}).") from None
    if batch is None or not batch.num_rows or not columns:
        raise AddTableError(f"The file of {table} has no rows or columns to load: give one that has some.")
    if quoted := [name for name in columns if '"' in name or "`" in name]:
        raise AddTableError(
            f"The column {quoted[0]!r} of {table} has a quotation mark in its name, which dbt does not "
            "quote: have the source serve it under another name."
        )
    rows = pa.Table.from_batches([batch])
    filled = [name for name in columns if not rows[name].null_count]
    key = _guess_key([name for name in filled if columns[name] in ("string", "bigint")], rows, table)
    now = now or datetime.now(UTC).replace(tzinfo=None)
    doubts = {
        name: _unlike_events(path, name, rows[name], has_all_rows, now)
        for name in filled
        if columns[name] == "timestamp" and name not in key and not TIME_OF_A_CHANGE.search(name)
    }
    event_time = next((name for name, doubt in doubts.items() if not doubt), None)
    decimals = [name for name, kind in columns.items() if kind == "string" and _has_decimals(rows[name])]
    doubt = None if event_time else next(iter(doubts.items()), None)
    return Sample(columns, others, key, event_time, doubt, decimals, rows.num_rows)


def _guess_key(columns: Sequence[str], rows: pa.Table, table: str) -> Sequence[str]:
    """Return the column, or else the pair, of which no two rows have the same values."""
    likely = sorted(
        columns, key=lambda name: (name.lower() != "id", not re.search(r"_?(id|key)$", name, re.I))
    )
    groups: list[tuple[str, ...]] = [(name,) for name in likely]
    groups += combinations(columns[:COLUMNS_OF_A_PAIR], 2)
    for group in groups:
        if rows.group_by(list(group)).aggregate([]).num_rows == rows.num_rows:
            return group
    raise AddTableError(
        f"No column of {table}, nor two of them, identifies its rows. Add the entry by hand, with the `key` "
        "that does: docs/raw-tables.md shows one."
    )


def _unlike_events(path: Path, name: str, times: pa.ChunkedArray, has_all_rows: bool, now: datetime) -> str:
    """Return what shows that times are not those of events, in a few words; empty if they may be.

    Events come often and up to the present: the check of freshness would warn of others forever.
    """
    bounds = [_bounds(times)]
    if len(times) == SAMPLE_ROWS:
        with pq.ParquetFile(path) as file:
            bounds += [_bounds(batch.column(0)) for batch in file.iter_batches(columns=[name])]
    known = [of_batch for of_batch in bounds if of_batch]
    if len(known) < len(bounds):
        return f"some are missing, before {EARLIEST:%Y} or after {END_OF_TIME:%Y}, which cannot be loaded"
    oldest, newest = known[0]
    gap = (newest - oldest) / max(len(times) - 1, 1)
    if len(times) < 2 or gap > FRESH:
        return f"one row every {gap / timedelta(days=1):,.0f} days" if len(times) > 1 else "a single row"
    newest = max(last for _, last in known)
    if newest > now + AHEAD or (has_all_rows and newest < now - FRESH):
        return f"the newest is of {newest:%Y-%m-%d}"
    return ""


def _bounds(times: pa.Array | pa.ChunkedArray) -> tuple[datetime, datetime] | None:
    """Return the first and the last of some times, in UTC; None if one cannot be that of an event."""
    numbers = pc.min_max(times.cast(TIMESTAMP, safe=False).cast(pa.int64())).as_py()
    epoch, step = datetime(1970, 1, 1), timedelta(microseconds=1)
    first, last = numbers["min"], numbers["max"]
    if times.null_count or first < (EARLIEST - epoch) // step or last >= (END_OF_TIME - epoch) // step:
        return None
    return epoch + first * step, epoch + last * step


def _has_decimals(values: pa.ChunkedArray) -> bool:
    """Say whether all texts are numbers, and some have a fraction; whole numbers may be ids or codes."""
    values = values.drop_null()
    if not len(values) or not (pa.types.is_string(values.type) or pa.types.is_large_string(values.type)):
        return False
    is_number, has_point = pc.match_substring_regex(values, DECIMAL), pc.match_substring(values, ".")
    return bool(pc.all(is_number).as_py() and pc.any(has_point).as_py())
