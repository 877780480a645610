"""BigQuery's schemas and statements as pure functions of a table's shape.

A partitioned table is laid out by month: 30 years of them are 360 of the 10,000 partitions a table may
have, and a window of months is read and rewritten without touching the others.
"""

import json
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime

import pyarrow as pa
from google.cloud.bigquery import SchemaField

from serverless_assets.months import next_month
from serverless_assets.warehouse import TableShape, WarehouseError, is_deleted

DESCRIPTION_LIMIT = 16_384
STATE_LINE = "serverless-assets: "

_TYPES: Mapping[pa.DataType, str] = {
    pa.string(): "STRING",
    pa.binary(): "BYTES",
    pa.int64(): "INT64",
    pa.float64(): "FLOAT64",
    pa.bool_(): "BOOL",
    pa.timestamp("us"): "TIMESTAMP",
    pa.date32(): "DATE",
}


def replace_statement(
    relation: str, staging: str, table: TableShape, description: str, labels: Mapping[str, str]
) -> str:
    """One statement that puts the rows in `staging` in place of the table, with its description."""
    return _create("create or replace table", relation, staging, table, description, labels)


def create_statement(
    relation: str, staging: str, table: TableShape, description: str, labels: Mapping[str, str]
) -> str:
    """One statement that makes the table of the rows in `staging`; it fails if there is one already."""
    return _create("create table", relation, staging, table, description, labels)


def window_statement(relation: str, staging: str, table: TableShape, start: date, end: date) -> str:
    """One statement that puts the rows in `staging` in place of those of the window.

    The bounds are constants, so that only the window's partitions are read.
    """
    bound = f"kept.{identifier(str(table.partitioned_by))}"
    columns = ", ".join(identifier(name) for name in table.schema.names)
    return (
        f"merge {relation} as kept using ({_select(staging, table)}) as arrived on false\n"
        f"when not matched by source and {bound} >= {_midnight(start)} and {bound} < {_midnight(end)} "
        f"then delete\n"
        f"when not matched then insert ({columns}) values ({columns})"
    )


def upsert_statement(relation: str, staging: str, table: TableShape, months: Sequence[date]) -> str:
    """One statement that puts the rows in `staging` in place of those with their keys.

    months: those of the rows that are replaced or deleted.
    """
    names = [identifier(name) for name in table.schema.names]
    columns, values = ", ".join(names), ", ".join(f"{name} = arrived.{name}" for name in names)
    lines = [
        f"merge {relation} as kept using ({_select(staging, table)}) as arrived",
        f"on {_same_key(table.key)}{_in_months(table, months)}",
    ]
    live = ""
    if table.deleted:
        deleted = is_deleted(table, f"arrived.{identifier(table.deleted)}")
        lines.append(f"when matched and {deleted} then delete")
        live = f" and not ({deleted})"
    lines.append(f"when matched then update set {values}")
    lines.append(f"when not matched{live} then insert ({columns}) values ({columns})")
    return "\n".join(lines)


def rows_with_keys_statement(relation: str, staging: str, table: TableShape, months: Sequence[date]) -> str:
    """A query for the rows of the table that have keys of those in `staging`, and are of `months`."""
    columns = ", ".join(f"kept.{identifier(name)}" for name in table.schema.names)
    return (
        f"select {columns} from {relation} as kept\n"
        f"join {staging} as arrived on {_same_key(table.key)}{_in_months(table, months)}"
    )


def months_with_keys_statement(
    relation: str,
    staging: str,
    table: TableShape,
    key: Sequence[str],
    beside: tuple[date, date] | None = None,
) -> str:
    """A query for the months, but those of a window, in which the table has keys of the rows in `staging`."""
    bound = f"kept.{identifier(str(table.partitioned_by))}"
    outside = ""
    if beside:
        outside = f"\nwhere {bound} < {_midnight(beside[0])} or {bound} >= {_midnight(beside[1])}"
    return (
        f"select distinct date(timestamp_trunc({bound}, month)) as month from {relation} as kept\n"
        f"join {staging} as arrived on {_same_key(key)}{outside}"
    )


def staging_schema(schema: pa.Schema) -> list[SchemaField]:
    """The columns to load a parquet file into.

    Parquet's timestamps without a zone are DATETIMEs to BigQuery. They arrive as such, and the
    statement that swaps the rows in says that they are UTC.
    """
    types = [(field.name, _type(field)) for field in schema]
    return [SchemaField(name, "DATETIME" if type_ == "TIMESTAMP" else type_) for name, type_ in types]


def description_with_state(description: str, state: Mapping[str, object]) -> str:
    """A table's description with its state in the last line, as JSON.

    Raises:
        WarehouseError: it is longer than BigQuery keeps.
    """
    text = f"{description}\n\n" if description else ""
    text += STATE_LINE + json.dumps(dict(state))
    if len(text) > DESCRIPTION_LIMIT:
        raise WarehouseError(
            f"the note to keep with the table makes its description {len(text):,} characters long; "
            f"BigQuery keeps {DESCRIPTION_LIMIT:,}. Nothing was changed."
        )
    return text


def state_in(description: str | None) -> Mapping[str, object]:
    """The state in a description; empty if there is none, or if somebody wrote something else there."""
    for line in reversed((description or "").split("\n")):
        if line.startswith(STATE_LINE):
            try:
                state = json.loads(line.removeprefix(STATE_LINE))
            except ValueError:
                return {}
            return state if isinstance(state, dict) else {}
    return {}


def words_in(description: str | None) -> str:
    """What people wrote in a description: all of it but the state."""
    lines = (description or "").split("\n")
    for at in reversed(range(len(lines))):
        if lines[at].startswith(STATE_LINE):
            before = "\n".join(lines[:at]).removesuffix("\n")
            return "\n".join([before, *lines[at + 1 :]])
    return description or ""


def identifier(*parts: str) -> str:
    """A quoted, possibly dotted name.

    Raises:
        WarehouseError: a name that BigQuery cannot have, and that quoting cannot hold.
    """
    for part in parts:
        if not part or re.search(r"[`\\\x00-\x1f]", part):
            raise WarehouseError(f"{part!r} cannot be the name of anything in BigQuery.")
    return ".".join(f"`{part}`" for part in parts)


def literal(text: str) -> str:
    """A quoted string. JSON's escapes are BigQuery's, except those for half a character."""
    return json.dumps(text, ensure_ascii=False)


def timestamp(time: datetime) -> str:
    """A point in time as a constant."""
    return f"timestamp '{time.astimezone(UTC):%Y-%m-%d %H:%M:%S.%f+00}'"


def label(value: str) -> str:
    """The value as a label can hold it: up to 63 of lower-case letters, digits, dashes, underscores."""
    return re.sub(r"[^a-z0-9_-]", "_", value.lower())[:63]


def _create(
    verb: str, relation: str, staging: str, table: TableShape, description: str, labels: Mapping[str, str]
) -> str:
    columns = ", ".join(f"{identifier(field.name)} {_type(field)}" for field in table.schema)
    lines = [f"{verb} {relation} ({columns})"]
    if table.partitioned_by:
        column = identifier(table.partitioned_by)
        lines.append(f"partition by timestamp_trunc({column}, {table.partition_unit})")
    if table.clustered_by:
        lines.append(f"cluster by {', '.join(identifier(name) for name in table.clustered_by)}")
    pairs = ", ".join(f"({literal(key)}, {literal(value)})" for key, value in labels.items())
    lines.append(f"options(description={literal(description)}, labels=[{pairs}])")
    lines.append(f"as {_select(staging, table)}")
    return "\n".join(lines)


def _same_key(key: Sequence[str]) -> str:
    return " and ".join(f"kept.{identifier(name)} = arrived.{identifier(name)}" for name in key)


def _in_months(table: TableShape, months: Sequence[date]) -> str:
    """A further condition, with constants: no partition of another month is read."""
    if not table.partitioned_by or not months:
        return ""
    bound = f"kept.{identifier(table.partitioned_by)}"
    ranges = [
        f"{bound} >= {_midnight(month)} and {bound} < {_midnight(next_month(month))}" for month in months
    ]
    return f"\nand ({' or '.join(f'({condition})' for condition in ranges)})"


def _select(staging: str, table: TableShape) -> str:
    columns = [
        f"timestamp({identifier(field.name)}) as {identifier(field.name)}"
        if _type(field) == "TIMESTAMP"
        else identifier(field.name)
        for field in table.schema
    ]
    return f"select {', '.join(columns)} from {staging}"


def _midnight(day: date) -> str:
    return f"timestamp '{day} 00:00:00+00'"


def _type(field: pa.Field) -> str:
    if field.type in _TYPES:
        return _TYPES[field.type]
    # NUMERIC has 29 digits before the point and 9 after it.
    decimal = field.type if pa.types.is_decimal128(field.type) else None
    if decimal and 0 <= decimal.scale <= 9 and decimal.precision - decimal.scale <= 29:
        return "NUMERIC"
    raise WarehouseError(
        f"column {field.name} is {field.type}, which this project does not keep in BigQuery. It keeps "
        f"{', '.join(map(str, _TYPES))} and decimal128 with up to 29 digits before the point and 9 after it."
    )
