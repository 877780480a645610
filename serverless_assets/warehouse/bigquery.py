"""A warehouse in BigQuery datasets, of one project or several.

dagster-gcp-pandas' IO manager reads small frames, but does not write them: it truncates the table, or deletes
its rows, before it loads the new ones, writes nothing for an empty frame, upper-cases the column names and
infers the types. So the forecast's rows, and frames, come this way too.
"""

import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import duckdb
import google.auth
import pyarrow as pa
import pyarrow.parquet as pq
from google.api_core.exceptions import BadRequest
from google.cloud import bigquery

from serverless_assets import google_errors
from serverless_assets.warehouse import JobStats, TableName, TableShape, refuse_other_columns
from serverless_assets.warehouse import bigquery_sql as sql
from serverless_assets.warehouse.bigquery_dataset import CALLS_AT_ONCE, BigQueryDataset
from serverless_assets.warehouse.bigquery_jobs import work
from serverless_assets.warehouse.staging import STAGING_PREFIX, StagedRows, StagingArea

# The list prices on demand by location, as far as they are known: SERVERLESS_BIGQUERY_PRICE tells others.
LIST_PRICES = {"US": "6.25/TiB", "EU": "6.25/TiB"}
MINIMUM_BYTES = 10 << 20
# What is paid for, in bytes billed and in slot milliseconds.
UNITS = {"TiB": 1 << 40, "slot-hour": 3_600_000}
STAGING_LIFETIME = timedelta(hours=1)
# How BigQuery refuses to replace a table by one of another layout, and a view or the like by a table: what
# is there has to be dropped first.
OTHER_KIND = ("Cannot replace a table with a different", "because it is currently a")


@dataclass(frozen=True)
class BigQueryWarehouse(BigQueryDataset):
    """See `Warehouse`. Rows are loaded into a table beside the one they are for, then swapped in.

    `usd` is the price of queries in US dollars by one of UNITS, such as "6.25/TiB"; empty for the location's
    list price.
    """

    usd: str = ""
    # Answers by statement and version of what it reads. A statement names its datasets, so that the objects
    # of all datasets share them; each run has its own.
    _answers: dict[tuple[str, str], pa.Table] = field(default_factory=dict, repr=False, compare=False)

    @property
    def kind(self) -> str:
        return "bigquery"

    def for_run(self, run_id: str, check_turn: Callable[[], None] | None = None) -> "BigQueryWarehouse":
        return replace(self, labels={"run": run_id}, check_turn=check_turn, _answers={})

    def __getstate__(self) -> Mapping[str, Any]:
        # For dbt's process, which has neither the clients of this one nor its lock.
        return {**vars(self), "check_turn": None, "_kept": [], "_answers": {}}

    def replace_rows(
        self,
        table: TableShape,
        rows: Path | pa.Table | StagedRows,
        state: Mapping[str, object],
        window: tuple[date, date] | None = None,
    ) -> JobStats:
        if isinstance(rows, StagedRows):
            rows = rows.parquet()
        refuse_other_columns(table, rows)
        count = rows.num_rows if isinstance(rows, pa.Table) else pq.read_metadata(rows).num_rows
        with self.jobs(self.qualified_name(table.name), table.name) as jobs:
            staging = self._staging(table)
            names = self.quoted_name(table.name), self.quoted_name(staging.table_id)
            existing = jobs.table(self.reference(table.name)) if window else None
            words = sql.words_in(existing.description) if existing else table.description
            described = sql.description_with_state(words, state)
            with jobs.staged(staging, rows) as loaded:
                if window and existing:
                    statement = sql.window_statement(*names, table, *window)
                    # A merge cannot write a description: until it is done, no state is kept with the table.
                    with jobs.description_put_aside(existing, words, described):
                        merge = jobs.run(statement)
                        jobs.refuse_other_merge(merge, count)
                    return loaded + work(merge)
                create = sql.create_statement if window else sql.replace_statement
                statement = create(*names, table, described, jobs.labels)
                try:
                    job = jobs.run(statement)
                except BadRequest as error:
                    if not any(words in str(error) for words in OTHER_KIND):
                        raise
                    jobs.client.delete_table(self.reference(table.name), not_found_ok=True, **jobs.call)
                    job = jobs.run(statement)
                jobs.refuse_other_count(self.reference(table.name), count)
                return loaded + work(job)

    def upsert_rows(
        self,
        table: TableShape,
        rows: Path | StagedRows,
        state: Mapping[str, object],
        months: Sequence[date] = (),
    ) -> JobStats:
        rows = rows.parquet() if isinstance(rows, StagedRows) else rows
        refuse_other_columns(table, rows)
        with self.jobs(self.qualified_name(table.name), table.name) as jobs:
            staging = self._staging(table)
            existing = jobs.client.get_table(self.reference(table.name), **jobs.call)
            described = sql.description_with_state(sql.words_in(existing.description), state)
            names = self.quoted_name(table.name), self.quoted_name(staging.table_id)
            with jobs.staged(staging, rows) as loaded:
                statement = sql.upsert_statement(*names, table, months)
                # A merge cannot write a description: until it is done, no state is kept with the table.
                with jobs.description_put_aside(existing, sql.words_in(existing.description), described):
                    merge = jobs.run(statement)
                    if not table.deleted:
                        jobs.refuse_other_merge(merge, pq.read_metadata(rows).num_rows)
                return loaded + work(merge)

    def save_rows_with_keys(self, table: TableShape, rows: Path, target: Path) -> None:
        with self.jobs(self.qualified_name(table.name), table.name) as jobs:
            staging = self._staging(table)
            names = self.quoted_name(table.name), self.quoted_name(staging.table_id)
            with jobs.staged(staging, rows), pq.ParquetWriter(target, table.schema) as file:
                months: list[date] = []
                if table.partitioned_by:
                    # Keys and times are read of all months, and whole rows of few.
                    statement = sql.months_with_keys_statement(*names, table, table.key)
                    months = [row["month"] for row in jobs.rows(jobs.run(statement))]
                    if not months:
                        return
                answer = jobs.rows(jobs.run(sql.rows_with_keys_statement(*names, table, months)))
                for batch in answer.to_arrow_iterable():
                    file.write_table(pa.Table.from_batches([batch]).cast(table.schema))

    def months_with_keys(
        self, table: TableShape, key: Sequence[str], rows: Path | StagedRows, start: date, end: date
    ) -> Sequence[date]:
        with self.jobs(self.qualified_name(table.name), table.name) as jobs:
            staging = self._staging(table)
            names = self.quoted_name(table.name), self.quoted_name(staging.table_id)
            statement = sql.months_with_keys_statement(*names, table, key, (start, end))
            with jobs.staged(staging, rows.parquet() if isinstance(rows, StagedRows) else rows):
                return sorted(row["month"] for row in jobs.rows(jobs.run(statement)))

    @contextmanager
    def staging(self, scratch: Path, memory_mib: int, to_load: bool = True) -> Iterator[StagingArea]:
        with closing(duckdb.connect()) as connection:
            yield StagingArea(connection, scratch, memory_mib)

    def query(self, statement: str, version: str = "") -> pa.Table:
        if version and (statement, version) in self._answers:
            return self._answers[statement, version]
        with self.jobs() as jobs:
            # The Storage API pays off for large answers alone, and needs one more permission.
            answer = _naive(jobs.rows(jobs.run(statement)).to_arrow(create_bqstorage_client=False))
        if version:
            self._answers[statement, version] = answer
        return answer

    def read_rows(self, table: str) -> pa.Table:
        with self.jobs(self.qualified_name(table)) as jobs:
            existing = jobs.client.get_table(self.reference(table), **jobs.call)
            rows = jobs.client.list_rows(existing, **jobs.call)
            return _naive(rows.to_arrow(create_bqstorage_client=False))

    def bytes_to_read(self, statement: str) -> int | None:
        with self.jobs() as jobs:
            job = jobs.dry_run(statement)
        # Of each table that a query reads, 10 MB are billed at least.
        least = MINIMUM_BYTES * len(job.referenced_tables) if job.total_bytes_processed else 0
        return max(job.total_bytes_processed or 0, least)

    def price(self, bytes_billed: int, slot_milliseconds: int | None = None) -> float | None:
        amount, _, unit = (self.usd or LIST_PRICES.get(self.location.upper(), "")).partition("/")
        used = slot_milliseconds if unit == "slot-hour" else bytes_billed
        return float(amount) * used / UNITS[unit] if amount and used is not None else None

    @property
    def unknown_price(self) -> str:
        if self.price(0) is not None:
            return ""
        if self.usd:
            return f"{self.name}, as how many slot-hours a query takes is known once it has run"
        return f"{self.name}, as SERVERLESS_BIGQUERY_PRICE does not say its price there, such as 6.25/TiB"

    def pandas_io_manager(self) -> tuple[Any, Mapping[str, Any]]:
        # Pandas takes a second to import.
        from dagster_gcp_pandas import BigQueryPandasIOManager, BigQueryPandasTypeHandler

        # Frames are small, and the API for large ones asks for one more package and permission.
        warnings.filterwarnings("ignore", "BigQuery Storage module not found", UserWarning)

        class Frames(BigQueryPandasTypeHandler):
            def load_input(self, context: Any, table_slice: Any, connection: bigquery.Client) -> Any:
                # It asks for the project of the table, where jobs need not be allowed.
                client = SimpleNamespace(query=lambda project, **query: connection.query(**query))
                return super().load_input(context, table_slice, client)

        class Manager(BigQueryPandasIOManager):
            @staticmethod
            def type_handlers() -> Any:
                return [Frames()]

        config: dict[str, Any] = {"project": self.project, "dataset": self.dataset, "location": self.location}
        # The project in the config of a run is that of the client.
        return Manager(**config).create_io_manager(None), {**config, "project": self.jobs_project}

    def tables(self) -> set[str]:
        with self.jobs() as jobs:
            return self._names(jobs)

    def read_state(self, table: str) -> Mapping[str, object]:
        with self.jobs(self.qualified_name(table)) as jobs:
            existing = jobs.table(self.reference(table))
        return sql.state_in(existing.description) if existing else {}

    def read_states(self) -> Mapping[str, Mapping[str, object]]:
        return {name: sql.state_in(table.description) for name, table in self.relations().items()}

    def content_versions(self, tables: Collection[TableName]) -> Mapping[TableName, str]:
        references = [
            bigquery.DatasetReference(database or self.project, schema).table(name)
            for database, schema, name in tables
        ]
        with self.jobs() as jobs, ThreadPoolExecutor(CALLS_AT_ONCE) as pool:
            versions = zip(tables, pool.map(jobs.content_version, references), strict=True)
            return {table: version for table, version in versions if version}

    def made_by_hand(self) -> Mapping[str, str]:
        return {
            name: table.table_type.lower().replace("_", " ")
            for name, table in self.relations().items()
            if not sql.state_in(table.description)
        }

    def write_states(self, states: Mapping[str, Mapping[str, object]]) -> None:
        with self.jobs() as jobs, ThreadPoolExecutor(CALLS_AT_ONCE) as pool:
            for table in pool.map(jobs.table, map(self.reference, states)):
                if table:
                    words = sql.words_in(table.description)
                    jobs.describe(table, sql.description_with_state(words, states[table.table_id]))

    def row_count(self, table: str) -> int:
        with self.jobs(self.qualified_name(table)) as jobs:
            # What BigQuery knows of a table costs nothing, and a query would be billed.
            return jobs.client.get_table(self.reference(table), **jobs.call).num_rows or 0

    def check(self) -> str:
        with replace(self, patience=google_errors.PATIENCE_OF_A_CHECK).jobs() as jobs:
            account = jobs.dry_run("select 1").user_email
            account = account or getattr(google.auth.default()[0], "service_account_email", "")
            dataset = jobs.dataset(self._dataset)
        identity = f"jobs run in {self.jobs_project}" + (f" as {account}" if account else "")
        if dataset is None:
            return f"{identity}; {self.adoption() or 'no dataset yet: the first run creates it'}"
        self._refuse_unusable(dataset)
        return f"{identity}; tables and views: {len(self.tables())}"

    def dbt_variables(self) -> Mapping[str, str]:
        return {
            "GOOGLE_CLOUD_PROJECT": self.project,
            "SERVERLESS_EXECUTION_PROJECT": self.jobs_project,
            "SERVERLESS_DATABASE": self.project,
            "DBT_SCHEMA": self.dataset,
            "SERVERLESS_LOCATION": self.location,
            "SERVERLESS_MAX_BYTES_BILLED": str(self.maximum_bytes_billed),
        }

    def _staging(self, table: TableShape) -> bigquery.Table:
        """A table for the rows on their way. It expires, so that a killed run leaves nothing behind."""
        reference = self.reference(f"{STAGING_PREFIX}{table.name}_{uuid4().hex}")
        staging = bigquery.Table(reference, schema=sql.staging_schema(table.schema))
        staging.expires = datetime.now(UTC) + STAGING_LIFETIME
        return staging


def _naive(answer: pa.Table) -> pa.Table:
    """Return the table with timestamps in UTC without a time zone, as everywhere in this project."""
    fields = [
        field.with_type(pa.timestamp("us")) if pa.types.is_timestamp(field.type) else field
        for field in answer.schema
    ]
    return answer.cast(pa.schema(fields))
