"""A warehouse in a DuckDB file, with further databases beside it."""

import json
import logging
import re
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from serverless_assets import sql
from serverless_assets.files import is_writable, make_folder
from serverless_assets.warehouse import (
    RECORD_PREFIX,
    JobStats,
    TableName,
    TableShape,
    WarehouseError,
    is_deleted,
    refuse_other_columns,
)
from serverless_assets.warehouse.staging import STAGING_PREFIX, StagedRows, StagingArea, drop_staged

# How long to wait for another process to close the file. Runs take turns: it is a person's, as a rule.
SECONDS_TO_WAIT_FOR_FILE = 60.0
SECONDS_BETWEEN_ATTEMPTS = 0.25
SECONDS_BETWEEN_MESSAGES = 15.0
# Connections of one process to one file must agree on their configuration: dbt's profile has the same.
CONFIGURATION = {"custom_user_agent": "dagster"}
# The folder of the further databases in which models are built, beside the warehouse's file.
DATABASES = "databases"
LOCKED = "Could not set lock on file"
LOCKED_BY = re.compile(r"Conflicting lock is held in (?P<program>.+?) \(PID (?P<pid>\d+)\)")

# What `dagster.get_dagster_logger` returns: within a run, the run's log. Importing Dagster takes seconds.
log = logging.getLogger("dagster.builtin.warehouse")


@dataclass(frozen=True)
class DuckDBWarehouse:
    """See `Warehouse`. Connections are short: an open one keeps every other process out.

    To open the file takes DuckDB 30 ms; while it is open in this process, another connection takes 0.1 ms.

    `read_only` ones keep out those alone who write to the file. The databases beside the file are attached,
    as relations of one may read those of another. This is about the one named `beside`, or else the file's.
    """

    path: Path
    schema: str
    read_only: bool = False
    beside: str = ""

    @property
    def kind(self) -> str:
        return "duckdb"

    @property
    def name(self) -> str:
        return f"DuckDB, {self.path}"

    @property
    def database(self) -> str:
        """The catalog, which DuckDB names after its file."""
        return self.beside or self.path.stem

    def in_schema(self, database: str, schema: str) -> "DuckDBWarehouse":
        is_own = database.lower() in ("", self.path.stem.lower())
        return replace(self, schema=schema or self.schema, beside="" if is_own else database)

    def prepare_schemas(self, schemas: Collection[tuple[str, str]]) -> None:
        there = {self.path.stem.lower(), *(file.stem.lower() for file in databases_beside(self.path))}
        for database in sorted({database for database, _ in schemas if database.lower() not in there}):
            file = self.path.parent / DATABASES / f"{database}.duckdb"
            make_folder(file.parent)
            duckdb.connect(str(file), config={**CONFIGURATION}).close()

    def replace_rows(
        self,
        table: TableShape,
        rows: Path | pa.Table | StagedRows,
        state: Mapping[str, object],
        window: tuple[date, date] | None = None,
    ) -> JobStats:
        refuse_other_columns(table, rows)
        relation, bound = self.quoted_name(table.name), sql.identifier(str(table.partitioned_by))
        with self._transaction() as connection:
            if isinstance(rows, pa.Table):
                connection.register("new_rows", rows)
            new_rows = "new_rows" if isinstance(rows, pa.Table) else _relation(rows)
            if window is None and isinstance(rows, StagedRows) and rows.in_warehouse:
                connection.execute(f"drop table if exists {relation}")
                connection.execute(f"alter table {rows.relation} rename to {sql.identifier(table.name)}")
            elif window is None:
                connection.execute(f"create or replace table {relation} as from {new_rows}")
            else:
                start, end = window
                connection.execute(f"create table if not exists {relation} as from {new_rows} limit 0")
                connection.execute(
                    f"delete from {relation} where {bound} >= date '{start}' and {bound} < date '{end}'"
                )
                connection.execute(f"insert into {relation} by name from {new_rows}")
            connection.execute(_comment("table", relation, state))
        return JobStats()

    def upsert_rows(
        self,
        table: TableShape,
        rows: Path | StagedRows,
        state: Mapping[str, object],
        months: Sequence[date] = (),
    ) -> JobStats:
        refuse_other_columns(table, rows)
        relation = self.quoted_name(table.name)
        same_key = " and ".join(f"kept.{name} = arrived.{name}" for name in map(sql.identifier, table.key))
        live = f"where not ({is_deleted(table, sql.identifier(table.deleted))})" if table.deleted else ""
        with self._transaction() as connection:
            connection.execute(
                f"delete from {relation} as kept using {_relation(rows)} as arrived where {same_key}"
            )
            connection.execute(f"insert into {relation} by name from {_relation(rows)} {live}")
            connection.execute(_comment("table", relation, state))
        return JobStats()

    def save_rows_with_keys(self, table: TableShape, rows: Path, target: Path) -> None:
        with self._connection() as connection:
            connection.execute(
                f"copy (from {self.quoted_name(table.name)} semi join {_relation(rows)}"
                f" using ({', '.join(map(sql.identifier, table.key))}))"
                f" to {sql.literal(str(target))} (format parquet)"
            )

    def months_with_keys(
        self, table: TableShape, key: Sequence[str], rows: Path | StagedRows, start: date, end: date
    ) -> Sequence[date]:
        bound = sql.identifier(str(table.partitioned_by))
        with self._connection() as connection:
            rows_found = connection.execute(
                f"select distinct cast(date_trunc('month', {bound}) as date)"
                f" from {self.quoted_name(table.name)} semi join {_relation(rows)}"
                f" using ({', '.join(map(sql.identifier, key))})"
                f" where {bound} < date '{start}' or {bound} >= date '{end}' order by 1"
            ).fetchall()
        return [month for (month,) in rows_found]

    @contextmanager
    def staging(self, scratch: Path, memory_mib: int, to_load: bool = True) -> Iterator[StagingArea]:
        if self.read_only or not to_load:
            with closing(duckdb.connect()) as connection:
                yield StagingArea(connection, scratch, memory_mib)
            return
        schema = sql.identifier(self.database, self.schema)
        with self._connection() as connection:
            connection.execute(f"create schema if not exists {schema}")
            try:
                yield StagingArea(connection, scratch, memory_mib, schema)
            finally:
                drop_staged(connection)

    @contextmanager
    def connected(self) -> Iterator[None]:
        if not self.path.exists():
            # To ask must not make one.
            yield
            return
        with self._connection():
            yield

    def query(self, statement: str, version: str = "") -> pa.Table:
        with self._connection() as connection:
            return connection.sql(statement).to_arrow_table()

    def read_rows(self, table: str) -> pa.Table:
        return self.query(f"from {self.quoted_name(table)}")

    def bytes_to_read(self, statement: str) -> int | None:
        return None

    def price(self, bytes_billed: int, slot_milliseconds: int | None = None) -> float | None:
        return None

    @property
    def unknown_price(self) -> str:
        return ""

    def pandas_io_manager(self) -> tuple[Any, Mapping[str, Any]]:
        # Pandas takes a second to import.
        from dagster_duckdb_pandas import DuckDBPandasIOManager

        config: dict[str, Any] = {
            "database": str(self.path),
            "schema": sql.identifier(self.beside, self.schema) if self.beside else self.schema,
            "connection_config": CONFIGURATION,
        }
        return DuckDBPandasIOManager(**config).create_io_manager(None), config

    def quoted_name(self, table: str) -> str:
        # With the catalog: a schema may have the name of one.
        return sql.identifier(self.database, self.schema, table)

    def qualified_name(self, table: str) -> str:
        return f"{self.database}.{self.schema}.{table}"

    def tables(self) -> set[str]:
        return {name for name, _, _ in self._relations()}

    def read_state(self, table: str) -> Mapping[str, object]:
        return self.read_states().get(table, {})

    def read_states(self) -> Mapping[str, Mapping[str, object]]:
        return {name: state for name, _, state in self._relations()}

    def content_versions(self, tables: Collection[TableName]) -> Mapping[TableName, str]:
        return {}

    def made_by_hand(self) -> Mapping[str, str]:
        return {name: kind for name, kind, state in self._relations() if not state}

    def write_states(self, states: Mapping[str, Mapping[str, object]]) -> None:
        kinds = {name: kind for name, kind, _ in self._relations()}
        with self._transaction() as connection:
            for name in states.keys() & kinds.keys():
                connection.execute(_comment(kinds[name], self.quoted_name(name), states[name]))

    def read_record(self, name: str) -> Mapping[str, Any]:
        return self.read_state(f"{RECORD_PREFIX}{name}")

    def write_record(self, name: str, content: Mapping[str, Any]) -> None:
        relation = self.quoted_name(f"{RECORD_PREFIX}{name}")
        with self._transaction() as connection:
            connection.execute(f"drop table if exists {relation}")
            if content:
                connection.execute(f"create table {relation} (in_the_comment boolean)")
                connection.execute(_comment("table", relation, content))

    def drop_relation(self, table: str) -> None:
        kinds = {name: kind for name, kind, _ in self._relations()}
        if table in kinds:
            with self._transaction() as connection:
                connection.execute(f"drop {kinds[table]} {self.quoted_name(table)}")

    def _relations(self) -> list[tuple[str, str, Mapping[str, object]]]:
        """Name, kind (table or view) and state of every relation."""
        if not self.path.exists():
            # To ask must not make one.
            return []
        with self._connection() as connection:
            rows = connection.execute(
                "select table_name, 'table', comment from duckdb_tables()"
                " where lower(database_name) = lower($database) and lower(schema_name) = lower($schema)"
                " and not starts_with(table_name, $staging)"
                " union all"
                " select view_name, 'view', comment from duckdb_views()"
                " where lower(database_name) = lower($database) and lower(schema_name) = lower($schema)",
                {"database": self.database, "schema": self.schema, "staging": STAGING_PREFIX},
            ).fetchall()
        return [(name, kind, state_in(comment)) for name, kind, comment in rows]

    def row_count(self, table: str) -> int:
        with self._connection() as connection:
            row = connection.execute(f"select count(*) from {self.quoted_name(table)}").fetchone()
        return row[0] if row else 0

    def flush(self) -> None:
        """Write everything that is committed into the file itself, so that a copy of it is whole."""
        with self._connection() as connection:
            connection.execute("checkpoint")

    def check(self) -> str:
        if not is_writable(self.path.parent):
            raise WarehouseError(
                f"{self.path.parent} cannot be written to: set SERVERLESS_HOME to a folder of yours."
            )
        # The file itself is not opened: that would get in the way of a run.
        return f"a file of {self.path.stat().st_size:,} bytes" if self.path.exists() else "no file yet"

    def dbt_variables(self) -> Mapping[str, str]:
        return {
            "SERVERLESS_DUCKDB_PATH": str(self.path),
            "SERVERLESS_DATABASE": self.database,
            "DBT_SCHEMA": self.schema,
        }

    @contextmanager
    def _transaction(self) -> Iterator[duckdb.DuckDBPyConnection]:
        with self._connection() as connection:
            # Closing a connection rolls back what was not committed.
            connection.execute("begin")
            connection.execute(f"create schema if not exists {sql.identifier(self.database, self.schema)}")
            yield connection
            connection.execute("commit")

    @contextmanager
    def _connection(self) -> Iterator[duckdb.DuckDBPyConnection]:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with closing(self._connect()) as connection:
                yield connection
        except duckdb.Error as error:
            raise WarehouseError(f"{self.path.name}: {error}") from error

    def _connect(self) -> duckdb.DuckDBPyConnection:
        """Open the file; if another process has it open, wait a while for that to close it."""
        deadline = time.monotonic() + SECONDS_TO_WAIT_FOR_FILE
        next_message = 0.0
        while True:
            try:
                return self._open()
            except duckdb.IOException as error:
                holder = _lock_holder(error)
                if holder is None:
                    raise
            seconds_left = deadline - time.monotonic()
            if seconds_left <= 0:
                raise WarehouseError(
                    f"{self.path} is still open in {holder} after {SECONDS_TO_WAIT_FOR_FILE:.0f} s, and "
                    "DuckDB lets no other process in. Close it there, then run again."
                )
            if time.monotonic() >= next_message:
                log.warning(
                    f"{self.path} is open in {holder}, and DuckDB lets no other process in. "
                    f"Waiting up to {seconds_left:.0f} s for it to be closed."
                )
                next_message = time.monotonic() + SECONDS_BETWEEN_MESSAGES
            time.sleep(SECONDS_BETWEEN_ATTEMPTS)

    def _open(self) -> duckdb.DuckDBPyConnection:
        connection = duckdb.connect(str(self.path), self.read_only, config={**CONFIGURATION})
        try:
            for file in databases_beside(self.path):
                connection.execute(
                    f"attach if not exists {sql.literal(str(file))} as {sql.identifier(file.stem)}"
                )
        except duckdb.Error:
            connection.close()
            raise
        return connection


def databases_beside(path: Path) -> Sequence[Path]:
    """Return the files of the databases beside a warehouse's file, each named after its database."""
    return sorted((path.parent / DATABASES).glob("*.duckdb"))


def _lock_holder(error: duckdb.Error) -> str | None:
    """The process that has the file open, if that is why DuckDB could not open it."""
    if LOCKED not in str(error):
        return None
    holder = LOCKED_BY.search(str(error))
    return f"process {holder['pid']} ({Path(holder['program']).name})" if holder else "another process"


def state_in(comment: str | None) -> Mapping[str, object]:
    try:
        state = json.loads(comment or "{}")
    except ValueError:
        # A comment that this project did not write.
        return {}
    return state if isinstance(state, dict) else {}


def _comment(kind: str, relation: str, state: Mapping[str, object]) -> str:
    return f"comment on {kind} {relation} is {sql.literal(json.dumps(dict(state)))}"


def _relation(rows: Path | StagedRows) -> str:
    if isinstance(rows, StagedRows):
        return f"({rows.query})"
    return f"read_parquet({sql.literal(str(rows))})"


def damage_of(path: Path) -> str | None:
    """Return DuckDB's message if a file cannot be opened as a DuckDB database; None if it can."""
    try:
        duckdb.connect(str(path), read_only=True, config={**CONFIGURATION}).close()
    except duckdb.Error as error:
        # A file that another process has open is not damaged.
        return None if LOCKED in str(error) else _first_line(error)
    return None


def verify(path: Path) -> str | None:
    """Return DuckDB's message if not all of a DuckDB file can be read; None if it can.

    Reads every row, which has DuckDB compare the checksum of every block. Rows of a write-ahead log beside
    the file are written into it.
    """
    try:
        with closing(duckdb.connect(str(path), config={**CONFIGURATION})) as connection:
            drop_staged(connection)
            connection.execute("checkpoint")
            tables = connection.execute(
                "select database_name, schema_name, table_name from duckdb_tables()"
                " where not internal and not temporary"
            ).fetchall()
            for names in tables:
                # With the database's name, as a schema may have the same.
                relation = sql.identifier(*names)
                connection.execute(f"select bit_xor(hash(t)) from {relation} t").fetchall()
    except duckdb.Error as error:
        return None if LOCKED in str(error) else _first_line(error)
    return None


def _first_line(error: duckdb.Error) -> str:
    return str(error).strip().splitlines()[0]
