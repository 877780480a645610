"""Run a job in this process, with progress on the terminal and a summary at the end."""

import logging
import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import dagster as dg
import psutil

from serverless_assets.asset_keys import asset_name
from serverless_assets.cli.progress import SKIPPED_STEP_WARNING, Progress, echo, moving_line
from serverless_assets.cli.request import Launch, Request, RunRefused, config_mistakes
from serverless_assets.cli.resume import assets_to_resume
from serverless_assets.cli.summary import stopped_text, summary_text
from serverless_assets.compute_logs import ComputeLogs
from serverless_assets.dagster_internals import (
    ASSET_PARTITION_RANGE_START_TAG,
    STEP_LOGGER,
    show_in_code_location,
)
from serverless_assets.definitions import build
from serverless_assets.instance import open_instance
from serverless_assets.names import GRAIN_TAG, RAW_TABLE_TAG
from serverless_assets.partitions import month_tags
from serverless_assets.publishing.outcome import PendingAssets
from serverless_assets.publishing.run_lock import end_dead_runs, registered
from serverless_assets.publishing.summary import read_summary
from serverless_assets.settings import Settings
from serverless_assets.stopping import Stopping

# `Progress` prints instead of Dagster's console.
QUIET_CONSOLE = {"console": {"config": {"log_level": "CRITICAL"}}}


def run_job(request: Request, settings: Settings, resume: bool) -> bool:
    """Run the job, or with `resume` what earlier runs left of it, and print what became of it.

    Returns:
        whether it succeeded.

    Raises:
        UserError: before anything has run.
    """
    run_id = str(uuid.uuid4())
    # Since the process began: a person also waits for the imports.
    started = time.monotonic() - (time.time() - psutil.Process().create_time())
    ending, is_told = threading.Lock(), threading.Event()

    def tell_end(reason: str) -> None:
        """Record that the run was stopped, and print it, once: also from another thread."""
        with ending:
            if is_told.is_set():
                return
            has_begun = _record_end(run_id, reason)
            seconds, has_pending = time.monotonic() - started, bool(PendingAssets(settings.home).read())
            document = _summary_of(settings.home, run_id)
            finished = None
            if document:
                outcomes = document["assets"].items()
                finished = [asset for asset, outcome in outcomes if outcome["status"] == "built"]
            command = request.command
            text = stopped_text(reason, seconds, has_begun, has_pending, finished, command, resume)
            echo(f"\n{text}")
            is_told.set()

    with Stopping(settings.run_deadline_seconds, tell_end) as stopping:
        try:
            launch = request.launch(settings)
            assets = assets_to_resume(settings, launch.job) if resume else None
            succeeded = _run(launch, request.command, assets, settings, run_id, stopping, started)
        except (KeyboardInterrupt, dg.DagsterExecutionInterruptedError):
            stopping.wait_for_reason()
            succeeded = False
        except Exception:
            # Interrupted code may raise any error.
            if stopping.reason is None:
                raise
            succeeded = False
        if stopping.reason is None or succeeded:
            return succeeded
        tell_end(stopping.reason)
        stopping.end_process()


def _run(
    launch: Launch,
    command: str,
    assets: Sequence[dg.AssetKey] | None,
    settings: Settings,
    run_id: str,
    stopping: Stopping,
    started: float,
) -> bool:
    """Execute the run and print its summary. Returns whether it succeeded."""
    job, months = launch.job, launch.months
    # A job such as `plan` writes no asset, and leaves no summary.
    writes_assets = bool(job.asset_layer.selected_asset_keys)
    tags = month_tags(*months) if months else {}
    first_month = tags.get(ASSET_PARTITION_RANGE_START_TAG)
    progress = Progress(settings.home, first_month=first_month, in_full=not writes_assets, started=started)
    succeeded = _execute(launch, tags, assets, settings, run_id, stopping, progress)
    document, seconds = _summary_of(settings.home, run_id), time.monotonic() - started
    if document is None:
        succeeded = succeeded and not writes_assets
        if progress.refusal:
            echo(f"\nThe run failed: {progress.refusal}")
        if succeeded:
            echo(f"\nSucceeded in {seconds:.1f} s.")
        return succeeded
    if stopping.reason and not document["published"]:
        return False
    # The seconds are those of the command, of which the run is a part.
    raw_tables, forecasts = (_tagged(job, tag) for tag in (RAW_TABLE_TAG, GRAIN_TAG))
    echo("\n" + summary_text({**document, "seconds": seconds}, raw_tables, forecasts, command))
    return succeeded and bool(document["published"])


def _execute(
    launch: Launch,
    tags: Mapping[str, str],
    assets: Sequence[dg.AssetKey] | None,
    settings: Settings,
    run_id: str,
    stopping: Stopping,
    progress: Progress,
) -> bool:
    """Execute the run and print its progress. Returns whether nothing failed.

    Raises:
        RunRefused: the run config cannot be used.
    """
    # Dagster also warns outside of the run's log.
    logging.getLogger(STEP_LOGGER).addFilter(
        lambda record: not SKIPPED_STEP_WARNING.match(record.getMessage())
    )
    with open_instance() as instance, registered(settings.home, run_id):
        for sentence in end_dead_runs(settings.home, instance):
            echo(f"{sentence}\n")
        echo(
            f"Running {launch.job.name} ({run_id[:8]}) in the environment {settings.environment!r}, "
            f"with its state in {settings.home}.\n"
        )
        instance.add_event_listener(run_id, progress)
        if isinstance(instance.compute_log_manager, ComputeLogs):
            instance.compute_log_manager.is_capturing = False
        show_in_code_location(instance, build.__module__, launch.job.name)
        stopping.on_stop = partial(_report_canceling, instance, run_id, progress)
        try:
            with moving_line() as (progress.echo, progress.move):
                result = launch.job.execute_in_process(
                    run_config={**launch.run_config, "loggers": QUIET_CONSOLE},
                    instance=instance,
                    tags=dict(tags),
                    asset_selection=assets,
                    raise_on_error=False,
                    run_id=run_id,
                )
        except dg.DagsterInvalidConfigError as error:
            mistakes = [line for problem in error.errors for line in config_mistakes(problem.message)]
            raise RunRefused("\n".join(["The run config cannot be used:", *mistakes])) from None
    return result.success and not progress.failed


def _tagged(job: dg.JobDefinition, tag: str) -> Mapping[str, str]:
    """Return the assets of the job that have the tag, with its value."""
    tags = {key: job.asset_layer.get(key).tags for key in job.asset_layer.selected_asset_keys}
    return {asset_name(key): of_asset[tag] for key, of_asset in tags.items() if tag in of_asset}


def _summary_of(home: Path, run_id: str) -> Mapping[str, Any] | None:
    """Return the summary of a run; None if it left none."""
    document = read_summary(home)
    return document if document and document["run_id"] == run_id else None


def _record_end(run_id: str, reason: str) -> bool:
    """Record in Dagster's history why a run was stopped. Returns whether its first step had begun."""
    with open_instance() as instance:
        run = instance.get_run_by_id(run_id)
        if run is None:
            return False
        has_begun = bool(instance.all_logs(run_id, of_type=dg.DagsterEventType.STEP_START))
        sentence = f"The run was stopped {reason}."
        if run.is_finished:
            instance.report_engine_event(sentence, run)
        else:
            instance.report_run_canceled(run, sentence)
    return has_begun


def _report_canceling(instance: dg.DagsterInstance, run_id: str, progress: Progress, reason: str) -> None:
    """Have Dagster take the end of a run that is being stopped for a cancel, not for a failure."""
    progress.is_stopped = True
    run = instance.get_run_by_id(run_id)
    if run and not run.is_finished:
        instance.report_run_canceling(run, f"The run is being stopped {reason}.")
