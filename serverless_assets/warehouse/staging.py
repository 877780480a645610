"""Where fetched rows are audited before a warehouse takes them over: tables of DuckDB."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import BoundedSemaphore, Lock

import duckdb
import pyarrow as pa

from serverless_assets import sql

STAGING_PREFIX = "_staging_"
# An attached database in memory: it spills into the scratch folder, and leaves nothing behind.
IN_MEMORY = "_staging"
QUERIES_AT_ONCE = 2
# What a thread of DuckDB takes for the rows that it reads, sorts into groups and writes.
MIB_PER_THREAD = 96
MIB = 1 << 20


@dataclass
class StagingArea:
    """A DuckDB database to stage rows in, with a limit on its memory whatever their number.

    memory_mib: the most that it takes; less for fewer rows, as DuckDB keeps all that it wrote in memory until
        it reaches its limit.
    schema: the quoted schema of the warehouse, if that is the database itself: a table that is staged there
        becomes one of the warehouse without being written again.
    """

    connection: duckdb.DuckDBPyConnection
    scratch: Path
    memory_mib: int
    schema: str | None = None
    _cursors: set[duckdb.DuckDBPyConnection] = field(default_factory=set)
    # A query uses all cores: more of them at once would only share the memory.
    _turns: BoundedSemaphore = field(default_factory=lambda: BoundedSemaphore(QUERIES_AT_ONCE))
    _is_stopped: bool = False
    _bytes: int = 0
    _sizing: Lock = field(default_factory=Lock)

    def __post_init__(self) -> None:
        self.expect(0)
        for setting, value in {
            "temp_directory": str(self.scratch),
            # Keeping the order of rows would hold them in memory, and tables have no order.
            "preserve_insertion_order": "false",
            # Each thread holds so many groups of rows before it writes them.
            "write_buffer_row_group_count": "1",
            # A file is read once: what DuckDB keeps of it is never asked for again.
            "enable_external_file_cache": "false",
            # Files are read where they are needed: what else is read ahead takes 50 MB, and saves no time.
            "async_threads": "0",
            # Memory that a query has given back leaves the process, instead of being kept for the next one.
            "allocator_background_threads": "true",
        }.items():
            self.connection.execute(f"set {setting} = {sql.literal(value)}")
        self.connection.execute(f"attach if not exists ':memory:' as {IN_MEMORY}")
        drop_staged(self.connection)

    def expect(self, size: int) -> None:
        """Raise the limit on memory for rows of so many bytes more."""
        with self._sizing, self.connection.cursor() as cursor:
            self._bytes += size
            (threads,) = cursor.execute("select current_setting('threads')").fetchone() or (1,)
            limit = min(self.memory_mib, max(MIB_PER_THREAD * threads, self._bytes // MIB))
            cursor.execute(f"set memory_limit = '{limit}MiB'")

    @contextmanager
    def cursor(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """Yield a connection for the queries of one thread, in its turn.

        Raises:
            duckdb.InterruptException: the area was stopped.
        """
        with self._turns:
            if self._is_stopped:
                raise duckdb.InterruptException("The load was stopped.")
            with self.connection.cursor() as cursor:
                self._cursors.add(cursor)
                try:
                    # An instant means the same in every zone; warehouses hold it in UTC.
                    cursor.execute("set timezone = 'UTC'")
                    yield cursor
                finally:
                    self._cursors.discard(cursor)

    def rows(self, name: str, for_warehouse: bool = False) -> "StagedRows":
        """Return the rows to stage under a name.

        for_warehouse: they are to become the whole table of the warehouse, unless they are refused.
        """
        in_warehouse = for_warehouse and self.schema is not None
        table = sql.identifier(f"{STAGING_PREFIX}{name}")
        relation = f"{self.schema}.{table}" if in_warehouse else f"{IN_MEMORY}.main.{table}"
        return StagedRows(self, name, relation, in_warehouse)

    def stop(self) -> None:
        """End the queries of all threads."""
        self._is_stopped = True
        for cursor in list(self._cursors):
            with suppress(duckdb.Error):
                cursor.interrupt()


def drop_staged(connection: duckdb.DuckDBPyConnection) -> None:
    """Drop what is staged in a warehouse's file: it was refused, or its run was killed."""
    tables = connection.execute(
        "select database_name, schema_name, table_name from duckdb_tables()"
        f" where database_name = current_database() and starts_with(table_name, '{STAGING_PREFIX}')"
    ).fetchall()
    for names in tables:
        connection.execute(f"drop table {sql.identifier(*names)}")


@dataclass(frozen=True, eq=False)
class StagedRows:
    """The rows of a staged table that meet a condition.

    in_warehouse: the table lies in the warehouse's own database.
    """

    area: StagingArea
    name: str
    relation: str
    in_warehouse: bool = False
    condition: str = "true"

    @property
    def query(self) -> str:
        return f"from {self.relation} where {self.condition}"

    @property
    def schema(self) -> pa.Schema:
        with self.area.cursor() as connection:
            return connection.sql(f"{self.query} limit 0").to_arrow_table().schema

    def parquet(self) -> Path:
        """Return the rows as a parquet file in the scratch folder."""
        path = self.area.scratch / f"{self.name}.parquet"
        with self.area.cursor() as connection:
            connection.execute(
                f"copy ({self.query}) to {sql.literal(str(path))} (format parquet, compression zstd)"
            )
        return path
