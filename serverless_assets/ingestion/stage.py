"""Read a file into a staged table in the catalogue's types, dated by its parent.

DuckDB reads the file once: one query casts each value, refuses the first that would change or that the
contract does not allow, and writes the rows.
"""

from collections.abc import Sequence
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from serverless_assets import sql
from serverless_assets.ingestion.contract import (
    LONGEST_FOUND,
    ContractError,
    Problem,
    is_binary,
    is_text,
    refuse,
    schema_problems,
    sql_type,
    value_type,
)
from serverless_assets.ingestion.raw_table import EARLIEST, END_OF_TIME, LARGEST_INTEGER, RawTable
from serverless_assets.warehouse.staging import MIB, StagedRows

# What an error that a query raises itself begins with: the rest is a sentence.
REFUSAL = "refused: "
# The times that a text may mean: ISO 8601, and seconds or milliseconds since 1970.
DAY_AND_TIME = r"\d{4}-\d{2}-\d{2}([T ]\d{2}:\d{2}(:\d{2}([.]\d+)?)?)?"
OFFSET = r"(Z|[+-]\d{2}(:?\d{2})?)"
UNIX_SECONDS, UNIX_MILLISECONDS = r"\d{9,10}([.]\d+)?", r"\d{12,13}"
DIGITS_OF_SECOND = {"s": 0, "ms": 3, "us": 6, "ns": 9}


def stage(rows: StagedRows, table: RawTable, path: Path, parent: StagedRows | None = None) -> pa.Schema:
    """Write the rows of a file to a staged table, each with its parent's event time as a last column.

    Types that convert without loss are taken, columns beyond the contract are left out. A row that has no
    parent has no time.

    Returns:
        The columns of the file itself.

    Raises:
        ContractError: it is not readable as parquet, a column is missing, or a value does not convert or lies
            beyond the contract's bounds.
    """
    try:
        metadata = pq.read_metadata(path)
        served = metadata.schema.to_arrow_schema()
    except (pa.ArrowException, OSError) as error:
        raise ContractError(f"{table.name}: the file cannot be read as parquet ({error}).") from None
    refuse(schema_problems(table, served))
    groups = map(metadata.row_group, range(metadata.num_row_groups))
    rows.area.expect(sum(group.total_byte_size for group in groups))
    columns = _columns(table.schema if parent else table.source_schema, table.key)
    with rows.area.cursor() as connection:
        try:
            types = connection.sql(f"from read_parquet({sql.literal(str(path))}) limit 0").types
            positions = {name: served.names.index(name) for name in table.columns}
            values = [_column(table, name, served.types[n], n, types[n]) for name, n in positions.items()]
            query = f"select {', '.join(values)} from {_file(path, served)}"
            if parent:
                query = _dated(table, query, parent)
            connection.execute(f"create table {rows.relation} ({columns})")
            insert = f"insert into {rows.relation} {query}"
            try:
                inserted = connection.execute(insert)
            except duckdb.OutOfMemoryException:
                # A file may hold much more than its size says, such as a long text many times.
                rows.area.expect(rows.area.memory_mib * MIB)
                inserted = connection.execute(insert)
            (staged,) = inserted.fetchone() or (0,)
        except duckdb.OutOfMemoryException:
            longest = max(table.longest_values.values(), default=0)
            raise ContractError(
                f"{table.name}: expected texts of at most {longest:,} bytes, found rows that do not fit into "
                f"{rows.area.memory_mib:,} MiB of memory. SERVERLESS_LOAD_MEMORY allows more."
            ) from None
        except duckdb.Error as error:
            raise ContractError(_explain(connection, table, path, served, error)) from None
    if staged != (promised := metadata.num_rows):
        raise ContractError(f"{table.name}: the file promises {promised:,} rows and holds {staged:,}.")
    return served


def _columns(schema: pa.Schema, key: Sequence[str]) -> str:
    """Return SQL for the columns of staged rows.

    Texts that are a key of their own are not compressed: they hardly repeat anything, and it would take
    DuckDB a third of the cpu of a load.
    """
    columns = []
    for field in schema:
        is_unique_text = pa.types.is_string(field.type) and [*key] == [field.name]
        compression = " using compression uncompressed" if is_unique_text else ""
        columns.append(f"{sql.identifier(field.name)} {sql_type(field.type)}{compression}")
    return ", ".join(columns)


def _file(path: Path, served: pa.Schema) -> str:
    # By position: names that differ in their case alone are one to DuckDB.
    columns = ", ".join(f"c{position}" for position in range(len(served.names)))
    return f"read_parquet({sql.literal(str(path))}) as file({columns})"


def _dated(table: RawTable, query: str, parent: StagedRows) -> str:
    """Return a query for the rows of another one beside their parents' event times."""
    dated_by = table.dated_by
    assert dated_by is not None
    child_key, parent_key = sql.identifier(dated_by.column), sql.identifier(*dated_by.parent.key)
    time = sql.identifier(str(table.event_time))
    columns = f"{parent_key} as key"
    condition = f"child.{child_key} = parent.key"
    parent_type = dated_by.parent.columns[dated_by.parent.key[0]]
    if pa.types.is_string(parent_type) and table.columns[dated_by.column] == parent_type:
        # Texts of ids take several times the memory, and on disk several times the time. Two hashes of 64
        # bits stand for each: of 10 million parents, one passes for that of a stray row with a probability
        # of 10^-31, and a second parent of a row would show in the number of rows.
        columns = f"hash({parent_key}) as key, hash('~' || {parent_key}) as second"
        condition = f"hash(child.{child_key}) = parent.key and hash('~' || child.{child_key}) = parent.second"
    return (
        f"select child.*, parent.{time} from ({query}) as child"
        f" left join (select {columns}, {time} from {parent.relation}) as parent on {condition}"
    )


def _column(table: RawTable, name: str, served: pa.DataType, position: int, type: object) -> str:
    """Return SQL for a column in its type by the contract, which fails for a value that may not be loaded."""
    expected, kind = table.columns[name], value_type(served)
    value, converted, loss = _convert(f"c{position}", kind, type, expected)
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


def _convert(value: str, kind: pa.DataType, type: object, expected: pa.DataType) -> tuple[str, str, str]:
    """Return SQL for a value as it is read, for the same in the type of the contract, and for whether that
    changes it; the last is empty for what cannot."""
    if pa.types.is_timestamp(kind) and kind.unit == "ns" and kind.tz:
        # DuckDB casts an instant in nanoseconds in two steps.
        value, type = f"cast({value} as timestamp_ns)", "timestamp_ns"
    if pa.types.is_null(kind):
        return value, f"cast(null as {sql_type(expected)})", ""
    if pa.types.is_time(kind):
        # A time as Arrow writes it: with all digits of its unit.
        text, digits = f"cast({value} as varchar)", DIGITS_OF_SECOND[kind.unit]
        point = f"case when contains({text}, '.') then '' else '.' end"
        return value, f"rpad({text} || {point}, {9 + digits}, '0')" if digits else text, ""
    if pa.types.is_nested(kind):
        text = f"cast(to_json({value}) as varchar)"
        return text, text, ""
    if is_text(kind) and not is_text(expected):
        converted, loss = _parsed(value, expected)
    elif kind != expected and not is_text(kind) and not is_binary(kind):
        converted = f"try_cast({value} as {sql_type(expected)})"
        loss = f"{converted} is null"
        # Digits that a double has not are given up for a decimal, and nothing else is.
        if not (is_text(expected) or (pa.types.is_decimal(kind) and pa.types.is_floating(expected))):
            loss = f"try_cast({converted} as {type}) is distinct from {value}"
    else:
        return value, value, ""
    return value, converted, f"{value} is not null and {loss}"


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


def _explain(
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
        except duckdb.Error as cause:
            if not isinstance(cause, duckdb.ConversionException) and "not valid UTF8" not in str(cause):
                return f"{table.name}: the file is damaged or encrypted ({_first_line(cause)})."
            kind = served.field(name).type
            reason = "text that is not UTF-8" if is_text(value_type(kind)) else "a value out of bounds"
            problem = Problem(table.name, name, str(expected), f"{kind} that does not convert ({reason})")
            return f"{problem}."
    return f"{table.name}: its rows could not be written ({_first_line(error)})."


def _first_line(error: duckdb.Error) -> str:
    return str(error).strip().splitlines()[0]
