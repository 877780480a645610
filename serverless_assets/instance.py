"""The Dagster instance of this project: DAGSTER_HOME below SERVERLESS_HOME, made when first needed."""

import json
import os
import sqlite3
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from serverless_assets.errors import UserError, causes, error_sentence
from serverless_assets.files import write_atomically
from serverless_assets.names import PIPELINE_RUNS

if TYPE_CHECKING:
    import dagster as dg

# Its first line. A file without it was written by a person, and is left as it is.
MARK = "# Written by `serverless`, which keeps it up to date. To keep a file of your own, delete this line."
DAGSTER_YAML = """\
{mark}
telemetry:
  enabled: false
nux:
  enabled: false
concurrency:
  runs:
    # No limit: runs of the command line would count, though nothing can make them wait.
    max_concurrent_runs: -1
  # Runs that write to the same warehouse are in one pool: they take turns. A what-if and a plan wait for
  # nobody.
  pools:
    granularity: run
    default_limit: 1
run_monitoring:
  enabled: true
  # SERVERLESS_RUN_DEADLINE. A run of its own tag `dagster/max_runtime` has another.
  max_runtime_seconds: {deadline}
  cancel_timeout_seconds: 60
event_log_storage:
  module: serverless_assets.event_log
  class: EventLogStorage
  config:
    base_dir: {event_log}
compute_logs:
  module: serverless_assets.compute_logs
  class: ComputeLogs
  config:
    base_dir: {compute_logs}
freshness:
  enabled: true
# Days. Runs are deleted by SERVERLESS_KEEP_RUNS.
retention:
  schedule:
    purge_after_days: {{skipped: 7, failure: 30, success: 30}}
  sensor:
    purge_after_days: {{skipped: 7, failure: 30, success: 30}}
  auto_materialize:
    purge_after_days: {{skipped: 7, failure: 30, success: 30}}
"""


def prepare_dagster_home(home: Path, run_deadline_seconds: int) -> Path:
    """Make DAGSTER_HOME and point this process and its children at it. A dagster.yaml of yours is kept.

    Raises:
        InstanceError: it cannot be written.
    """
    dagster_home = home / "dagster"
    config = dagster_home / "dagster.yaml"
    event_log, compute_logs = (
        json.dumps(str((dagster_home / folder).absolute())) for folder in ("history/runs", "storage")
    )
    generated = DAGSTER_YAML.format(
        mark=MARK, deadline=run_deadline_seconds, event_log=event_log, compute_logs=compute_logs
    )
    try:
        content = config.read_bytes() if config.exists() else b""
        # A full disk leaves an empty file.
        if (not content.strip() or content.startswith(MARK.encode())) and content != generated.encode():
            write_atomically(config, generated.encode())
    except OSError as error:
        raise InstanceError(
            f"SERVERLESS_HOME is {home}, and {config} cannot be written: {error.strerror}. Make room there, "
            "make it writable for this user, or choose another folder."
        ) from None
    os.environ["DAGSTER_HOME"] = str(dagster_home)
    # A run logs what it is to write in batches of so many events.
    os.environ.setdefault("DAGSTER_EVENT_BATCH_SIZE", "1000")
    return dagster_home


class InstanceError(UserError):
    """Dagster's own state cannot be used; the message says why and what to do."""


@contextmanager
def open_instance() -> "Iterator[dg.DagsterInstance]":
    """The Dagster instance of DAGSTER_HOME, after a look into each part of it.

    Raises:
        InstanceError: its configuration or its history cannot be used.
    """
    import dagster as dg

    dagster_home = Path(os.environ["DAGSTER_HOME"])
    try:
        instance = dg.DagsterInstance.get()
        # Runs, events and schedules are kept in databases of their own.
        instance.get_runs(limit=1)
        instance.get_latest_materialization_event(dg.AssetKey(PIPELINE_RUNS))
        instance.all_instigator_state()
    except Exception as error:
        if any(isinstance(cause, sqlite3.Error) for cause in causes(error)):
            advice = f"DAGSTER_HOME is {dagster_home}. It holds no published table or file."
            raise InstanceError(f"{error_sentence(error)}\n{advice}") from error
        raise InstanceError(
            f"{dagster_home / 'dagster.yaml'} cannot be used: {error_sentence(error)}\n"
            "Correct it, or delete it: the next command writes it anew."
        ) from error
    with instance:
        yield instance


def one_batch(instance: "dg.DagsterInstance") -> AbstractContextManager[None]:
    """Store the events of a run that this thread logs together, where that can be done."""
    # It imports SQLAlchemy, which takes long and which an instance has imported.
    from serverless_assets.event_log import BatchedEvents

    storage = instance.event_log_storage
    return storage.batch() if isinstance(storage, BatchedEvents) else nullcontext()
