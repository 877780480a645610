"""The contract of a raw table: the wording of a breach, and the types that may be served for its columns."""

from dataclasses import dataclass

import pyarrow as pa

from serverless_assets.ingestion.raw_table import RawTable

LONGEST_FOUND = 500
# Any whole number of so many digits is within the bounds of a bigint.
DIGITS_OF_INTEGER = 15
SQL_TYPES = {"binary": "blob", "string": "varchar", "int64": "bigint", "double": "double", "bool": "boolean"}


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
    served = value_type(served)
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


def sql_type(kind: pa.DataType) -> str:
    """Return DuckDB's type for a type of the contract."""
    return SQL_TYPES.get(str(kind), "timestamp")


def value_type(kind: pa.DataType) -> pa.DataType:
    """Return the type of the values, which may be listed once in a dictionary."""
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def declared_type(served: pa.DataType) -> str | None:
    """Return the `data_type` that holds all values of a type that a source serves; None if none does."""
    kind = value_type(served)
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
