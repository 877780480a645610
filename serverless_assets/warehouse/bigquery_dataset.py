"""A BigQuery dataset: where it lies, what is in it, and the jobs that are about it."""

import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any, Self
from uuid import uuid4

from dagster_gcp import BigQueryResource
from google.cloud import bigquery

from serverless_assets import google_errors
from serverless_assets.names import WORK
from serverless_assets.warehouse import RECORD_PREFIX, WarehouseError, published_schema
from serverless_assets.warehouse import bigquery_sql as sql
from serverless_assets.warehouse.bigquery_jobs import Jobs
from serverless_assets.warehouse.staging import STAGING_PREFIX

# Begins the names of the copies by which earlier releases can be returned to.
KEPT_PREFIX = f"{RECORD_PREFIX}kept_"
# The record that the lock of runs is.
LOCK = "lock"
# The record of the other projects in which models are built.
PROJECTS = "projects"
# Begins the names of tables that are not of the project, whichever of its models there are.
OWN = (STAGING_PREFIX, KEPT_PREFIX, f"{RECORD_PREFIX}{LOCK}")
SCRATCH_LIFETIME = timedelta(days=1)
# What BigQuery knows of a table takes a call of some 0.1 s, and costs nothing. One query would tell it of all
# tables, take longer than so many calls at once, and be billed for 10 MB.
CALLS_AT_ONCE = 8

SERVICE = google_errors.Service(
    "BigQuery",
    "bigquery.googleapis.com",
    "roles/bigquery.dataEditor on the dataset and roles/bigquery.jobUser on the project of the jobs",
)
CREATION = replace(SERVICE, roles="roles/bigquery.dataEditor on the project, to create the dataset")


@dataclass(frozen=True)
class BigQueryDataset:
    """A dataset beside others, in which people read or runs write.

    Jobs run in, and are billed to, `execution_project`, or `project` if it is empty; each query is billed for
    `maximum_bytes_billed` at most. They carry `labels` and the name of the table that they are for. A call
    that Google does not answer is tried again for `patience` seconds. `lifetime` is how long a table lasts
    that is not written again; None: for good.
    """

    project: str
    dataset: str
    location: str
    maximum_bytes_billed: int
    labels: Mapping[str, str] = field(default_factory=dict, hash=False)
    patience: float = google_errors.PATIENCE
    lifetime: timedelta | None = None
    execution_project: str = ""
    # Raises a `UserError` in a run whose turn another run has taken: asked before every use of the dataset.
    check_turn: Callable[[], None] | None = field(default=None, repr=False, compare=False)
    # The clients that `connected` keeps.
    _kept: list[bigquery.Client] = field(default_factory=list, init=False, repr=False, compare=False)

    @property
    def name(self) -> str:
        return f"BigQuery, {self.project}.{published_schema(self.dataset)} in {self.location}"

    @property
    def jobs_project(self) -> str:
        return self.execution_project or self.project

    def in_schema(self, database: str, schema: str) -> Self:
        project, dataset = database or self.project, schema or self.dataset
        if self.working().has(dataset):
            dataset = published_schema(dataset)
        if (project, dataset) == (self.project, self.dataset):
            return self
        beside = replace(self, project=project, dataset=dataset, execution_project=self.jobs_project)
        beside._kept.extend(self._kept)
        return beside

    def working(self) -> Self:
        """The warehouse that runs write to: the dataset beside this one, of the same name with an ending."""
        return replace(self, dataset=f"{self.dataset}{WORK}")

    def published(self) -> Self:
        """The warehouse in which people read what runs write to this one."""
        return replace(self, dataset=published_schema(self.dataset))

    def in_all_schemas(self) -> Sequence[Self]:
        """This warehouse as of its own dataset, then as of those of models with a schema or a project of
        their own: dbt begins the names of these with that of the dataset."""
        places = []
        for project in (self.project, *self._projects()):
            with self.jobs(project) as jobs:
                items = jobs.client.list_datasets(project, **jobs.call)
                places += sorted((project, item.dataset_id) for item in items if self.has(item.dataset_id))
        return [self, *(there for place in places if (there := self.in_schema(*place)) is not self)]

    def has(self, dataset: str) -> bool:
        """Whether a dataset is this one, or by its name that of a model with a schema of its own."""
        return f"{dataset}_".startswith(f"{self.dataset}_")

    def _projects(self) -> Sequence[str]:
        """The other projects in which models are built, or were."""
        return list(self.read_record(PROJECTS).get("names", ()))

    def prepare_schemas(self, schemas: Collection[tuple[str, str]]) -> None:
        # A dataset of another name is written to where people read, outside of what runs publish.
        beside = [there for there in (self.in_schema(*place) for place in schemas) if self.has(there.dataset)]
        projects = {there.project for there in beside} - {self.project}
        recorded = set(self._projects()) if projects else set()
        for project in sorted(projects - recorded):
            there = self.in_schema(project, "")
            with there.jobs() as jobs:
                if jobs.table(there.reference(f"{RECORD_PREFIX}{LOCK}")):
                    raise WarehouseError(
                        f"Models are to be built in {there._dataset}, which another environment has for its "
                        "own runs: it would publish them. Set DBT_SCHEMA to another dataset in one of the "
                        "two."
                    )
        if projects - recorded:
            self.write_record(PROJECTS, {"names": sorted(projects | recorded)})
        for there in beside:
            if there is not self:
                there.prepare()

    def prepare(self, like: bigquery.Dataset | None = None) -> bigquery.Dataset:
        """Create the dataset if there is none, encrypted as the one that it is `like`.

        Raises:
            WarehouseError: it cannot be created, or lies in another location.
        """
        with self.jobs(service=CREATION) as jobs:
            dataset = self._wanted()
            if like is not None:
                dataset.default_encryption_configuration = like.default_encryption_configuration
            existing = jobs.dataset(self._dataset) or jobs.client.create_dataset(
                dataset, exists_ok=True, **jobs.call
            )
        self._refuse_unusable(existing)
        return existing

    @contextmanager
    def scratch(self) -> Iterator[Self]:
        """A dataset beside this one, gone afterwards. Its tables expire, should the process be killed."""
        beside = replace(self, dataset=f"{self.dataset}_ci_{uuid4().hex[:8]}", lifetime=SCRATCH_LIFETIME)
        try:
            # Its name is new: a dataset that is there is that of an attempt whose answer got lost.
            with self.jobs(beside._dataset, service=CREATION) as jobs:
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
        with self.jobs() as jobs:
            jobs.client.delete_dataset(self._dataset, delete_contents=True, not_found_ok=True, **jobs.call)

    def adoption(self) -> str | None:
        """What the first run does with the tables of an earlier version of this project, which wrote where
        people read; None if there is no such dataset or a run has done so."""
        with self.jobs() as jobs:
            if WORK not in self.dataset or jobs.dataset(self._dataset) is not None:
                return None
        relations = self.published().relations().values()
        tables = [t for t in relations if t.table_type != "VIEW" and sql.state_in(t.description)]
        if not tables:
            return None
        return (
            f"There is no dataset {self.dataset} yet: the first run creates it, continues from the "
            f"{len(tables)} tables in {self.published().dataset}, and builds the views again."
        )

    def _wanted(self) -> bigquery.Dataset:
        dataset = bigquery.Dataset(self._dataset)
        dataset.location = self.location
        if self.lifetime is not None:
            dataset.default_table_expiration_ms = self.lifetime // timedelta(milliseconds=1)
        return dataset

    def _refuse_unusable(self, existing: bigquery.Dataset) -> None:
        """Refuse a dataset that lies elsewhere, or whose tables or partitions expire: rows would go that are
        never loaded again."""
        if (existing.location or "").upper() != self.location.upper():
            raise WarehouseError(
                f"The dataset {self._dataset} lies in {existing.location}, and the settings say "
                f"{self.location}. A dataset cannot be moved: set SERVERLESS_LOCATION to "
                f"{existing.location}, or DBT_SCHEMA to another dataset."
            )
        for kind in ("table", "partition"):
            age = getattr(existing, f"default_{kind}_expiration_ms")
            if age and self.lifetime is None:
                raise WarehouseError(
                    f"The dataset {self._dataset} deletes each {kind} {timedelta(milliseconds=age)} after it "
                    "was made: tables would lose their history. Turn that off with "
                    f"`bq update --default_{kind}_expiration 0 {self.project}:{self.dataset}`, or set "
                    "DBT_SCHEMA to another dataset."
                )

    @property
    def _dataset(self) -> str:
        return f"{self.project}.{self.dataset}"

    def quoted_name(self, table: str) -> str:
        return sql.identifier(self.project, self.dataset, table)

    def qualified_name(self, table: str) -> str:
        return f"{self.project}.{published_schema(self.dataset)}.{table}"

    def reference(self, table: str) -> bigquery.TableReference:
        """The table's name, as Google's client takes it."""
        return bigquery.DatasetReference(self.project, self.dataset).table(table)

    def _names(self, jobs: Jobs) -> set[str]:
        items = jobs.client.list_tables(self._dataset, **jobs.call)
        return {item.table_id for item in items if not item.table_id.startswith(OWN)}

    def relations(self) -> Mapping[str, bigquery.Table]:
        """What BigQuery knows of each table and view in the dataset, by name."""
        with self.jobs() as jobs, ThreadPoolExecutor(CALLS_AT_ONCE) as pool:
            if jobs.dataset(self._dataset) is None:
                return {}
            tables = pool.map(jobs.table, map(self.reference, self._names(jobs)))
            return {table.table_id: table for table in tables if table}

    def kept_names(self) -> set[str]:
        """The names of the copies in the dataset by which earlier releases can be returned to."""
        with self.jobs() as jobs:
            names = {item.table_id for item in jobs.client.list_tables(self._dataset, **jobs.call)}
        return {name for name in names if name.startswith(KEPT_PREFIX)}

    def drop_relation(self, table: str) -> None:
        with self.jobs(self.qualified_name(table)) as jobs:
            jobs.client.delete_table(self.reference(table), not_found_ok=True, **jobs.call)

    def read_record(self, name: str) -> Mapping[str, Any]:
        table = f"{RECORD_PREFIX}{name}"
        with self.jobs(self.qualified_name(table)) as jobs:
            existing = jobs.table(self.reference(table))
        return json.loads(existing.description or "{}") if existing else {}

    def write_record(self, name: str, content: Mapping[str, Any]) -> None:
        # Calls that take a moment and cost nothing, where rows would take a job of seconds. It is no state,
        # with which a table would be published.
        table = bigquery.Table(self.reference(f"{RECORD_PREFIX}{name}"))
        with self.jobs(self.qualified_name(table.table_id)) as jobs:
            if content:
                jobs.client.create_table(table, exists_ok=True, **jobs.call)
                jobs.describe(table, json.dumps(content))
            else:
                jobs.client.delete_table(table, not_found_ok=True, **jobs.call)

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

    @contextmanager
    def jobs(
        self, subject: str = "", table: str = "", service: google_errors.Service = SERVICE
    ) -> Iterator[Jobs]:
        """Yield the calls and jobs of one client, labelled with the table that they are for.

        Google's errors become `WarehouseError`s about `subject`, or else the dataset.
        """
        subject = subject or self._dataset
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
