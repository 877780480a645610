"""Check a downloaded parquet file against its table's contract and write it in the catalogue's types."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from serverless_assets import sql
from serverless_assets.ingestion.catalog import RawTable
from serverless_assets.ingestion.column_types import (
    EARLIEST,
    END_OF_TIME,
    LARGEST_INTEGER,
    declared_type,
    has_text_form,
    is_text,
)

# A batch has as many rows as fit, whatever the length of their texts.
BATCH_ROWS, BATCH_BYTES = 64 * 1024, 32 << 20
BUFFER_BYTES = 1 << 20
LONGEST_FOUND = 500
MEMORY_LIMIT = "512MB"


class ContractError(Exception):
    """The file breaks the contract: the message names table, column, what was expected and found."""


@dataclass(frozen=True)
class Problem:
    """One way in which a table breaks its contract."""

    table: str
    column: str
    expected: str
    found: str

    def __str__(self) -> str:
        # A value or a list of columns may be of any length.
        shortened = self.found if len(self.found) <= LONGEST_FOUND else f"{self.found[:LONGEST_FOUND]} ..."
        return f"{self.table}.{self.column}: expected {self.expected}, found {shortened}"


@contextmanager
def audit_connection(scratch: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """Yield an in-memory DuckDB that spills into `scratch`, so that it can query large files."""
    config: dict[str, str | bool | int | float | list[str]] = {
        "memory_limit": MEMORY_LIMIT,
        "temp_directory": str(scratch),
        # Keeping the order of rows would hold them in memory, and tables have no order.
        "preserve_insertion_order": "false",
    }
    with closing(duckdb.connect(config=config)) as connection:
        yield connection


def parquet(path: Path) -> str:
    """Return a parquet file as a table in SQL."""
    return f"read_parquet({sql.literal(str(path))})"


def conform(source: Path, table: RawTable, target: Path) -> int:
    """Rewrite `source` as `target` with exactly the table's source columns and types.

    Streams batch by batch, so that memory does not grow with the table. Types that convert without
    loss are taken, columns beyond the contract are left out.

    Returns:
        The number of rows, the same in both files.

    Raises:
        ContractError: not readable as parquet, a column is missing, or a value does not convert or lies
            beyond the contract's bounds.
    """
    try:
        # Pre-buffering would hold whole row groups, which may be as large as the table.
        file = pq.ParquetFile(source, pre_buffer=False, buffer_size=BUFFER_BYTES)
    except (pa.ArrowException, OSError) as error:
        raise ContractError(f"{table.name}: the file cannot be read as parquet ({error}).") from None
    with file:
        refuse(schema_problems(table, file.schema_arrow))
        rows, batch_rows = 0, _rows_per_batch(source, table, file.schema_arrow, target.parent)
        with pq.ParquetWriter(target, table.source_schema, compression="zstd") as writer:
            try:
                for batch in file.iter_batches(batch_rows, columns=table.source_schema.names):
                    columns = [_cast(batch.column(name), table, name) for name in table.columns]
                    writer.write_batch(pa.RecordBatch.from_arrays(columns, schema=table.source_schema))
                    rows += batch.num_rows
            except (pa.ArrowException, OSError) as error:
                raise ContractError(f"{table.name}: the file is damaged or encrypted ({error}).") from None
    if rows != file.metadata.num_rows:
        raise ContractError(
            f"{table.name}: the file promises {file.metadata.num_rows:,} rows and holds {rows:,}."
        )
    return rows


def schema_problems(table: RawTable, served: pa.Schema) -> list[Problem]:
    """Return what is missing from `served`, or of a type that can never hold what the contract asks for."""
    problems = []
    for name, expected in table.columns.items():
        if name not in served.names:
            columns = ", ".join(served.names) or "no columns"
            problems.append(Problem(table.name, name, str(expected), f"no such column among {columns}"))
        elif (times := served.names.count(name)) > 1:
            problems.append(Problem(table.name, name, str(expected), f"{times} columns of that name"))
        elif not is_convertible(served.field(name).type, expected):
            found = str(served.field(name).type)
            if declared_type(served.field(name).type) is None:
                found += ", which cannot be loaded (serve it as text, or leave the column out of the entry)"
            problems.append(Problem(table.name, name, str(expected), found))
    return problems


def is_convertible(served: pa.DataType, expected: pa.DataType) -> bool:
    """Whether some values of `served` mean the same as `expected`; each value is checked on arrival."""
    if pa.types.is_dictionary(served):
        served = served.value_type
    if pa.types.is_null(served) or served == expected:
        return True
    if pa.types.is_string(expected):
        return is_text(served) or has_text_form(served)
    if pa.types.is_integer(expected) or pa.types.is_floating(expected):
        return pa.types.is_integer(served) or pa.types.is_floating(served) or pa.types.is_decimal(served)
    if pa.types.is_timestamp(expected):
        return pa.types.is_timestamp(served) or pa.types.is_date(served)
    return False


def refuse(problems: list[Problem]) -> None:
    """Raise `ContractError` with every problem, if there are any."""
    if problems:
        raise ContractError("; ".join(map(str, problems)) + ".")


def _rows_per_batch(source: Path, table: RawTable, served: pa.Schema, scratch: Path) -> int:
    """Return how many rows of the file to read at a time, once none of its texts is too long.

    DuckDB measures texts without copying those that repeat, and within its memory limit: a single value may
    be larger than memory, and a small file may repeat a large one on each of its rows.

    Raises:
        ContractError: a text is too long.
    """
    limits = {name: most for name, most in table.text_columns.items() if is_text(_plain(served, name))}
    if not limits:
        return BATCH_ROWS
    positions = [served.names.index(name) + 1 for name in limits]
    lengths = ", ".join(f"max(strlen(#{position}))" for position in positions)
    try:
        with audit_connection(scratch) as connection:
            longest = connection.execute(f"select {lengths} from {parquet(source)}").fetchone() or ()
    except duckdb.OutOfMemoryException:
        expected = f"texts of at most {max(limits.values()):,} bytes"
        raise ContractError(
            f"{table.name}: expected {expected}, found one that does not fit into {MEMORY_LIMIT} of memory."
        ) from None
    except duckdb.Error:
        # A file that DuckDB cannot read is judged where it is read, few rows at a time.
        return BATCH_ROWS // 64
    refuse(
        [
            Problem(table.name, name, f"texts of at most {most:,} bytes", f"one of {length:,} bytes")
            for (name, most), length in zip(limits.items(), longest, strict=True)
            if (length or 0) > most
        ]
    )
    return max(1, min(BATCH_ROWS, BATCH_BYTES // max(1, sum(length or 0 for length in longest))))


def _plain(served: pa.Schema, column: str) -> pa.DataType:
    kind = served.field(column).type
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _cast(array: pa.Array, table: RawTable, column: str) -> pa.Array:
    expected, served = table.columns[column], array.type
    try:
        if pa.types.is_dictionary(served):
            array = array.dictionary_decode()
        if pa.types.is_timestamp(served) and served.tz is not None:
            # An instant means the same in every zone; the warehouse holds it in UTC.
            array = array.cast(pa.timestamp(served.unit, "UTC")).cast(pa.timestamp(served.unit))
        if isinstance(served, pa.UuidType):
            array = pa.array(
                [None if value is None else str(value) for value in array.to_pylist()], pa.string()
            )
        converted = array.cast(expected, safe=True)
        # Text of the expected type is not looked at by a cast: it may be no UTF-8.
        converted.validate(full=True)
    except pa.ArrowException as error:
        problem = Problem(table.name, column, str(expected), f"{served} that does not convert ({error})")
        raise ContractError(f"{problem}.") from None
    beyond = beyond_bounds(converted)
    if beyond:
        raise ContractError(f"{Problem(table.name, column, *beyond)}.")
    return converted


def beyond_bounds(values: pa.Array) -> tuple[str, str] | None:
    """Return what is allowed, and the first value that is not; None if there is no such value."""
    if pa.types.is_timestamp(values.type):
        first, end = (pa.scalar(at, values.type) for at in (EARLIEST, END_OF_TIME))
        allowed = f"times from {EARLIEST:%Y-%m-%d} up to {END_OF_TIME:%Y-%m-%d}"
        within = pc.and_(pc.greater_equal(values, first), pc.less(values, end))
    elif pa.types.is_integer(values.type):
        allowed = f"numbers from -{LARGEST_INTEGER:,} to {LARGEST_INTEGER:,}"
        within = pc.and_(pc.greater_equal(values, -LARGEST_INTEGER), pc.less_equal(values, LARGEST_INTEGER))
    elif pa.types.is_floating(values.type):
        allowed, within = "finite numbers", pc.is_finite(values)
    else:
        return None
    # A null is neither within nor beyond.
    beyond = values.filter(pc.invert(within))
    return (allowed, str(beyond[:1].cast(pa.string())[0])) if len(beyond) else None
