"""The sensors `run_failed` and `recovered`: each such run is told once, also if the webhook was away."""

from collections.abc import Callable, Sequence
from typing import Literal

import dagster as dg
from dagster import DagsterEventType, DagsterRunStatus
from dagster._core.storage.tags import ROOT_RUN_ID_TAG, WILL_RETRY_TAG

from serverless_assets.automation.alerts import Alerts, duration_in_words, shortened
from serverless_assets.automation.first_error import first_error
from serverless_assets.automation.webhook import AlertError
from serverless_assets.secrets import without_secrets

SECONDS_BETWEEN_LOOKS = 30
RUNS_A_TICK = 20
# How far back to look for the failures that a run makes good.
RUNS_LOOKED_BACK = 50

Ended = Literal[DagsterEventType.RUN_FAILURE, DagsterEventType.RUN_SUCCESS]
# What there is to tell of a run: done, with a sentence for the tick; None if there is nothing.
Tell = Callable[[dg.DagsterInstance, dg.DagsterRun, float, Alerts], str | None]


def run_failed(alerts: Alerts, status: dg.DefaultSensorStatus) -> dg.SensorDefinition:
    """Tells of each run that failed: its first error in words, and a link to it."""
    return _sensor(
        "run_failed", DagsterEventType.RUN_FAILURE, _tell_failed, alerts, status, run_failed.__doc__
    )


def recovered(alerts: Alerts, status: dg.DefaultSensorStatus) -> dg.SensorDefinition:
    """Tells that a job is well again after it failed, and how long it was broken."""
    return _sensor(
        "recovered", DagsterEventType.RUN_SUCCESS, _tell_recovered, alerts, status, recovered.__doc__
    )


def will_be_retried(run: dg.DagsterRun) -> bool:
    """Whether Dagster runs it again by itself."""
    return run.tags.get(WILL_RETRY_TAG, "").lower() == "true"


def made_good(run: dg.DagsterRun, earlier: Sequence[dg.DagsterRun]) -> list[dg.DagsterRun]:
    """The failed runs, of those before it with the newest first, that nothing but this one makes good."""
    found, successes = [], [run]
    for before in earlier:
        if before.status == DagsterRunStatus.SUCCESS:
            successes.append(before)
        elif before.status == DagsterRunStatus.FAILURE and not will_be_retried(before):
            by = [success for success in successes if covers(success, before)]
            found += [before] if by == [run] else []
    return found


def covers(run: dg.DagsterRun, failed: dg.DagsterRun) -> bool:
    """Whether a run does all that another was to do: by re-executing it, or because it is about as much."""
    root = run.tags.get(ROOT_RUN_ID_TAG)
    if root:
        # It may go on from the failure.
        return root in (failed.run_id, failed.tags.get(ROOT_RUN_ID_TAG))
    if run.asset_selection is None:
        return True
    return failed.asset_selection is not None and failed.asset_selection <= run.asset_selection


def _sensor(
    name: str,
    event_type: Ended,
    tell: Tell,
    alerts: Alerts,
    status: dg.DefaultSensorStatus,
    description: str | None,
) -> dg.SensorDefinition:
    @dg.sensor(
        name=name,
        minimum_interval_seconds=SECONDS_BETWEEN_LOOKS,
        default_status=status,
        description=description,
    )
    def sensor(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        instance = context.instance
        if not context.cursor:
            # What failed before anybody watched is no news.
            last = instance.fetch_run_status_changes(event_type, limit=1).records
            return dg.SensorResult(
                skip_reason="Watching from now on.", cursor=str(last[0].storage_id if last else 0)
            )
        after, said = int(context.cursor), []
        records = instance.fetch_run_status_changes(
            dg.RunStatusChangeRecordsFilter(event_type, after_storage_id=after),
            limit=RUNS_A_TICK,
            ascending=True,
        ).records
        for record in records:
            run = instance.get_run_by_id(record.run_id)
            try:
                said.append(tell(instance, run, record.timestamp, alerts) if run else None)
            except AlertError as error:
                said.append(f"Run {record.run_id[:8]}: {error}")
                # Without an address there is nothing to wait for.
                if alerts.webhook is not None:
                    break
            after = record.storage_id
        return dg.SensorResult(
            skip_reason=" ".join(filter(None, said)) or "Nothing to tell.", cursor=str(after)
        )

    return sensor


def _tell_failed(instance: dg.DagsterInstance, run: dg.DagsterRun, at: float, alerts: Alerts) -> str | None:
    if will_be_retried(run):
        return f"Run {run.run_id[:8]} failed and is retried: nobody was told."
    error = first_error(instance, run.run_id)
    title, page = f"{run.job_name} failed", f"runs/{run.run_id}"
    try:
        alerts.tell("run_failed", title, error, page, run.job_name, run.run_id)
    except AlertError as not_sent:
        # The tick that shows this is then all that people have.
        raise AlertError(f"{title}: {shortened(without_secrets(error))} {not_sent}") from None
    return f"Run {run.run_id[:8]} of {run.job_name} failed: people were told."


def _tell_recovered(
    instance: dg.DagsterInstance, run: dg.DagsterRun, at: float, alerts: Alerts
) -> str | None:
    records = instance.get_run_records(
        dg.RunsFilter(job_name=run.job_name, statuses=[DagsterRunStatus.SUCCESS, DagsterRunStatus.FAILURE]),
        limit=RUNS_LOOKED_BACK,
        cursor=run.run_id,
    )
    failed = made_good(run, [record.dagster_run for record in records])
    if not failed:
        return None
    ended = {record.dagster_run.run_id: record.end_time or at for record in records}
    lasted = duration_in_words(at - min(ended[one.run_id] for one in failed))
    times = f" {len(failed)} runs had failed." if len(failed) > 1 else ""
    sentence = f"Run {run.run_id[:8]} succeeded. It was broken for {lasted}.{times}"
    alerts.tell(
        "recovered",
        f"{run.job_name} is well again",
        sentence,
        f"runs/{run.run_id}",
        run.job_name,
        run.run_id,
    )
    return f"{run.job_name} is well again after {lasted}: people were told."
