"""BigQuery jobs: labels, byte limits, and cancellation when the wait for them ends early."""

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import IO, Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq
from google.api_core.exceptions import (
    BadRequest,
    Forbidden,
    GoogleAPICallError,
    NotFound,
    TooManyRequests,
)
from google.cloud import bigquery

from serverless_assets import google_errors
from serverless_assets.hashing import json_digest
from serverless_assets.stopping import within
from serverless_assets.warehouse import JobStats, WarehouseError
from serverless_assets.warehouse import bigquery_sql as sql

# BigQuery ends a job that takes longer; dbt's have the same limit in profiles.yml.
JOB_TIMEOUT_MS = 30 * 60 * 1000
SECONDS_TO_CANCEL = 3.0
Job = TypeVar("Job", bigquery.LoadJob, bigquery.QueryJob)


@dataclass(frozen=True)
class Jobs:
    """Calls and jobs of one client. Jobs carry `labels`; a query may be billed for `maximum_bytes_billed`.

    A call that Google does not answer is tried again for `patience` seconds. Errors name the `subject`.
    """

    client: bigquery.Client
    subject: str
    labels: Mapping[str, str]
    maximum_bytes_billed: int
    patience: float

    @property
    def call(self) -> dict[str, Any]:
        """How to call: what each of the client's methods takes."""
        return {"retry": self._retry, "timeout": 60.0}

    def dataset(self, name: str) -> bigquery.Dataset | None:
        """The dataset of that name, if there is one."""
        with suppress(NotFound):
            return self.client.get_dataset(name, **self.call)
        return None

    def table(self, table: bigquery.TableReference) -> bigquery.Table | None:
        """What BigQuery knows of a table or view, if there is one."""
        with suppress(NotFound):
            return self.client.get_table(table, **self.call)
        return None

    def content_version(self, table: bigquery.TableReference) -> str:
        """A version of a table's rows, by its metadata; empty if that does not tell.

        Rows may change without it where they are those of other tables or of files, are streamed, or expire.
        Only a table with a primary key takes a stream of changes, which is applied as it is read.
        """
        with suppress(Forbidden):
            entry = self.table(table)
            if (
                entry
                and entry.table_type == "TABLE"
                and entry.streaming_buffer is None
                and not (entry.time_partitioning and entry.time_partitioning.expiration_ms)
                and not (entry.table_constraints and entry.table_constraints.primary_key)
            ):
                return json_digest([str(entry.created), str(entry.modified), entry.num_rows, entry.num_bytes])
        return ""

    def describe(self, table: bigquery.Table, description: str) -> None:
        """Change what a table or view says of itself, and nothing else."""
        changed = bigquery.Table(table.reference)
        changed.description = description
        self.client.update_table(changed, ["description"], **self.call)

    @contextmanager
    def description_put_aside(self, table: bigquery.Table, meanwhile: str, then: str) -> Iterator[None]:
        """Describe a table as `meanwhile` while its rows change, and as `then` once they have.

        Its description is restored only if Google says that no row has changed. After any other error, such
        as an answer that never came, it is unknown which rows the table has.
        """
        if meanwhile != (table.description or ""):
            self.describe(table, meanwhile)
        try:
            yield
        except GoogleAPICallError as error:
            if _has_failed(error) or isinstance(error, (BadRequest, Forbidden, TooManyRequests)):
                self.describe(table, table.description or "")
            raise
        self.describe(table, then)

    def refuse_other_count(self, reference: bigquery.TableReference, rows: int) -> None:
        """Raise `WarehouseError` unless the table holds so many rows.

        A table that does not is marked as unfinished: it is not published, and is written again.
        """
        table = self.client.get_table(reference, **self.call)
        if table.num_rows in (None, rows):
            return
        counted = self._count_rows(table)
        if counted == rows:
            return
        reason = f"{rows:,} rows were written to it, and it holds {counted:,}"
        state = {"dirty_reason": reason}
        self.describe(table, sql.description_with_state(sql.words_in(table.description), state))
        raise WarehouseError(
            f"{self.subject}: {reason}. See whether its rows or partitions expire; the next run writes it "
            "again."
        )

    def _count_rows(self, table: bigquery.Table) -> int:
        """Count the rows by a query, which reads none of them and is billed for nothing.

        Nothing says that what BigQuery knows of a table is never late.
        """
        name = sql.identifier(table.project, table.dataset_id, table.table_id)
        # A table that requires a filter refuses.
        with suppress(BadRequest):
            [row] = self.rows(self.run(f"select count(*) as number from {name}"))
            return int(row["number"])
        return int(table.num_rows or 0)

    def refuse_other_merge(self, merge: bigquery.QueryJob, rows: int) -> None:
        """Raise `WarehouseError` unless a merge has put so many rows into its table, where BigQuery tells."""
        if merge.dml_stats is None:
            return
        put = merge.dml_stats.inserted_row_count + merge.dml_stats.updated_row_count
        if put != rows:
            raise WarehouseError(
                f"{self.subject}: {rows:,} rows were to be merged into it, and {put:,} were. The next run "
                "loads it again."
            )

    def is_guarded(self, table: bigquery.Table) -> bool:
        """Whether the table carries what only its owner may take off: policies on rows, tags on columns.

        So does one of which this account may not know.
        """
        if any(field.policy_tags for field in table.schema):
            return True
        # The client has no method for it. Replace the call by `list_row_access_policies` once there is one.
        path = f"{table.reference.path}/rowAccessPolicies"
        try:
            ask = self._retry(self.client._connection.api_request)
            answer = ask(method="GET", path=path, timeout=60.0)
        except NotFound:
            return False
        except Forbidden:
            return True
        return bool(answer.get("rowAccessPolicies"))

    def run(self, statement: str) -> bigquery.QueryJob:
        """Run a statement to its end."""
        config = bigquery.QueryJobConfig(
            maximum_bytes_billed=self.maximum_bytes_billed, labels=dict(self.labels)
        )
        config.job_timeout_ms = JOB_TIMEOUT_MS

        def start() -> bigquery.QueryJob:
            # A `job_retry` of any kind has the client try an unreachable Google for ten minutes.
            return self.client.query(statement, job_config=config, job_retry=None, **self.call)

        return self._to_its_end(start)

    def rows(self, job: bigquery.QueryJob) -> bigquery.table.RowIterator:
        """The answer of a query that has run."""
        return job.result(retry=self._retry, job_retry=None)

    def dry_run(self, statement: str) -> bigquery.QueryJob:
        """Have a statement checked: what it would read, and who asks. That costs nothing, and needs the right
        to run one."""
        config = bigquery.QueryJobConfig(dry_run=True)
        return self.client.query(statement, job_config=config, job_retry=None, **self.call)

    @contextmanager
    def staged(self, staging: bigquery.Table, rows: Path | pa.Table) -> Iterator[JobStats]:
        """Load rows into the table `staging`, and delete it at the end."""
        try:
            # Its name is new: a table that is there is that of an attempt whose answer got lost.
            self.client.create_table(staging, exists_ok=True, **self.call)
            yield work(self._load(staging, rows))
        finally:
            # What cannot be dropped now, the server drops when it expires.
            within(
                SECONDS_TO_CANCEL,
                lambda: self.client.delete_table(staging, not_found_ok=True, **self.call),
            )

    def _load(self, staging: bigquery.Table, rows: Path | pa.Table) -> bigquery.LoadJob:
        config = bigquery.LoadJobConfig(
            source_format=bigquery.SourceFormat.PARQUET,
            schema=staging.schema,
            create_disposition=bigquery.CreateDisposition.CREATE_NEVER,
            # An upload that began again may follow one whose rows did arrive.
            write_disposition=bigquery.WriteDisposition.WRITE_TRUNCATE,
            labels=dict(self.labels),
        )
        config.job_timeout_ms = JOB_TIMEOUT_MS
        if isinstance(rows, Path):
            file: IO[bytes] = rows.open("rb")
            count = pq.read_metadata(rows).num_rows
        else:
            file, count = BytesIO(), rows.num_rows
            pq.write_table(rows, file)
            file.seek(0)

        # The client pauses 1 s before the first of its retries, and before each other twice as long.
        retries = int(math.log2(self.patience + 1))

        def start() -> bigquery.LoadJob:
            # Without a size the client sends the file in pieces of 100 MB, and holds one at a time.
            return self.client.load_table_from_file(
                file, staging, rewind=True, num_retries=retries, job_config=config, timeout=(10, 300)
            )

        with file:
            load = self._to_its_end(start)
        if load.output_rows not in (None, count):
            raise WarehouseError(
                f"{self.subject}: BigQuery took {load.output_rows:,} of the {count:,} rows that were sent. "
                "Nothing was changed. Run again."
            )
        return load

    def _to_its_end(self, start: Callable[[], Job]) -> Job:
        """Start a job and wait for it; if it fails and may succeed later, try again for `patience` seconds.

        A job that failed has changed nothing, and one whose upload is gone was not started. One whose end is
        not known is not started again.
        """
        deadline, pause = time.monotonic() + self.patience, 1.0
        while True:
            try:
                job = start()
                self._wait(job)
                return job
            except GoogleAPICallError as error:
                is_last = time.monotonic() + pause > deadline
                is_over = _has_failed(error) or google_errors.is_upload_gone(error)
                if is_last or not (is_over and google_errors.transient(error)):
                    raise
            time.sleep(pause)
            pause *= 2

    def _wait(self, job: bigquery.LoadJob | bigquery.QueryJob) -> None:
        """Wait for a job; cancel it if the wait ends early, by Ctrl-C or a cancelled run."""
        try:
            if isinstance(job, bigquery.QueryJob):
                self.rows(job)
            else:
                job.result(retry=self._retry)
        except BaseException:
            if job.state != "DONE":
                within(SECONDS_TO_CANCEL, lambda: job.cancel(**self.call))
            raise

    @property
    def _retry(self) -> Any:
        return bigquery.DEFAULT_RETRY.with_predicate(google_errors.transient).with_timeout(self.patience)


def _has_failed(error: GoogleAPICallError) -> bool:
    """Whether a job has ended with this error, rather than a call, which would have an answer."""
    return bool(error.errors) and error.response is None


def work(job: bigquery.LoadJob | bigquery.QueryJob) -> JobStats:
    """What a job did. Loading is free of charge, and BigQuery keeps no account of it."""
    if isinstance(job, bigquery.LoadJob):
        return JobStats((job.job_id,))
    return JobStats(
        (job.job_id,), job.total_bytes_processed or 0, job.total_bytes_billed or 0, job.slot_millis or 0
    )
