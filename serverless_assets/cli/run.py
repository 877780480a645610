"""Run a job in this process, with progress on the terminal and a summary at the end."""

import difflib
import logging
import re
import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import click
import dagster as dg
import psutil
import yaml

from serverless_assets.asset_keys import asset_key, asset_name
from serverless_assets.automation.jobs import FULL_REBUILD, JOBS, month_tags, months_of
from serverless_assets.automation.planned import Selection
from serverless_assets.cli.output import (
    SKIPPED_STEP_WARNING,
    Progress,
    moving_line,
    stopped_text,
    summary_text,
)
from serverless_assets.compute_logs import ComputeLogs
from serverless_assets.dagster_internals import (
    ASSET_PARTITION_RANGE_START_TAG,
    STEP_LOGGER,
    show_in_code_location,
)
from serverless_assets.definitions import build
from serverless_assets.environments import environment
from serverless_assets.errors import UserError
from serverless_assets.instance import open_instance
from serverless_assets.months import Window
from serverless_assets.names import GRAIN_TAG, RAW_TABLE_TAG
from serverless_assets.publishing.outcome import PendingAssets
from serverless_assets.publishing.run_lock import end_dead_runs, registered
from serverless_assets.publishing.summary import read_summary
from serverless_assets.run_inputs import NOTHING_TO_RUN, RunInputs
from serverless_assets.settings import Settings
from serverless_assets.stopping import Stopping

# Progress is shown in its own way; the UI has every event.
QUIET_CONSOLE = {"console": {"config": {"log_level": "CRITICAL"}}}
# The choices by which a run does less, and their options.
OPTIONS = {"ingestion": "--reuse", "forecast": "--skip-forecast"}


class RunRefused(UserError):
    """A run that cannot be started; the message says why."""


@dataclass(frozen=True)
class Request:
    """What to run and how. `config` is the whole run config; if None, it is the job's own with `choices`."""

    job: str
    config: Mapping[str, Any] | None
    choices: Mapping[str, Any]
    months: str | None
    resume: bool

    @classmethod
    def read(
        cls,
        job: str,
        config_file: Path | None,
        inputs: RunInputs,
        months: str | None,
        resume: bool,
    ) -> "Request":
        """From the command line's words.

        Raises:
            RunRefused: they do not make sense.
        """
        if config_file and inputs.choices:
            raise RunRefused(
                "--config says it all: leave out --reuse, --skip-forecast, --rebuild and --drop-deleted."
            )
        config = None
        if config_file:
            try:
                config = yaml.safe_load(config_file.read_text()) or {}
            except yaml.YAMLError as error:
                raise RunRefused(f"{config_file} is not YAML: {error}") from None
        return cls(job, config, inputs.choices, months, resume)

    def run_config(self, job: dg.JobDefinition) -> Mapping[str, Any]:
        """The run config: the file's, or the form that the job opens on with what was chosen."""
        if self.config is not None:
            return self.config
        filled_in = job.run_config or {}
        if not self.choices:
            return filled_in
        if job.name == FULL_REBUILD and (
            options := [OPTIONS[name] for name in OPTIONS.keys() & self.choices]
        ):
            left_out = " and ".join(sorted(options))
            raise RunRefused(
                f"The job {job.name!r} loads, builds and forecasts everything, and {left_out} would leave "
                f"part of it out: use `serverless run --rebuild {' '.join(sorted(options))}`, or leave out "
                f"{left_out}."
            )
        resources = filled_in.get("resources", {})
        form = resources.get("run_inputs", {}).get("config", {})
        run_inputs = {"config": {**form, **self.choices}}
        return {**filled_in, "resources": {**resources, "run_inputs": run_inputs}}


def run_job(request: Request, settings: Settings) -> bool:
    """Run the job and print what became of it; whether it succeeded.

    Raises:
        UserError: before anything has run.
    """
    run_id = str(uuid.uuid4())
    # Dagster takes seconds to import, for which a person waits, too.
    started = time.monotonic() - (time.time() - psutil.Process().create_time())
    ending, is_told = threading.Lock(), threading.Event()

    def tell_end(reason: str) -> None:
        """Record that the run was stopped, and say so, once: where the main thread waits, another does."""
        with ending:
            if is_told.is_set():
                return
            has_begun = _record_end(run_id, reason)
            seconds, is_unfinished = time.monotonic() - started, bool(PendingAssets(settings.home).read())
            finished = _finished(settings.home, run_id)
            click.echo("\n" + stopped_text(reason, seconds, has_begun, is_unfinished, finished))
            is_told.set()

    with Stopping(settings.run_deadline_seconds, tell_end) as stopping:
        try:
            succeeded = _run_job(request, settings, run_id, stopping, started)
        except (KeyboardInterrupt, dg.DagsterExecutionInterruptedError):
            stopping.wait_for_reason()
            succeeded = False
        except Exception:
            # What code that was interrupted made of it.
            if stopping.reason is None:
                raise
            succeeded = False
        if stopping.reason is None or succeeded:
            return succeeded
        tell_end(stopping.reason)
        stopping.end_process()


def _finished(home: Path, run_id: str) -> Sequence[str] | None:
    """The assets that a run built; None without its summary."""
    document = read_summary(home)
    if document is None or document["run_id"] != run_id:
        return None
    return [asset for asset, outcome in document["assets"].items() if outcome["status"] == "built"]


def _record_end(run_id: str, reason: str) -> bool:
    """Say in Dagster's history why a run was stopped; whether it had begun at all."""
    with open_instance() as instance:
        run = instance.get_run_by_id(run_id)
        if run is None:
            return False
        sentence = f"The run was stopped {reason}."
        if run.is_finished:
            instance.report_engine_event(sentence, run)
        else:
            instance.report_run_canceled(run, sentence)
    return True


def _report_canceling(instance: dg.DagsterInstance, run_id: str, progress: Progress, reason: str) -> None:
    """Have Dagster take the end of a run that is being stopped for a cancel, not for a failure."""
    progress.is_stopped = True
    run = instance.get_run_by_id(run_id)
    if run and not run.is_finished:
        instance.report_run_canceling(run, f"The run is being stopped {reason}.")


def plan_of(request: Request, settings: Settings) -> tuple[RunInputs, Selection]:
    """Return the run inputs of a run, its assets and its months, to plan it.

    Raises:
        RunRefused: there is no such run.
    """
    job = _find_job(request.job, settings)
    assets = {asset_name(key) for key in job.asset_layer.selected_asset_keys}
    if not assets:
        raise RunRefused(f"The job {job.name!r} changes no asset, so there is nothing to plan.")
    months = read_months(request.months, job.name, months_of(job)) if request.months else None
    config = request.run_config(job).get("resources", {}).get("run_inputs", {}).get("config", {})
    return RunInputs(**config), Selection(assets, Window.of_months(*months) if months else None)


def _find_job(name: str, settings: Settings) -> dg.JobDefinition:
    """Return the job of this name.

    Raises:
        RunRefused: there is none, or nothing for it to do.
    """
    definitions = build(settings)
    names = [job.name for job in definitions.jobs or []]
    if name not in names:
        raise RunRefused(f"There is no job {name!r}. Jobs: {', '.join(names)}.")
    job = definitions.resolve_job_def(name)
    if name in JOBS and not job.asset_layer.selected_asset_keys:
        raise RunRefused(NOTHING_TO_RUN)
    return job


def _run_job(request: Request, settings: Settings, run_id: str, stopping: Stopping, started: float) -> bool:
    job = _find_job(request.job, settings)
    selection = _unfinished(settings, job) if request.resume else None
    months = read_months(request.months, job.name, months_of(job)) if request.months else None
    tags = month_tags(*months) if months else {}
    # Dagster warns beside the run's log, too.
    logging.getLogger(STEP_LOGGER).addFilter(
        lambda record: not SKIPPED_STEP_WARNING.match(record.getMessage())
    )
    with open_instance() as instance, registered(settings.home, run_id):
        for sentence in end_dead_runs(settings.home, instance):
            click.echo(f"{sentence}\n")
        click.echo(
            f"Running {request.job} ({run_id[:8]}) in the environment {settings.environment!r}, "
            f"with its state in {settings.home}.\n"
        )
        # A job such as `plan` writes no asset, and leaves no summary.
        writes_assets = bool(job.asset_layer.selected_asset_keys)
        progress = Progress(
            settings.home,
            started=started,
            first_month=tags.get(ASSET_PARTITION_RANGE_START_TAG),
            in_full=not writes_assets,
        )
        instance.add_event_listener(run_id, progress)
        if isinstance(instance.compute_log_manager, ComputeLogs):
            instance.compute_log_manager.is_capturing = False
        show_in_code_location(instance, build.__module__, job.name)
        stopping.on_stop = partial(_report_canceling, instance, run_id, progress)
        try:
            with moving_line() as (progress.echo, progress.move):
                result = job.execute_in_process(
                    run_config={**request.run_config(job), "loggers": QUIET_CONSOLE},
                    instance=instance,
                    tags=tags,
                    asset_selection=selection,
                    raise_on_error=False,
                    run_id=run_id,
                )
        except dg.DagsterInvalidConfigError as error:
            mistakes = [line for problem in error.errors for line in config_mistakes(problem.message)]
            raise RunRefused("\n".join(["The run config cannot be used:", *mistakes])) from None
    document = read_summary(settings.home)
    is_of_run = document is not None and document["run_id"] == run_id
    is_published = bool(document["published"]) if document and is_of_run else not writes_assets
    succeeded = result.success and not progress.failed and is_published
    if document is None or not is_of_run:
        if progress.refusal:
            click.echo(f"\nThe run failed: {progress.refusal}")
        if succeeded:
            click.echo(f"\nSucceeded in {time.monotonic() - progress.started:.1f} s.")
        return succeeded
    if stopping.reason and not document["published"]:
        return False
    layer = job.asset_layer
    raw_tables, forecasts = (
        {
            asset_name(key): layer.get(key).tags[tag]
            for key in layer.selected_asset_keys
            if tag in layer.get(key).tags
        }
        for tag in (RAW_TABLE_TAG, GRAIN_TAG)
    )
    # Those of the command, of which the run is a part.
    seconds = time.monotonic() - started
    click.echo("\n" + summary_text({**document, "seconds": seconds}, raw_tables, forecasts))
    return succeeded


def config_mistakes(message: str) -> list[str]:
    """Dagster's message on a run config as lines: for each unexpected name the place, and those allowed."""
    unexpected = re.match(
        r'Received unexpected config entr(?:y|ies) "(.+?)" at path (\S+)\. Expected: "(.*?)\.?"\.?$', message
    )
    if unquoted := re.match(
        r"Value at path root:(\S+) for enum type Literal\[(.+)\] must be a string$", message
    ):
        place, choices = unquoted.groups()
        return [
            f"{place.replace(':', '.')} is not in quotes: choose from {choices.replace(chr(39), chr(34))}."
        ]
    if choice := re.match(r"Value at path root:(\S+) not in enum type Literal\[(.+)\] got (.*)$", message):
        place, choices, value = choice.groups()
        return [f"{place.replace(':', '.')} is {value!r}: choose from {choices.replace(chr(39), '')}."]
    if not unexpected:
        path = re.compile(r"\broot((:\w+)*)")
        return [path.sub(lambda found: found[1][1:].replace(":", "."), message.partition("\n")[0])]
    names, path_text, allowed_text = unexpected.groups()
    if allowed_text.startswith("{"):
        # A type, such as `{ run?: { cpu?: String } skip?: { } }`: the names are those of its first level.
        fields = allowed_text[1:-1]
        while "{" in fields:
            fields = re.sub(r"\{[^{}]*\}", "", fields)
        allowed = re.findall(r"(\w+)\??:", fields)
    else:
        allowed = re.findall(r"[\w.-]+", allowed_text)
    place = path_text.partition(":")[2].replace(":", ".") or "The run config"
    return [
        f"{place} has no {name!r}. "
        + "".join(f"Did you mean {near}? " for near in difflib.get_close_matches(name, allowed, 1))
        + f"It has {', '.join(allowed)}."
        for name in re.findall(r"[\w.-]+", names)
    ]


def _unfinished(settings: Settings, job: dg.JobDefinition) -> list[dg.AssetKey]:
    """The assets of the job that earlier runs did not finish."""
    # On BigQuery they may be those of a run of another machine.
    pending_assets = environment(settings).publisher.pending_assets
    unfinished = {asset_key(asset) for asset in pending_assets.read()}
    selection = sorted(unfinished & job.asset_layer.selected_asset_keys)
    if not selection:
        raise RunRefused(
            f"There is nothing to resume: earlier runs finished all assets of {job.name!r}, or skipped "
            "them as they were asked to."
        )
    return selection


def read_months(months: str, job: str, partitions: dg.PartitionsDefinition | None) -> tuple[date, date]:
    """The first and last of the months that a run of `job` is to load.

    Raises:
        RunRefused: they are no months, or not among the job's partitions.
    """
    first, _, last = months.partition("..")
    try:
        start, end = (date.fromisoformat(f"{month.strip()}-01") for month in (first, last or first))
    except ValueError:
        raise RunRefused(
            f"--months is {months!r}; write a month or a range, such as 2026-01..2026-03."
        ) from None
    if start > end:
        raise RunRefused(f"--months is {months!r}: it ends before it begins.")
    if partitions is None:
        raise RunRefused(f"--months is for jobs that load months: {job!r} has none, so leave it out.")
    keys = partitions.get_partition_keys()
    if not {start.isoformat(), end.isoformat()} <= set(keys):
        raise RunRefused(
            f"--months is {months!r}; choose from {keys[0][:7]} (SERVERLESS_FIRST_MONTH) to {keys[-1][:7]}."
        )
    return start, end
