"""A warehouse in a DuckDB file, with further databases beside it."""

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, nullcontext
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
from serverless_assets.warehouse.duckdb_file import CONFIGURATION, DATABASES, databases_beside, open_file
from serverless_assets.warehouse.staging import STAGING_PREFIX, StagedRows, StagingArea, drop_staged


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
        # To ask must not make one.
        with self._connection() if self.path.exists() else nullcontext():
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
            with closing(open_file(self.path, self.read_only)) as connection:
                yield connection
        except duckdb.Error as error:
            raise WarehouseError(f"{self.path.name}: {error}") from error


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
    return f"({rows.query})" if isinstance(rows, StagedRows) else f"read_parquet({sql.literal(str(rows))})"
