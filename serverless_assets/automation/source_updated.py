"""The sensor `source_updated`: loads what changed at the source, once for each change."""

import itertools
from collections.abc import Iterable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import replace
from datetime import date
from threading import Event

import dagster as dg

from serverless_assets.asset_keys import asset_key
from serverless_assets.automation.alerts import Alerts, format_duration, tick_text
from serverless_assets.automation.jobs import PREFILL
from serverless_assets.automation.source_state import (
    TABLES_NAMED,
    Decision,
    ETags,
    RunOutcome,
    SourceState,
    changed_facts,
    decide,
    etag_key,
    merge_etags,
    settle,
)
from serverless_assets.dagster_internals import ROOT_RUN_ID_TAG
from serverless_assets.hashing import digest
from serverless_assets.ingestion.http_client import MissingTable, SourceError
from serverless_assets.ingestion.raw_table import RawTable
from serverless_assets.ingestion.source import HttpSource, Source
from serverless_assets.metadata import latest_materialization
from serverless_assets.months import Window
from serverless_assets.names import MAIN_JOB, REASON_TAG, SOURCE_CHANGE_TAG, name_some
from serverless_assets.partitions import month_tags

SECONDS_BETWEEN_TICKS = 60
# A tick has a minute for all requests: what takes longer is left to the next tick.
ATTEMPTS, TIMEOUT_SECONDS, PAUSE_SECONDS = 3, 5.0, 0.2
REQUESTS_AT_A_TIME = 8
MISSING = "missing"


def source_updated(
    source: Source,
    tables: Sequence[RawTable],
    first_month: date,
    alerts: Alerts,
    status: dg.DefaultSensorStatus,
) -> dg.SensorDefinition:
    """Return the sensor that launches `serverless_pipeline` when a validator of the source changed."""

    @dg.sensor(
        name="source_updated",
        job_name=MAIN_JOB,
        minimum_interval_seconds=SECONDS_BETWEEN_TICKS,
        default_status=status,
        description="Load, transform and forecast just the tables and months that changed at the source.",
    )
    def sensor(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        state = SourceState.read(context.cursor)
        months = Window.of_months(first_month, alerts.now().date()).months()
        try:
            with source.open() as opened:
                decision, unwatched = _look(context.instance, state, opened, tables, months)
        except SourceError as error:
            state, alerted = _alert_down(state, source.name, str(error), alerts)
            context.log.info(f"{error} {alerted}")
            return dg.SensorResult(skip_reason=tick_text(str(error), alerted), cursor=state.to_cursor())
        state, alerted = _alert_back(decision.state, source.name, alerts)
        unwatched_message = (
            f"The source gives no ETag or Last-Modified for {name_some(unwatched, TABLES_NAMED)}: "
            "nightly_refresh loads what changes there."
            if unwatched
            else ""
        )
        message = " ".join(filter(None, [decision.message, unwatched_message, alerted]))
        # The UI shows no message for a tick that launches a run: the log and the run's tags have it.
        context.log.info(message)
        if not decision.tables:
            text = tick_text(decision.message, alerted or unwatched_message)
            return dg.SensorResult(skip_reason=text, cursor=state.to_cursor())
        return dg.SensorResult(run_requests=[_request(context, decision, tables)], cursor=state.to_cursor())

    return sensor


def fetch_etags(source: HttpSource, wanted: Iterable[tuple[RawTable, date | None]]) -> ETags:
    """Ask the source for validators of months, or of whole tables, without downloading anything.

    Raises:
        SourceError: of the first request that was not answered.
    """
    hasty = replace(
        source,
        attempts=ATTEMPTS,
        timeout_seconds=TIMEOUT_SECONDS,
        first_pause_seconds=PAUSE_SECONDS,
        longest_pause_seconds=PAUSE_SECONDS,
        cancelled=Event(),
    )

    def fetch(table: RawTable, month: date | None) -> str:
        window = Window.of_months(month, month) if month else None
        try:
            validators = hasty.validators(table, window)
        except MissingTable:
            # A value of its own, so that the table's appearance is a change.
            return MISSING
        content = f"{validators.etag}\n{validators.last_modified}"
        return digest(content) if validators else ""

    with ThreadPoolExecutor(REQUESTS_AT_A_TIME) as pool:
        futures = {etag_key(table.name, month): pool.submit(fetch, table, month) for table, month in wanted}
        try:
            for future in wait(futures.values(), return_when=FIRST_EXCEPTION).done:
                future.result()
        finally:
            # If one request failed, the others are cancelled.
            hasty.cancelled.set()
            pool.shutdown(cancel_futures=True)
    return {key: etag for key, future in futures.items() if (etag := future.result())}


def _look(
    instance: dg.DagsterInstance,
    state: SourceState,
    source: HttpSource,
    tables: Sequence[RawTable],
    months: Sequence[date],
) -> tuple[Decision, Sequence[str]]:
    """Return what to launch, and the tables that cannot be watched."""
    is_loaded = not state.source and all(
        latest_materialization(instance, asset_key(table.name)) for table in tables if not table.optional
    )
    if state.source != source.key:
        state = SourceState(source.key, down_since=state.down_since, is_alerted=state.is_alerted)
    outcome = _outcome(instance, state.run_key) if state.launched is not None else None
    state = settle(state, outcome)
    # The validators of an API would be those of its first page.
    of_tables = fetch_etags(source, [(table, None) for table in tables if not table.rest])
    # The months are asked for once the launched run has ended, as they may change again until then.
    is_running = outcome is not None and outcome.status == "running"
    facts = [] if is_running else changed_facts(state, of_tables, tables)
    of_months = fetch_etags(source, itertools.product(facts, months))
    etags = merge_etags(state, of_tables, facts, of_months)
    unwatched = [table.name for table in tables if table.name not in of_tables]
    return decide(state, etags, outcome, tables, months, is_loaded), unwatched


def _outcome(instance: dg.DagsterInstance, run_key: str) -> RunOutcome:
    """Return what became of the run with this key; the best outcome if somebody re-executed it."""
    launched = instance.get_runs(dg.RunsFilter(tags={SOURCE_CHANGE_TAG: run_key}))
    # A re-execution may lack the tags of the first run.
    roots = [run.run_id for run in launched]
    runs = [*launched, *(instance.get_runs(dg.RunsFilter(tags={ROOT_RUN_ID_TAG: roots})) if roots else [])]
    if not runs:
        return RunOutcome("deleted")
    if any(run.is_success for run in runs):
        return RunOutcome("succeeded")
    unfinished = [run.run_id for run in runs if not run.is_finished]
    return RunOutcome("running", unfinished[0]) if unfinished else RunOutcome("failed", runs[0].run_id)


def _request(
    context: dg.SensorEvaluationContext, decision: Decision, tables: Sequence[RawTable]
) -> dg.RunRequest:
    """Return the run of the changed tables and all that follows from them."""
    selection = None
    if decision.months or len(decision.tables) < len(tables):
        assert context.repository_def is not None
        downstream = dg.AssetSelection.assets(*map(asset_key, decision.tables)).downstream()
        selection = sorted(downstream.resolve(context.repository_def.asset_graph))
    return dg.RunRequest(
        run_key=decision.state.run_key,
        run_config=PREFILL,
        asset_selection=selection,
        tags={
            SOURCE_CHANGE_TAG: decision.state.run_key,
            REASON_TAG: decision.message,
            **(month_tags(*decision.months) if decision.months else {}),
        },
    )


def _alert_down(state: SourceState, name: str, error: str, alerts: Alerts) -> tuple[SourceState, str]:
    """Send one alert that the source does not answer; again at the next tick if it did not arrive."""
    if state.is_alerted:
        return state, "An alert was sent before."
    if state.down_since is None:
        state = replace(state, down_since=alerts.now().timestamp())
    sentence = f"{name} cannot be checked for changes. {error} No change is lost: it is checked every minute."
    is_alerted, outcome = alerts.try_to_tell("source_down", "The source does not answer", sentence)
    return replace(state, is_alerted=is_alerted), outcome


def _alert_back(state: SourceState, name: str, alerts: Alerts) -> tuple[SourceState, str]:
    """Send one alert that the source answers again, if one was sent that it did not."""
    up = replace(state, down_since=None, is_alerted=False)
    if state.down_since is None or not state.is_alerted:
        return up, ""
    duration = format_duration(alerts.now().timestamp() - state.down_since)
    sentence = f"{name} answers again, after {duration}."
    is_alerted, outcome = alerts.try_to_tell("source_back", "The source answers again", sentence)
    if not is_alerted:
        return state, outcome
    return up, f"The source answers again, after {duration}: an alert was sent."
