"""Check a file against its table's contract, and read it in the catalogue's types.

DuckDB reads the file once: one query casts each value, refuses the first that would change or that the
contract does not allow, and writes the rows.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from serverless_assets import sql
from serverless_assets.ingestion.raw_table import EARLIEST, END_OF_TIME, LARGEST_INTEGER, RawTable

LONGEST_FOUND = 500
# Any whole number of so many digits is within the bounds of a bigint.
DIGITS_OF_INTEGER = 15
# What an error that a query raises itself begins with: the rest is a sentence.
REFUSAL = "refused: "
SQL_TYPES = {"binary": "blob", "string": "varchar", "int64": "bigint", "double": "double", "bool": "boolean"}
# The times that a text may mean: ISO 8601, and seconds or milliseconds since 1970.
DAY_AND_TIME = r"\d{4}-\d{2}-\d{2}([T ]\d{2}:\d{2}(:\d{2}([.]\d+)?)?)?"
OFFSET = r"(Z|[+-]\d{2}(:?\d{2})?)"
UNIX_SECONDS, UNIX_MILLISECONDS = r"\d{9,10}([.]\d+)?", r"\d{12,13}"
DIGITS_OF_SECOND = {"s": 0, "ms": 3, "us": 6, "ns": 9}


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


def read_schema(table: RawTable, path: Path) -> pa.Schema:
    """Return the columns of a parquet file, if the table's can be read from them.

    Raises:
        ContractError: it is not readable as parquet, or a column is missing or of another type.
    """
    try:
        schema = pq.read_schema(path)
    except (pa.ArrowException, OSError) as error:
        raise ContractError(f"{table.name}: the file cannot be read as parquet ({error}).") from None
    refuse(schema_problems(table, schema))
    return schema


def rows_query(table: RawTable, path: Path, served: pa.Schema, types: Sequence[object]) -> str:
    """Return a query for the rows of a file with exactly the table's source columns and types.

    Types that convert without loss are taken, columns beyond the contract are left out. The query fails for
    a value that does not convert or lies beyond the contract's bounds; `explain` says which.

    Args:
        types: DuckDB's types of the file's columns.
    """
    positions = {name: served.names.index(name) for name in table.columns}
    columns = [_column(table, name, served.field(n).type, n, types[n]) for name, n in positions.items()]
    return f"select {', '.join(columns)} from {_file(path, served)}"


def _file(path: Path, served: pa.Schema) -> str:
    # By position: names that differ in their case alone are one to DuckDB.
    columns = ", ".join(f"c{position}" for position in range(len(served.names)))
    return f"read_parquet({sql.literal(str(path))}) as file({columns})"


def schema_problems(table: RawTable, served: pa.Schema) -> list[Problem]:
    """Return what is missing from `served`, or of a type that can never hold what the contract asks for."""
    problems = []
    for name, expected in table.columns.items():
        if name not in served.names:
            there_is = f"no column {name!r}; the file has {', '.join(served.names) or 'none'}"
            problems.append(Problem(table.name, name, str(expected), there_is))
        elif (times := served.names.count(name)) > 1:
            problems.append(Problem(table.name, name, str(expected), f"{times} columns of that name"))
        elif table.rest is None and not is_convertible(served.field(name).type, expected):
            kind = str(served.field(name).type)
            if declared_type(served.field(name).type) is None:
                kind += ", which cannot be loaded (serve it as text, or leave the column out of the entry)"
            problems.append(Problem(table.name, name, str(expected), kind))
    return problems


def is_convertible(served: pa.DataType, expected: pa.DataType) -> bool:
    """Whether some values of `served` mean the same as `expected`; each value is checked on arrival."""
    served = _value_type(served)
    if pa.types.is_null(served) or served == expected:
        return True
    if pa.types.is_string(expected):
        return is_text(served) or has_text_form(served)
    if pa.types.is_integer(expected) or pa.types.is_floating(expected):
        is_decimal = (
            pa.types.is_decimal(served) if pa.types.is_floating(expected) else is_exact_decimal(served)
        )
        return pa.types.is_integer(served) or pa.types.is_floating(served) or is_decimal
    if pa.types.is_timestamp(expected):
        return pa.types.is_timestamp(served) or pa.types.is_date(served)
    return pa.types.is_binary(expected) and is_binary(served)


def refuse(problems: list[Problem]) -> None:
    """Raise `ContractError` with every problem, if there are any."""
    if problems:
        raise ContractError("; ".join(map(str, problems)) + ".")


def _column(table: RawTable, name: str, served: pa.DataType, position: int, type: object) -> str:
    """Return SQL for a column in its type by the contract, which fails for a value that may not be loaded."""
    expected, kind, value = table.columns[name], _value_type(served), f"c{position}"
    if pa.types.is_timestamp(kind) and kind.unit == "ns" and kind.tz:
        # DuckDB casts an instant in nanoseconds in two steps.
        value, type = f"cast({value} as timestamp_ns)", "timestamp_ns"
    converted, loss = value, ""
    if pa.types.is_null(kind):
        converted = f"cast(null as {sql_type(expected)})"
    elif pa.types.is_time(kind):
        # A time as Arrow writes it: with all digits of its unit.
        converted, digits = f"cast({value} as varchar)", DIGITS_OF_SECOND[kind.unit]
        point = f"case when contains({converted}, '.') then '' else '.' end"
        converted = f"rpad({converted} || {point}, {9 + digits}, '0')" if digits else converted
    elif pa.types.is_nested(kind):
        converted = value = f"cast(to_json({value}) as varchar)"
    elif is_text(kind) and not is_text(expected):
        converted, loss = _parsed(value, expected)
        loss = f"{value} is not null and {loss}"
    elif kind != expected and not is_text(kind) and not is_binary(kind):
        converted = f"try_cast({value} as {sql_type(expected)})"
        loss = f"{converted} is null"
        # Digits that a double has not are given up for a decimal, and nothing else is.
        if not (is_text(expected) or (pa.types.is_decimal(kind) and pa.types.is_floating(expected))):
            loss = f"try_cast({converted} as {type}) is distinct from {value}"
        loss = f"{value} is not null and {loss}"
    text = f"left(cast({value} as varchar), {LONGEST_FOUND})"
    cases = []
    if loss:
        value_lost = (f"{served} that does not convert (", text, " would change, or is out of bounds)")
        cases.append((loss, str(expected), value_lost))
    if pa.types.is_timestamp(expected):
        first, end = (f"timestamp '{at:%Y-%m-%d}'" for at in (EARLIEST, END_OF_TIME))
        allowed = f"times from {EARLIEST:%Y-%m-%d} up to {END_OF_TIME:%Y-%m-%d}"
        cases.append((f"{converted} < {first} or {converted} >= {end}", allowed, ("", text, "")))
    elif pa.types.is_integer(expected):
        allowed = f"numbers from -{LARGEST_INTEGER:,} to {LARGEST_INTEGER:,}"
        cases.append((f"abs({converted}) > {LARGEST_INTEGER}", allowed, ("", text, "")))
    elif pa.types.is_floating(expected):
        cases.append((f"not isfinite({converted})", "finite numbers", ("", text, "")))
    elif (is_text(kind) and is_text(expected)) or is_binary(kind) or pa.types.is_nested(kind):
        longest, size = table.longest_values[name], "octet_length" if is_binary(kind) else "strlen"
        allowed = f"{'values' if is_binary(kind) else 'texts'} of at most {longest:,} bytes"
        length = f"format('{{:,}}', {size}({value}))"
        cases.append((f"{size}({value}) > {longest}", allowed, ("one of ", length, " bytes")))
    refusals = ""
    for condition, allowed, (before, found_value, after) in cases:
        sentence = REFUSAL + str(Problem(table.name, name, allowed, before))
        error = f"{sql.literal(sentence)} || {found_value} || {sql.literal(after + '.')}"
        refusals += f" when {condition} then error({error})"
    column = f"case{refusals} else {converted} end" if refusals else converted
    return f"{column} as {sql.identifier(name)}"


def _parsed(text: str, expected: pa.DataType) -> tuple[str, str]:
    """Return SQL for the value that a text of a REST API means, and for whether it means none."""
    if pa.types.is_timestamp(expected):
        # A cast to a timestamp leaves out the offset, and one to an instant takes texts without for local.
        seconds = f"try_cast({text} as decimal(20, 6))"
        converted = (
            f"case when regexp_full_match({text}, '{DAY_AND_TIME}') then try_cast({text} as timestamp)"
            f" when regexp_full_match({text}, '{DAY_AND_TIME} ?{OFFSET}')"
            f" then make_timestamp(epoch_us(try_cast({text} as timestamptz)))"
            f" when regexp_full_match({text}, '{UNIX_SECONDS}')"
            f" then make_timestamp(cast({seconds} * 1000000 as bigint))"
            f" when regexp_full_match({text}, '{UNIX_MILLISECONDS}')"
            f" then make_timestamp(try_cast({text} as bigint) * 1000) end"
        )
        return converted, f"{converted} is null"
    converted = f"try_cast({text} as {sql_type(expected)})"
    if pa.types.is_integer(expected):
        return converted, f"({converted} is null or try_cast({text} as double) is distinct from {converted})"
    return converted, f"{converted} is null"


def sql_type(kind: pa.DataType) -> str:
    """Return DuckDB's type for a type of the contract."""
    return SQL_TYPES.get(str(kind), "timestamp")


def _value_type(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def explain(
    connection: duckdb.DuckDBPyConnection, table: RawTable, path: Path, served: pa.Schema, error: duckdb.Error
) -> str:
    """Return why a file could not be read, in a sentence that names the column if it is the values of one."""
    _, refusal, sentence = str(error).partition(REFUSAL)
    if refusal:
        return sentence
    for name, expected in table.columns.items():
        try:
            values = f"c{served.names.index(name)}"
            connection.execute(f"select bit_xor(hash({values})) from {_file(path, served)}")
        except (duckdb.ConversionException, duckdb.InvalidInputException) as cause:
            if isinstance(cause, duckdb.ConversionException) or "not valid UTF8" in str(cause):
                kind = served.field(name).type
                reason = "text that is not UTF-8" if is_text(_value_type(kind)) else "a value out of bounds"
                problem = Problem(table.name, name, str(expected), f"{kind} that does not convert ({reason})")
                return f"{problem}."
            return f"{table.name}: the file is damaged or encrypted ({_first_line(cause)})."
        except duckdb.Error as cause:
            return f"{table.name}: the file is damaged or encrypted ({_first_line(cause)})."
    return f"{table.name}: its rows could not be written ({_first_line(error)})."


def _first_line(error: duckdb.Error) -> str:
    return str(error).strip().splitlines()[0]


def declared_type(served: pa.DataType) -> str | None:
    """Return the `data_type` that holds all values of a type that a source serves; None if none does."""
    kind = _value_type(served)
    if pa.types.is_boolean(kind):
        return "boolean"
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        return "timestamp"
    if pa.types.is_floating(kind):
        return "double"
    if pa.types.is_integer(kind):
        return "bigint"
    if pa.types.is_decimal(kind) and kind.scale > 0:
        return "double"
    if pa.types.is_decimal(kind) and kind.precision <= DIGITS_OF_INTEGER:
        return "bigint"
    if is_binary(kind):
        return "binary"
    return "string" if is_text(kind) or has_text_form(kind) else None


def is_text(kind: pa.DataType) -> bool:
    """Whether a type is one of Arrow's for text."""
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)


def is_binary(kind: pa.DataType) -> bool:
    """Whether a type is one of Arrow's for bytes."""
    is_variable = pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind)
    return is_variable or pa.types.is_fixed_size_binary(kind)


def has_text_form(kind: pa.DataType) -> bool:
    """Whether values of a type can be loaded as text: those that the warehouses have other types for."""
    is_whole = pa.types.is_integer(kind) or (is_exact_decimal(kind) and kind.scale == 0)
    return is_whole or pa.types.is_time(kind) or isinstance(kind, pa.UuidType) or pa.types.is_nested(kind)


def is_exact_decimal(kind: pa.DataType) -> bool:
    """Whether DuckDB reads a decimal as one; it makes a double of more than 38 digits."""
    return pa.types.is_decimal(kind) and kind.precision <= 38
