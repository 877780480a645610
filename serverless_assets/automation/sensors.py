"""The sensors, and which of them are on until somebody switches them in the UI.

`run_failed` and `recovered` send one alert for each such run, also after the webhook was down; `dead_runs`
ends runs whose process was killed. `source_updated` and the sensor of a forecast have modules of their own.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal

import dagster as dg
from dagster import DagsterEventType, DagsterRunStatus

from serverless_assets.addresses import without_secrets
from serverless_assets.automation.alerts import AlertError, Alerts, format_duration, tick_text
from serverless_assets.automation.source_updated import source_updated
from serverless_assets.dagster_internals import ROOT_RUN_ID_TAG, WILL_RETRY_TAG
from serverless_assets.environments import Environment
from serverless_assets.names import REFUSED_TAG
from serverless_assets.publishing.outcome import failure_sentence_of, run_failure_sentence, without_class
from serverless_assets.publishing.run_lock import end_dead_runs

SECONDS_BETWEEN_LOOKS_FOR_DEAD_RUNS = 60
SECONDS_BETWEEN_LOOKS_AT_RUNS = 30
RUNS_A_TICK = 20
# How many earlier runs are searched for failures that a run makes good.
RUNS_LOOKED_BACK = 50
NO_REASON = "No reason was recorded: the run's process may have been killed."

EndOfRun = Literal[DagsterEventType.RUN_FAILURE, DagsterEventType.RUN_SUCCESS]
# Sends the alert for a run that ended at this time; returns a sentence for the tick, or None without one.
SendAlert = Callable[[dg.DagsterInstance, dg.DagsterRun, float, Alerts], str | None]


def sensors(environment: Environment) -> list[dg.SensorDefinition]:
    """Return all sensors but those of forecasts, which come with them.

    Those that alert are on; the one that launches follows SERVERLESS_AUTOMATION.
    """
    settings = environment.settings
    alerts = Alerts.of(settings)
    launching = (
        dg.DefaultSensorStatus.RUNNING if settings.automation_is_on else dg.DefaultSensorStatus.STOPPED
    )
    return [
        *(run_sensor(name, alerts) for name in RUN_ALERTS),
        dead_runs(settings.home),
        source_updated(
            environment.source, environment.raw_tables, environment.first_month, alerts, launching
        ),
    ]


def dead_runs(home: Path) -> dg.SensorDefinition:
    """Marks runs as failed whose processes have ended without finishing them, as they were killed, say."""

    @dg.sensor(
        name="dead_runs",
        minimum_interval_seconds=SECONDS_BETWEEN_LOOKS_FOR_DEAD_RUNS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description=dead_runs.__doc__,
    )
    def sensor(context: dg.SensorEvaluationContext) -> dg.SkipReason:
        return dg.SkipReason(" ".join(end_dead_runs(home, context.instance)) or "No run has died.")

    return sensor


def first_error(instance: dg.DagsterInstance, run_id: str) -> str:
    """Return the error of the first step that failed; of the run if it failed outside of its steps."""
    for entry in instance.all_logs(run_id, of_type=DagsterEventType.STEP_FAILURE):
        if entry.dagster_event:
            return without_class(failure_sentence_of(entry.dagster_event))
    for entry in instance.all_logs(run_id, of_type=DagsterEventType.RUN_FAILURE):
        event = entry.dagster_event
        # If its process was killed, another one has marked it as failed, with a message and no error.
        if event and event.event_specific_data and event.job_failure_data.error:
            return run_failure_sentence(event.job_failure_data.error)
        if event and event.message:
            return event.message
    return NO_REASON


def will_be_retried(run: dg.DagsterRun) -> bool:
    """Return whether Dagster runs it again by itself."""
    return run.tags.get(WILL_RETRY_TAG, "").lower() == "true"


def is_refused(run: dg.DagsterRun) -> bool:
    """Return whether a run was refused for its run config, which is shown where it was launched."""
    return REFUSED_TAG in run.tags


def made_good(run: dg.DagsterRun, earlier: Sequence[dg.DagsterRun]) -> list[dg.DagsterRun]:
    """Return the failed runs that `run` makes good and none before it did. `earlier` has the newest first."""
    failed, successes = [], [run]
    for before in earlier:
        if before.status == DagsterRunStatus.SUCCESS:
            successes.append(before)
        elif before.status == DagsterRunStatus.FAILURE and not (
            will_be_retried(before) or is_refused(before)
        ):
            made_good_by = [success for success in successes if covers(success, before)]
            failed += [before] if made_good_by == [run] else []
    return failed


def covers(run: dg.DagsterRun, failed: dg.DagsterRun) -> bool:
    """Return whether a run does all that `failed` was to do: as its re-execution, or by its assets."""
    root = run.tags.get(ROOT_RUN_ID_TAG)
    if root:
        # A re-execution from the failure selects only what is left.
        return root in (failed.run_id, failed.tags.get(ROOT_RUN_ID_TAG))
    if run.asset_selection is None:
        return True
    return failed.asset_selection is not None and failed.asset_selection <= run.asset_selection


def alert_failed(instance: dg.DagsterInstance, run: dg.DagsterRun, at: float, alerts: Alerts) -> str | None:
    """Send an alert for each run that failed, with its first error and a link to it."""
    if will_be_retried(run):
        return f"Run {run.run_id[:8]} failed and is retried: no alert was sent."
    if is_refused(run):
        return (
            f"Run {run.run_id[:8]} was refused for its run config, before its first step: no alert was sent."
        )
    error = first_error(instance, run.run_id)
    title, page = f"{run.job_name} failed", f"runs/{run.run_id}"
    try:
        alerts.tell("run_failed", title, error, page, run.job_name, run.run_id)
    except AlertError as not_sent:
        # People then have nothing but this tick: it says what the alert would have said.
        event = f"Run {run.run_id[:8]} of {title}: {without_secrets(error)}"
        raise AlertError(tick_text(event, str(not_sent))) from None
    return f"Run {run.run_id[:8]} of {run.job_name} failed: an alert was sent."


def alert_recovered(
    instance: dg.DagsterInstance, run: dg.DagsterRun, at: float, alerts: Alerts
) -> str | None:
    """Send an alert when a job succeeds after it failed, with how long it was failing."""
    records = instance.get_run_records(
        dg.RunsFilter(job_name=run.job_name, statuses=[DagsterRunStatus.SUCCESS, DagsterRunStatus.FAILURE]),
        limit=RUNS_LOOKED_BACK,
        cursor=run.run_id,
    )
    failed = made_good(run, [record.dagster_run for record in records])
    if not failed:
        return None
    ended = {record.dagster_run.run_id: record.end_time or at for record in records}
    duration = format_duration(at - min(ended[failure.run_id] for failure in failed))
    count = f" {len(failed)} runs had failed." if len(failed) > 1 else ""
    sentence = f"Run {run.run_id[:8]} succeeded. It was broken for {duration}.{count}"
    title, page = f"{run.job_name} has recovered", f"runs/{run.run_id}"
    alerts.tell("recovered", title, sentence, page, run.job_name, run.run_id)
    return f"{run.job_name} has recovered after {duration}: an alert was sent."


RUN_ALERTS: Mapping[str, tuple[EndOfRun, SendAlert]] = {
    "run_failed": (DagsterEventType.RUN_FAILURE, alert_failed),
    "recovered": (DagsterEventType.RUN_SUCCESS, alert_recovered),
}


def run_sensor(name: str, alerts: Alerts) -> dg.SensorDefinition:
    """Return the sensor of this name in `RUN_ALERTS`. It looks at each run once, also after the webhook was
    down."""
    event_type, send_alert = RUN_ALERTS[name]

    @dg.sensor(
        name=name,
        minimum_interval_seconds=SECONDS_BETWEEN_LOOKS_AT_RUNS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description=send_alert.__doc__,
    )
    def sensor(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        instance = context.instance
        if not context.cursor:
            # Runs that failed before the sensor was on are not reported.
            last = instance.fetch_run_status_changes(event_type, limit=1).records
            return dg.SensorResult(
                skip_reason="Watching from now on.", cursor=str(last[0].storage_id if last else 0)
            )
        after = int(context.cursor)
        messages: list[str | None] = []
        records = instance.fetch_run_status_changes(
            dg.RunStatusChangeRecordsFilter(event_type, after_storage_id=after),
            limit=RUNS_A_TICK,
            ascending=True,
        ).records
        for record in records:
            run = instance.get_run_by_id(record.run_id)
            try:
                messages.append(send_alert(instance, run, record.timestamp, alerts) if run else None)
            except AlertError as error:
                # In front, as the UI shows the first message.
                messages.insert(0, str(error))
                # The next tick sends it again; without an address, none ever can.
                if alerts.webhook is not None:
                    break
            after = record.storage_id
        reports = [message for message in messages if message] or ["Nothing to report."]
        # The UI shows the first message, and the log of the tick all.
        for report in reports:
            context.log.info(report)
        more = f"And {len(reports) - 1} more: see the log of this tick." if reports[1:] else ""
        return dg.SensorResult(skip_reason=tick_text(reports[0], more), cursor=str(after))

    return sensor
