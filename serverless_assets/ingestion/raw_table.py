"""A raw table: its columns and their types, the values that it may have, and how it is loaded."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import get_args

import pyarrow as pa

from serverless_assets.ingestion.rest_endpoint import RestEndpoint, RestFormat
from serverless_assets.warehouse import TableShape

TIMESTAMP = pa.timestamp("us")

# In which a source may serve a table.
FORMATS: Sequence[str] = ("parquet", *get_args(RestFormat))

# The values that every column of a type may have; a table with any other is refused. Times beyond these are
# placeholders (0001-01-01, 9999-12-31) or mistakes, and pandas, Python and the warehouses each hold others.
EARLIEST, END_OF_TIME = datetime(1900, 1, 1), datetime(2200, 1, 1)
# Ten trillion dollars in cents: sums over billions of rows stay within the marts' decimals.
LARGEST_INTEGER = 10**15
# A model that repeats a text on each of its rows is as slow as the text is long.
LONGEST_TEXT_BYTES = 4 * 1024

# A table whose newest row is older is not fresh, unless its entry says otherwise.
FRESH = timedelta(days=3)

# The names that SQL and Arrow have for the types that both warehouses hold alike.
TYPES: Mapping[str, pa.DataType] = {
    **dict.fromkeys(("string", "text", "varchar"), pa.string()),
    **dict.fromkeys(("bigint", "int64", "integer"), pa.int64()),
    **dict.fromkeys(("double", "float64"), pa.float64()),
    **dict.fromkeys(("boolean", "bool"), pa.bool_()),
    **dict.fromkeys(("timestamp", "datetime"), TIMESTAMP),
    **dict.fromkeys(("binary", "bytes", "blob"), pa.binary()),
}


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
    A check warns of a newest row that is older than `fresh`.
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
    fresh: timedelta = FRESH

    @property
    def has_months(self) -> bool:
        """Whether months are loaded each by itself."""
        return self.event_time is not None and self.grain != "none"

    @property
    def with_parent(self) -> "Sequence[RawTable]":
        """The table, and the one that dates it: a load of it needs the rows of both."""
        return (self, self.dated_by.parent) if self.dated_by else (self,)

    @property
    def format(self) -> str:
        """What the source serves."""
        return self.rest.format if self.rest else FORMATS[0]

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
