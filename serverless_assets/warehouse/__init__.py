"""What the layers need of a warehouse, and nothing more."""

from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from serverless_assets.errors import UserError
from serverless_assets.names import WORK
from serverless_assets.warehouse.staging import StagedRows, StagingArea

# Begins the name of the table of a record, which is not one of the project's.
RECORD_PREFIX = "serverless_"


def published_schema(schema: str) -> str:
    """The schema in which people read what runs write to `schema`."""
    return schema.replace(WORK, "", 1)


# Database, schema and name of a table; the database may be empty.
TableName = tuple[str, str, str]


class WarehouseError(UserError):
    """The warehouse refused: the message says what and what to do."""


@dataclass(frozen=True)
class TableShape:
    """A table as a warehouse keeps it: its columns, and how a large one is laid out.

    `partitioned_by` is a timestamp column: rows lie together by its month, or by what `partition_unit` says,
    month or day. `clustered_by` are columns that queries filter or join on, the most telling first. For
    changes of single rows, `key` are the columns that identify a row, and `deleted` is a column that says
    that there is none any more: a boolean or a time.
    """

    name: str
    schema: pa.Schema
    description: str = ""
    partitioned_by: str | None = None
    partition_unit: str = "month"
    clustered_by: tuple[str, ...] = ()
    key: tuple[str, ...] = ()
    deleted: str | None = None


@dataclass(frozen=True)
class JobStats:
    """What the warehouse did for a statement, where it says so: ids of its jobs, bytes, slot time."""

    jobs: tuple[str, ...] = ()
    bytes_processed: int = 0
    bytes_billed: int = 0
    slot_milliseconds: int = 0

    def __add__(self, other: "JobStats") -> "JobStats":
        return JobStats(
            self.jobs + other.jobs,
            self.bytes_processed + other.bytes_processed,
            self.bytes_billed + other.bytes_billed,
            self.slot_milliseconds + other.slot_milliseconds,
        )


def is_deleted(table: TableShape, column: str) -> str:
    """Return SQL for whether a row is deleted, given the quoted name of the column `table.deleted`."""
    is_flag = pa.types.is_boolean(table.schema.field(str(table.deleted)).type)
    return f"coalesce({column}, false)" if is_flag else f"{column} is not null"


def refuse_other_columns(table: TableShape, rows: Path | pa.Table | StagedRows) -> None:
    """Raise `WarehouseError` unless the rows have just the table's columns, in order and of their types.

    Left to themselves, one warehouse fills a missing column with nulls, and another takes any file.
    """

    def columns(schema: pa.Schema) -> str:
        return ", ".join(f"{field.name} {field.type}" for field in schema) or "none"

    try:
        schema = pq.read_schema(rows) if isinstance(rows, Path) else rows.schema
    except (pa.ArrowException, OSError) as error:
        raise WarehouseError(f"{table.name}: {rows.name} cannot be read as parquet ({error}).") from error
    if [(f.name, f.type) for f in schema] != [(f.name, f.type) for f in table.schema]:
        raise WarehouseError(
            f"{table.name}: the file has the columns {columns(schema)}, "
            f"and the table {columns(table.schema)}. Nothing was changed."
        )


# What a state says of how the rows were requested, compared and tested: it changes without them.
BOOKKEEPING = frozenset(
    (
        "validators",
        "source",
        "inputs",
        "data_hashes",
        "parents",
        "read",
        "parent_columns",
        "tests",
        "warnings",
    )
)


def content_of(state: Mapping[str, object]) -> Mapping[str, object]:
    """What of a relation's state changes with what people read of the relation."""
    return {name: value for name, value in state.items() if name not in BOOKKEEPING}


def version_of(state: Mapping[str, object]) -> object:
    """What of a relation's state changes with its rows: the version, or all of it where there is none."""
    return state.get("version") or state


class Warehouse(Protocol):
    """One dataset of tables, each replaced in one step: a reader sees the old rows or the new."""

    @property
    def name(self) -> str:
        """What people call it: a file, a dataset."""

    @property
    def kind(self) -> str:
        """The product, as Dagster's graph names it on an asset."""

    def in_schema(self, database: str, schema: str) -> "Warehouse":
        """The same warehouse as of another schema (dataset), and another database (project) unless that is
        empty: what it says of tables is said of those there. Of a schema that runs write to, the warehouse
        that people read is as of the schema in which they read it."""

    def prepare_schemas(self, schemas: Collection[tuple[str, str]]) -> None:
        """Make ready the databases and schemas in which models are to be built.

        Raises:
            WarehouseError: one cannot be created, or is not for the runs of this environment.
        """

    def replace_rows(
        self,
        table: TableShape,
        rows: Path | pa.Table | StagedRows,
        state: Mapping[str, object],
        window: tuple[date, date] | None = None,
    ) -> JobStats:
        """Replace the rows of the table, all of them or those of a window; create it if there is none.

        Args:
            rows: a parquet file, a table or staged rows, with exactly the columns of `table.schema`, in that
                order. Staged rows are gone afterwards if they lie in the warehouse.
            state: kept with the relation itself, in the place of the last one. It never claims more than the
                table holds: where it cannot be written in the same step, there is none until the rows are in.
            window: replace just the rows with `start <= partitioned_by < end`.

        Raises:
            WarehouseError: nothing changed.
        """

    def upsert_rows(
        self,
        table: TableShape,
        rows: Path | StagedRows,
        state: Mapping[str, object],
        months: Sequence[date] = (),
    ) -> JobStats:
        """Insert rows into a table, each in the place of the one that has its key.

        Rows that are deleted by `table.deleted` are removed.

        Args:
            rows, state: as for `replace_rows`.
            months: those of all rows that are replaced or removed, if the table is partitioned.
        """

    def save_rows_with_keys(self, table: TableShape, rows: Path, target: Path) -> None:
        """Write the rows of the table that have a key of other rows to a parquet file."""

    def months_with_keys(
        self, table: TableShape, key: Sequence[str], rows: Path | StagedRows, start: date, end: date
    ) -> Sequence[date]:
        """The months before `start` and from `end` on in which the table has keys of other rows.

        They are as for `replace_rows`; `key` are the columns that make a key together.
        """

    def staging(
        self, scratch: Path, memory_mib: int, to_load: bool = True
    ) -> AbstractContextManager[StagingArea]:
        """Open the database in which rows are audited before `replace_rows` takes them.

        Args:
            to_load: otherwise it never does, and nothing is written to the warehouse.
        """

    def connected(self) -> AbstractContextManager[None]:
        """Keep a connection for several questions in a row: nothing long, as it may keep others out."""

    def query(self, statement: str, version: str = "") -> pa.Table:
        """The answer to a query, held in memory: for small answers. `quoted_name()` gives the names in it.

        version: of what it reads. Where queries cost, a run asks for the same of the same version once.
        """

    def read_rows(self, table: str) -> pa.Table:
        """All rows of a small table, which is no view, in any order. That costs nothing."""

    def bytes_to_read(self, statement: str) -> int | None:
        """How many bytes a query would read and be charged for, without reading; None where it is free."""

    def price(self, bytes_billed: int, slot_milliseconds: int | None = None) -> float | None:
        """What queries cost in US dollars; None where nothing is charged, or the price is not known.

        slot_milliseconds: None before they have run.
        """

    @property
    def unknown_price(self) -> str:
        """Why it is not known beforehand what queries cost, in a clause; empty if it is, or they are free."""

    def pandas_io_manager(self) -> tuple[Any, Mapping[str, Any]]:
        """What Dagster's package for this warehouse reads pandas frames with, and its config."""

    def quoted_name(self, table: str) -> str:
        """The table's quoted name for use in a query."""

    def qualified_name(self, table: str) -> str:
        """The table's full name as people write it: database, dataset, table; as it is once published."""

    def tables(self) -> set[str]:
        """The names of all tables and views in the dataset."""

    def read_state(self, table: str) -> Mapping[str, object]:
        """What was kept with the relation when it was written; empty if nothing was."""

    def read_states(self) -> Mapping[str, Mapping[str, object]]:
        """The state of every table and view in the dataset; empty where there is none."""

    def content_versions(self, tables: Collection[TableName]) -> Mapping[TableName, str]:
        """A version of what each table holds that others write, by database, schema and name.

        It is missing where only a scan would tell: such as of a view.
        """

    def made_by_hand(self) -> Mapping[str, str]:
        """The kind, such as table or view, of each relation without a state: those that no run has made."""

    def write_states(self, states: Mapping[str, Mapping[str, object]]) -> None:
        """Keep states with relations that there are, in the place of those they have."""

    def read_record(self, name: str) -> Mapping[str, Any]:
        """What runs keep in the dataset under this name, for runs on other machines; empty if nothing."""

    def write_record(self, name: str, content: Mapping[str, Any]) -> None:
        """Keep a small JSON record, in the place of the last one. It is a table only while it has content."""

    def drop_relation(self, table: str) -> None:
        """Drop a table or view, if it is there."""

    def row_count(self, table: str) -> int:
        """The number of rows of a table now; 0 of a view where counting them would cost."""

    def check(self) -> str:
        """What there is, without changing anything.

        Raises:
            WarehouseError: it cannot be used.
        """

    def dbt_variables(self) -> Mapping[str, str]:
        """The environment variables that point dbt's profile at this warehouse."""
