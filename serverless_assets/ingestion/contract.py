"""Hold a downloaded parquet file to its table's contract and write it in the catalogue's types."""

from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from serverless_assets.ingestion.tables import Table

BATCH_ROWS = 64 * 1024
BUFFER_BYTES = 1 << 20


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
        return f"{self.table}.{self.column}: expected {self.expected}, found {self.found}"


def conform(source: Path, table: Table, target: Path) -> int:
    """Rewrite `source` as `target` with exactly the table's source columns and types.

    Streams batch by batch, so that memory does not grow with the table. Types that convert without
    loss are taken, columns beyond the contract are left out.

    Returns:
        The number of rows, the same in both files.

    Raises:
        ContractError: not readable as parquet, a column is missing, or a value does not convert.
    """
    try:
        # Pre-buffering would hold whole row groups, which may be as large as the table.
        file = pq.ParquetFile(source, pre_buffer=False, buffer_size=BUFFER_BYTES)
    except (pa.ArrowException, OSError) as error:
        raise ContractError(f"{table.name}: the file cannot be read as parquet ({error}).") from None
    with file:
        refuse(schema_problems(table, file.schema_arrow))
        rows = 0
        with pq.ParquetWriter(target, table.source_schema, compression="zstd") as writer:
            try:
                for batch in file.iter_batches(BATCH_ROWS, columns=table.source_schema.names):
                    writer.write_batch(_convert(batch, table))
                    rows += batch.num_rows
            except (pa.ArrowException, OSError) as error:
                raise ContractError(f"{table.name}: the file is damaged ({error}).") from None
    if rows != file.metadata.num_rows:
        raise ContractError(
            f"{table.name}: the file promises {file.metadata.num_rows:,} rows and holds {rows:,}."
        )
    return rows


def schema_problems(table: Table, found: pa.Schema) -> list[Problem]:
    """What is missing from `found`, or of a type that can never hold what the contract asks for."""
    problems = []
    for name, expected in table.columns.items():
        if name not in found.names:
            columns = ", ".join(found.names) or "no columns"
            problems.append(Problem(table.name, name, str(expected), f"no such column among {columns}"))
        elif (times := found.names.count(name)) > 1:
            problems.append(Problem(table.name, name, str(expected), f"{times} columns of that name"))
        elif not is_convertible(found.field(name).type, expected):
            problems.append(Problem(table.name, name, str(expected), str(found.field(name).type)))
    return problems


def is_convertible(found: pa.DataType, expected: pa.DataType) -> bool:
    """Whether some values of `found` mean the same as `expected`; each value is checked on arrival."""
    if pa.types.is_dictionary(found):
        found = found.value_type
    if pa.types.is_null(found) or found == expected:
        return True
    if pa.types.is_string(expected):
        return _is_text(found) or pa.types.is_integer(found)
    if pa.types.is_integer(expected) or pa.types.is_floating(expected):
        return pa.types.is_integer(found) or pa.types.is_floating(found) or pa.types.is_decimal(found)
    if pa.types.is_timestamp(expected):
        return pa.types.is_timestamp(found) or pa.types.is_date(found)
    return False


def refuse(problems: list[Problem]) -> None:
    """Raise `ContractError` with every problem, if there are any."""
    if problems:
        raise ContractError("; ".join(map(str, problems)) + ".")


def _is_text(found: pa.DataType) -> bool:
    return pa.types.is_string(found) or pa.types.is_large_string(found) or pa.types.is_string_view(found)


def _convert(batch: pa.RecordBatch, table: Table) -> pa.RecordBatch:
    arrays = [_cast(batch.column(name), table, name) for name in table.columns]
    return pa.RecordBatch.from_arrays(arrays, schema=table.source_schema)


def _cast(array: pa.Array, table: Table, column: str) -> pa.Array:
    expected, found = table.columns[column], array.type
    try:
        if pa.types.is_dictionary(found):
            array = array.dictionary_decode()
        if pa.types.is_timestamp(found) and found.tz is not None:
            # An instant means the same in every zone; the warehouse holds it in UTC.
            array = array.cast(pa.timestamp(found.unit, "UTC")).cast(pa.timestamp(found.unit))
        converted = array.cast(expected, safe=True)
        # Text of the expected type is not looked at by a cast: it may be no UTF-8.
        converted.validate(full=True)
        return converted
    except pa.ArrowException as error:
        problem = Problem(table.name, column, str(expected), f"{found} that does not convert ({error})")
        raise ContractError(f"{problem}.") from None
