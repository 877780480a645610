"""The types of raw columns, what values each may have, and which holds what a source serves."""

from collections.abc import Mapping
from datetime import datetime

import pyarrow as pa

ID = pa.string()
TEXT = pa.string()
CENTS = pa.int64()
RATE = pa.float64()
FLAG = pa.bool_()
TIMESTAMP = pa.timestamp("us")

# The values that every column of a type may have; a table with any other is refused. Times beyond these are
# placeholders (0001-01-01, 9999-12-31) or mistakes, and pandas, Python and the warehouses each hold others.
EARLIEST, END_OF_TIME = datetime(1900, 1, 1), datetime(2200, 1, 1)
# Ten trillion dollars in cents: sums over billions of rows stay within the marts' decimals.
LARGEST_INTEGER = 10**15
# A model that repeats a text on each of its rows is as slow as the text is long.
LONGEST_TEXT_BYTES = 4 * 1024

# The names that SQL and Arrow have for the types that both warehouses hold alike.
TYPES: Mapping[str, pa.DataType] = {
    **dict.fromkeys(("string", "text", "varchar"), TEXT),
    **dict.fromkeys(("bigint", "int64", "integer"), pa.int64()),
    **dict.fromkeys(("double", "float64"), pa.float64()),
    **dict.fromkeys(("boolean", "bool"), FLAG),
    **dict.fromkeys(("timestamp", "datetime"), TIMESTAMP),
    **dict.fromkeys(("binary", "bytes", "blob"), pa.binary()),
}
# Any whole number of so many digits is within the bounds of a bigint.
DIGITS_OF_INTEGER = 15


def declared_type(served: pa.DataType) -> str | None:
    """Return the `data_type` that holds all values of a type that a source serves; None if none does."""
    kind = served.value_type if pa.types.is_dictionary(served) else served
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
