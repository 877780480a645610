"""A raw table: its columns and their types, how it is loaded, and the months of a load."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime

import pyarrow as pa

from serverless_assets.ingestion.rest_endpoint import RestEndpoint
from serverless_assets.months import next_month
from serverless_assets.warehouse import TableShape

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


@dataclass(frozen=True)
class Window:
    """Days from `start` up to, not including, `end`; both the first of a month."""

    start: date
    end: date

    def __str__(self) -> str:
        return f"{self.start} up to {self.end}"

    def __contains__(self, day: date | str) -> bool:
        """Whether a day, or the ISO form of one, lies in the window."""
        return self.start.isoformat() <= str(day) < self.end.isoformat()

    @classmethod
    def of_months(cls, first: date, last: date) -> "Window":
        """Return the window from the month of `first` to the month of `last`, both included."""
        return cls(first.replace(day=1), next_month(last))

    def with_lookback(self, months: int) -> "Window":
        """Return the window that begins so many months earlier."""
        month = self.start.year * 12 + self.start.month - 1 - months
        return Window(date(month // 12, month % 12 + 1, 1), self.end)

    def months(self) -> list[date]:
        """Return the first day of every month in the window."""
        months = [self.start]
        while (month := next_month(months[-1])) < self.end:
            months.append(month)
        return months


@dataclass(frozen=True)
class DatedBy:
    """A fact without a time of its own takes it from a `parent` row: `column` holds the parent's key."""

    parent: "RawTable"
    column: str


@dataclass(frozen=True)
class RawTable:
    """One table of the source: what it must hold (its contract) and how it is loaded.

    A table with `event_time` is a fact: months of that column are loaded each by itself, unless its `grain`
    is none, with which it is always loaded whole. With the grain day the warehouse keeps it by day. Where the
    source does not carry the column, `dated_by` says which parent's row gives it. `clustered_by` is a hint to
    the warehouse: columns that queries filter or join on. `longest_text` raises `LONGEST_TEXT_BYTES` for
    single columns. `path` leads from the source's address to the file, without `.parquet`, if that is not the
    table's name. A run succeeds also without an `optional` table. A run over months also loads the `lookback`
    months before them, whose rows may have changed since. Of a table with `updated_at`, only rows that
    changed since the last load are requested, and replace those of their keys; a row whose column `deleted`
    is true, or a time, is removed. With `rest`, the rows are those of a REST API instead of a parquet file.
    """

    name: str
    description: str
    columns: Mapping[str, pa.DataType] = field(hash=False)
    key: tuple[str, ...] = ("id",)
    event_time: str | None = None
    dated_by: DatedBy | None = None
    clustered_by: tuple[str, ...] = ()
    longest_text: Mapping[str, int] = field(default_factory=dict, hash=False)
    path: str = ""
    optional: bool = False
    grain: str = "month"
    lookback: int = 0
    updated_at: str | None = None
    deleted: str | None = None
    rest: RestEndpoint | None = field(default=None, hash=False)

    @property
    def has_months(self) -> bool:
        """Whether months are loaded each by itself."""
        return self.event_time is not None and self.grain != "none"

    @property
    def format(self) -> str:
        """What the source serves."""
        return self.rest.format if self.rest else "parquet"

    @property
    def location(self) -> str:
        """The path of the table's file below the source's address, without `.parquet`."""
        return self.path or self.name

    @property
    def longest_values(self) -> Mapping[str, int]:
        """The columns of text and bytes that the source must serve, and how many bytes a value may have."""
        columns = [name for name, kind in self.columns.items() if kind in (pa.string(), pa.binary())]
        return {name: self.longest_text.get(name, LONGEST_TEXT_BYTES) for name in columns}

    @property
    def shape(self) -> TableShape:
        """The table as the warehouse keeps it."""
        return TableShape(
            self.name,
            self.schema,
            self.description,
            self.event_time,
            "day" if self.grain == "day" else "month",
            self.clustered_by,
            self.key,
            self.deleted,
        )

    @property
    def source_schema(self) -> pa.Schema:
        """The columns that the source must serve, in order."""
        return pa.schema(list(self.columns.items()))

    @property
    def schema(self) -> pa.Schema:
        """The columns of the table in the warehouse, in order."""
        if self.dated_by is None or self.event_time is None:
            return self.source_schema
        return self.source_schema.append(pa.field(self.event_time, TIMESTAMP))


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
