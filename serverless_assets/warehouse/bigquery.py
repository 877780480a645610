"""A warehouse in BigQuery datasets, of one project or several.

dagster-gcp-pandas' IO manager reads small frames, but does not write them: it truncates the table, or deletes
its rows, before it loads the new ones, writes nothing for an empty frame, upper-cases the column names and
infers the types. So the forecast's rows, and frames, come this way too.
"""

import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
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
from dagster_gcp import BigQueryResource
from google.api_core.exceptions import BadRequest
from google.cloud import bigquery

from serverless_assets import google_errors
from serverless_assets.names import WORK
from serverless_assets.warehouse import (
    RECORD_PREFIX,
    JobStats,
    TableName,
    TableShape,
    WarehouseError,
    published_schema,
    refuse_other_columns,
)
from serverless_assets.warehouse import bigquery_sql as sql
from serverless_assets.warehouse.bigquery_jobs import Jobs, work
from serverless_assets.warehouse.staging import STAGING_PREFIX, StagedRows, StagingArea

# The list prices on demand by location, as far as they are known: SERVERLESS_BIGQUERY_PRICE tells others.
LIST_PRICES = {"US": "6.25/TiB", "EU": "6.25/TiB"}
MINIMUM_BYTES = 10 << 20
# What is paid for, in bytes billed and in slot milliseconds.
UNITS = {"TiB": 1 << 40, "slot-hour": 3_600_000}
# Begins the names of the copies by which earlier releases can be returned to.
KEPT_PREFIX = f"{RECORD_PREFIX}kept_"
# The record that the lock of runs is.
LOCK = "lock"
# The record of the other projects in which models are built.
PROJECTS = "projects"
# Begins the names of tables that are not of the project, whichever of its models there are.
OWN = (STAGING_PREFIX, KEPT_PREFIX, f"{RECORD_PREFIX}{LOCK}")
STAGING_LIFETIME = timedelta(hours=1)
SCRATCH_LIFETIME = timedelta(days=1)
# What BigQuery knows of a table takes a call of some 0.1 s, and costs nothing. One query would tell it of all
# tables, take longer than so many calls at once, and be billed for 10 MB.
CALLS_AT_ONCE = 8

SERVICE = google_errors.Service(
    "BigQuery",
    "bigquery.googleapis.com",
    "roles/bigquery.dataEditor on the dataset and roles/bigquery.jobUser on the project of the jobs",
)
# How BigQuery refuses to replace a table by one of another layout, and a view or the like by a table: what
# is there has to be dropped first.
OTHER_KIND = ("Cannot replace a table with a different", "because it is currently a")
CREATION = replace(SERVICE, roles="roles/bigquery.dataEditor on the project, to create the dataset")


@dataclass(frozen=True)
class BigQueryWarehouse:
    """See `Warehouse`. Rows are loaded into a table beside the one they are for, then swapped in.

    Jobs run in, and are billed to, `execution_project`, or `project` if it is empty; each query is billed for
    `maximum_bytes_billed` at most. They carry `labels` and the name of the table that they are for. A call
    that Google does not answer is tried again for `patience` seconds. `lifetime` is how long a table lasts
    that is not written again; None: for good. `usd` is the price of queries in US dollars by one of UNITS,
    such as "6.25/TiB"; empty for the location's list price.
    """

    project: str
    dataset: str
    location: str
    maximum_bytes_billed: int
    labels: Mapping[str, str] = field(default_factory=dict, hash=False)
    patience: float = google_errors.PATIENCE
    lifetime: timedelta | None = None
    usd: str = ""
    execution_project: str = ""
    # Raises a `UserError` in a run whose turn another run has taken: asked before every use of the dataset.
    check_turn: Callable[[], None] | None = field(default=None, repr=False, compare=False)
    # The clients that `connected` keeps.
    _kept: list[bigquery.Client] = field(default_factory=list, init=False, repr=False, compare=False)
    # Answers by statement and version of what it reads. A statement names its datasets, so that the objects
    # of all datasets share them; each run has its own.
    _answers: dict[tuple[str, str], pa.Table] = field(default_factory=dict, repr=False, compare=False)

    @property
    def kind(self) -> str:
        return "bigquery"

    @property
    def name(self) -> str:
        return f"BigQuery, {self.project}.{published_schema(self.dataset)} in {self.location}"

    def in_schema(self, database: str, schema: str) -> "BigQueryWarehouse":
        project, dataset = database or self.project, schema or self.dataset
        if self.working().has(dataset):
            dataset = published_schema(dataset)
        if (project, dataset) == (self.project, self.dataset):
            return self
        beside = replace(self, project=project, dataset=dataset, execution_project=self.jobs_project)
        beside._kept.extend(self._kept)
        return beside

    def prepare_schemas(self, schemas: Collection[tuple[str, str]]) -> None:
        # A dataset of another name is written to where people read, outside of what runs publish.
        beside = [there for there in (self.in_schema(*place) for place in schemas) if self.has(there.dataset)]
        projects = {there.project for there in beside} - {self.project}
        known = set(self._projects()) if projects else set()
        for project in sorted(projects - known):
            self.in_schema(project, "")._refuse_lock()
        if projects - known:
            self.write_record(PROJECTS, {"names": sorted(projects | known)})
        for there in beside:
            if there is not self:
                there.prepare()

    @property
    def jobs_project(self) -> str:
        return self.execution_project or self.project

    @property
    def is_scratch(self) -> bool:
        return self.lifetime is not None

    def for_run(self, run_id: str, check_turn: Callable[[], None] | None = None) -> "BigQueryWarehouse":
        return replace(self, labels={"run": run_id}, check_turn=check_turn, _answers={})

    def __getstate__(self) -> Mapping[str, Any]:
        # For dbt's process, which has neither the clients of this one nor its lock.
        return {**vars(self), "check_turn": None, "_kept": [], "_answers": {}}

    def working(self) -> "BigQueryWarehouse":
        """The warehouse that runs write to: the dataset beside this one, of the same name with an ending."""
        return replace(self, dataset=f"{self.dataset}{WORK}")

    def published(self) -> "BigQueryWarehouse":
        """The warehouse in which people read what runs write to this one."""
        return replace(self, dataset=published_schema(self.dataset))

    def prepare(self, like: bigquery.Dataset | None = None) -> bigquery.Dataset:
        """Create the dataset if there is none, encrypted as the one that it is `like`.

        Raises:
            WarehouseError: it cannot be created, or lies in another location.
        """
        with self._jobs(self._dataset, service=CREATION) as jobs:
            dataset = self._wanted()
            if like is not None:
                dataset.default_encryption_configuration = like.default_encryption_configuration
            existing = jobs.dataset(self._dataset) or jobs.client.create_dataset(
                dataset, exists_ok=True, **jobs.call
            )
        self._refuse_another_location(existing)
        self._refuse_expiration(existing)
        return existing

    def in_all_schemas(self) -> "Sequence[BigQueryWarehouse]":
        """This warehouse as of its own dataset, then as of those of models with a schema or a project of
        their own: dbt begins the names of these with that of the dataset."""
        places = []
        for project in (self.project, *self._projects()):
            with self._jobs(project) as jobs:
                items = jobs.client.list_datasets(project, **jobs.call)
                places += sorted((project, item.dataset_id) for item in items if self.has(item.dataset_id))
        others = (self.in_schema(*place) for place in places)
        return [self, *(there for there in others if there is not self)]

    def has(self, dataset: str) -> bool:
        """Whether a dataset is this one, or by its name that of a model with a schema of its own."""
        return f"{dataset}_".startswith(f"{self.dataset}_")

    def _projects(self) -> Sequence[str]:
        """The other projects in which models are built, or were."""
        return list(self.read_record(PROJECTS).get("names", ()))

    @contextmanager
    def jobs(self) -> Iterator[Jobs]:
        """The calls and jobs of one client; Google's errors become `WarehouseError`s."""
        with self._jobs(self._dataset) as jobs:
            yield jobs

    @contextmanager
    def scratch(self) -> Iterator["BigQueryWarehouse"]:
        """A dataset beside this one, gone afterwards. Its tables expire, should the process be killed."""
        beside = replace(self, dataset=f"{self.dataset}_ci_{uuid4().hex[:8]}", lifetime=SCRATCH_LIFETIME)
        try:
            # Its name is new: a dataset that is there is that of an attempt whose answer got lost.
            with self._jobs(beside._dataset, service=CREATION) as jobs:
                jobs.client.create_dataset(beside._wanted(), exists_ok=True, **jobs.call)
            yield beside
        finally:
            # The first has the record of the others.
            for there in reversed(beside.in_all_schemas()):
                there.drop()

    def drop(self) -> None:
        """Delete the dataset with all that is in it, if there is one; never one that is to last.

        Raises:
            WarehouseError: it is still there.
        """
        if self.lifetime is None:
            raise WarehouseError(f"{self.name} is to last, and is not deleted")
        with self._jobs(self._dataset) as jobs:
            jobs.client.delete_dataset(self._dataset, delete_contents=True, not_found_ok=True, **jobs.call)

    def _wanted(self) -> bigquery.Dataset:
        dataset = bigquery.Dataset(self._dataset)
        dataset.location = self.location
        if self.lifetime is not None:
            dataset.default_table_expiration_ms = self.lifetime // timedelta(milliseconds=1)
        return dataset

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
        with self._jobs(self.qualified_name(table.name), table.name) as jobs:
            staging = self._staging(table)
            names = self.quoted_name(table.name), self.quoted_name(staging.table_id)
            existing = jobs.table(self.reference(table.name)) if window else None
            words = sql.words_in(existing.description) if existing else table.description
            described = sql.description_with_note(words, state)
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
        with self._jobs(self.qualified_name(table.name), table.name) as jobs:
            staging = self._staging(table)
            existing = jobs.client.get_table(self.reference(table.name), **jobs.call)
            described = sql.description_with_note(sql.words_in(existing.description), state)
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
        with self._jobs(self.qualified_name(table.name), table.name) as jobs:
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
        with self._jobs(self.qualified_name(table.name), table.name) as jobs:
            staging = self._staging(table)
            names = self.quoted_name(table.name), self.quoted_name(staging.table_id)
            statement = sql.months_with_keys_statement(*names, table, key, (start, end))
            with jobs.staged(staging, rows.parquet() if isinstance(rows, StagedRows) else rows):
                return sorted(row["month"] for row in jobs.rows(jobs.run(statement)))

    @contextmanager
    def staging(self, scratch: Path, memory_mib: int, to_load: bool = True) -> Iterator[StagingArea]:
        with closing(duckdb.connect()) as connection:
            yield StagingArea(connection, scratch, memory_mib)

    @contextmanager
    def connected(self) -> Iterator[None]:
        # A client of its own would fetch a token and shake hands for every question.
        with ExitStack() as stack:
            with google_errors.translate_errors(SERVICE, self._dataset, WarehouseError):
                self._kept.append(stack.enter_context(self._client()))
            try:
                yield
            finally:
                self._kept.pop()

    def query(self, statement: str, version: str = "") -> pa.Table:
        if version and (statement, version) in self._answers:
            return self._answers[statement, version]
        with self._jobs(self._dataset) as jobs:
            # The Storage API pays off for large answers alone, and needs one more permission.
            answer = _naive(jobs.rows(jobs.run(statement)).to_arrow(create_bqstorage_client=False))
        if version:
            self._answers[statement, version] = answer
        return answer

    def read_rows(self, table: str) -> pa.Table:
        with self._jobs(self.qualified_name(table)) as jobs:
            existing = jobs.client.get_table(self.reference(table), **jobs.call)
            rows = jobs.client.list_rows(existing, **jobs.call)
            return _naive(rows.to_arrow(create_bqstorage_client=False))

    def bytes_to_read(self, statement: str) -> int | None:
        with self._jobs(self._dataset) as jobs:
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

    def quoted_name(self, table: str) -> str:
        return sql.identifier(self.project, self.dataset, table)

    def qualified_name(self, table: str) -> str:
        return f"{self.project}.{published_schema(self.dataset)}.{table}"

    def tables(self) -> set[str]:
        with self._jobs(self._dataset) as jobs:
            return self._names(jobs)

    def read_state(self, table: str) -> Mapping[str, object]:
        with self._jobs(self.qualified_name(table)) as jobs:
            existing = jobs.table(self.reference(table))
        return sql.note_in(existing.description) if existing else {}

    def read_states(self) -> Mapping[str, Mapping[str, object]]:
        return {name: sql.note_in(table.description) for name, table in self.relations().items()}

    def content_versions(self, tables: Collection[TableName]) -> Mapping[TableName, str]:
        references = [
            bigquery.DatasetReference(database or self.project, schema).table(name)
            for database, schema, name in tables
        ]
        with self._jobs(self._dataset) as jobs, ThreadPoolExecutor(CALLS_AT_ONCE) as pool:
            versions = zip(tables, pool.map(jobs.content_version, references), strict=True)
            return {table: version for table, version in versions if version}

    def made_by_hand(self) -> Mapping[str, str]:
        return {
            name: table.table_type.lower().replace("_", " ")
            for name, table in self.relations().items()
            if not sql.note_in(table.description)
        }

    def relations(self) -> Mapping[str, bigquery.Table]:
        """What BigQuery knows of each table and view in the dataset, by name."""
        with self._jobs(self._dataset) as jobs, ThreadPoolExecutor(CALLS_AT_ONCE) as pool:
            if jobs.dataset(self._dataset) is None:
                return {}
            tables = pool.map(jobs.table, map(self.reference, self._names(jobs)))
            return {table.table_id: table for table in tables if table}

    def kept_names(self) -> set[str]:
        """The names of the copies in the dataset by which earlier releases can be returned to."""
        with self._jobs(self._dataset) as jobs:
            names = {item.table_id for item in jobs.client.list_tables(self._dataset, **jobs.call)}
        return {name for name in names if name.startswith(KEPT_PREFIX)}

    def write_states(self, states: Mapping[str, Mapping[str, object]]) -> None:
        with self._jobs(self._dataset) as jobs, ThreadPoolExecutor(CALLS_AT_ONCE) as pool:
            for table in pool.map(jobs.table, map(self.reference, states)):
                if table:
                    words = sql.words_in(table.description)
                    jobs.describe(table, sql.description_with_note(words, states[table.table_id]))

    def read_record(self, name: str) -> Mapping[str, Any]:
        table = f"{RECORD_PREFIX}{name}"
        with self._jobs(self.qualified_name(table)) as jobs:
            existing = jobs.table(self.reference(table))
        return json.loads(existing.description or "{}") if existing else {}

    def write_record(self, name: str, content: Mapping[str, Any]) -> None:
        # Calls that take a moment and cost nothing, where rows would take a job of seconds. It is no state,
        # with which a table would be published.
        table = bigquery.Table(self.reference(f"{RECORD_PREFIX}{name}"))
        with self._jobs(self.qualified_name(table.table_id)) as jobs:
            if content:
                jobs.client.create_table(table, exists_ok=True, **jobs.call)
                jobs.describe(table, json.dumps(content))
            else:
                jobs.client.delete_table(table, not_found_ok=True, **jobs.call)

    def drop_relation(self, table: str) -> None:
        with self._jobs(self.qualified_name(table)) as jobs:
            jobs.client.delete_table(self.reference(table), not_found_ok=True, **jobs.call)

    def row_count(self, table: str) -> int:
        with self._jobs(self.qualified_name(table)) as jobs:
            # What BigQuery knows of a table costs nothing, and a query would be billed.
            return jobs.client.get_table(self.reference(table), **jobs.call).num_rows or 0

    def check(self) -> str:
        with replace(self, patience=google_errors.PATIENCE_OF_A_CHECK)._jobs(self._dataset) as jobs:
            account = jobs.dry_run("select 1").user_email
            account = account or getattr(google.auth.default()[0], "service_account_email", "")
            dataset = jobs.dataset(self._dataset)
        identity = f"jobs run in {self.jobs_project}" + (f" as {account}" if account else "")
        if dataset is None:
            return f"{identity}; {self.adoption() or 'no dataset yet: the first run creates it'}"
        self._refuse_another_location(dataset)
        self._refuse_expiration(dataset)
        return f"{identity}; tables and views: {len(self.tables())}"

    def adoption(self) -> str | None:
        """What the first run does with the tables of an earlier version of this project, which wrote where
        people read; None if there is no such dataset or a run has done so."""
        with self._jobs(self._dataset) as jobs:
            if WORK not in self.dataset or jobs.dataset(self._dataset) is not None:
                return None
        relations = self.published().relations().values()
        tables = [t for t in relations if t.table_type != "VIEW" and sql.note_in(t.description)]
        if not tables:
            return None
        return (
            f"There is no dataset {self.dataset} yet: the first run creates it, continues from the "
            f"{len(tables)} tables in {self.published().dataset}, and builds the views again."
        )

    def dbt_variables(self) -> Mapping[str, str]:
        return {
            "GOOGLE_CLOUD_PROJECT": self.project,
            "SERVERLESS_EXECUTION_PROJECT": self.jobs_project,
            "SERVERLESS_DATABASE": self.project,
            "DBT_SCHEMA": self.dataset,
            "SERVERLESS_LOCATION": self.location,
            "SERVERLESS_MAX_BYTES_BILLED": str(self.maximum_bytes_billed),
        }

    @property
    def _dataset(self) -> str:
        return f"{self.project}.{self.dataset}"

    def _refuse_another_location(self, existing: bigquery.Dataset) -> None:
        if (existing.location or "").upper() != self.location.upper():
            raise WarehouseError(
                f"The dataset {self._dataset} lies in {existing.location}, and the settings say "
                f"{self.location}. A dataset cannot be moved: set SERVERLESS_LOCATION to "
                f"{existing.location}, or DBT_SCHEMA to another dataset."
            )

    def _refuse_lock(self) -> None:
        """Refuse a dataset in which runs of another environment build."""
        with self._jobs(self._dataset) as jobs:
            if jobs.table(self.reference(f"{RECORD_PREFIX}{LOCK}")):
                raise WarehouseError(
                    f"Models are to be built in {self._dataset}, which another environment has for its own "
                    "runs: it would publish them. Set DBT_SCHEMA to another dataset in one of the two."
                )

    def _refuse_expiration(self, existing: bigquery.Dataset) -> None:
        """Refuse a dataset whose tables or partitions expire: rows would go that are never loaded again."""
        for what in ("table", "partition"):
            age = getattr(existing, f"default_{what}_expiration_ms")
            if age and self.lifetime is None:
                raise WarehouseError(
                    f"The dataset {self._dataset} deletes each {what} {timedelta(milliseconds=age)} after it "
                    "was made: tables would lose their history. Turn that off with "
                    f"`bq update --default_{what}_expiration 0 {self.project}:{self.dataset}`, or set "
                    "DBT_SCHEMA to another dataset."
                )

    def _names(self, jobs: Jobs) -> set[str]:
        items = jobs.client.list_tables(self._dataset, **jobs.call)
        return {item.table_id for item in items if not item.table_id.startswith(OWN)}

    def _staging(self, table: TableShape) -> bigquery.Table:
        """A table for the rows on their way. It expires, so that a killed run leaves nothing behind."""
        reference = self.reference(f"{STAGING_PREFIX}{table.name}_{uuid4().hex}")
        staging = bigquery.Table(reference, schema=sql.staging_schema(table.schema))
        staging.expires = datetime.now(UTC) + STAGING_LIFETIME
        return staging

    def reference(self, table: str) -> bigquery.TableReference:
        """The table's name, as Google's client takes it."""
        return bigquery.DatasetReference(self.project, self.dataset).table(table)

    @contextmanager
    def _jobs(
        self, subject: str, table: str | None = None, service: google_errors.Service = SERVICE
    ) -> Iterator[Jobs]:
        """Yield the calls and jobs for a table; Google's errors become `WarehouseError`s about `subject`."""
        if self.check_turn:
            self.check_turn()
        labels = {**self.labels, **({"asset": table} if table else {})}
        labels = {key: sql.label(value) for key, value in labels.items()}
        with google_errors.translate_errors(service, subject, WarehouseError), self._client() as client:
            yield Jobs(client, subject, labels, self.maximum_bytes_billed, self.patience)

    @contextmanager
    def _client(self) -> Iterator[bigquery.Client]:
        """The client that `connected` keeps, or else one for this question alone."""
        if self._kept:
            yield self._kept[-1]
            return
        resource = BigQueryResource(project=self.jobs_project, location=self.location)
        with resource.get_client() as client, closing(client):
            yield client


def _naive(answer: pa.Table) -> pa.Table:
    """Return the table with timestamps in UTC without a time zone, as everywhere in this project."""
    fields = [
        field.with_type(pa.timestamp("us")) if pa.types.is_timestamp(field.type) else field
        for field in answer.schema
    ]
    return answer.cast(pa.schema(fields))
