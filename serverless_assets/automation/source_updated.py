"""The sensor `source_updated`: loads what changed at the source, once for each change."""

from collections.abc import Iterator, Sequence
from datetime import date

import dagster as dg

from serverless_assets.automation.alerts import Alerts
from serverless_assets.automation.jobs import MAIN_JOB, PREFILL
from serverless_assets.automation.launched_runs import fate_of
from serverless_assets.automation.source_changes import (
    Decision,
    Watch,
    decide,
    marks_now,
    settled,
    to_look_into,
)
from serverless_assets.automation.source_cursor import Cursor
from serverless_assets.automation.source_loads import Load
from serverless_assets.automation.source_marks import Question, ask, of_months, of_tables
from serverless_assets.automation.source_outage import back, down
from serverless_assets.automation.tags import REASON, SOURCE_CHANGE, month_tags
from serverless_assets.ingestion.download import SourceError, TableSource
from serverless_assets.ingestion.source import Source
from serverless_assets.ingestion.tables import TABLES
from serverless_assets.ingestion.window import Window

SECONDS_BETWEEN_LOOKS = 60


def source_updated(
    source: Source, first_month: date, alerts: Alerts, status: dg.DefaultSensorStatus
) -> dg.SensorDefinition:
    """Asks the source for the heads of its tables and launches `serverless_pipeline` on what changed."""

    @dg.sensor(
        name="source_updated",
        job_name=MAIN_JOB,
        minimum_interval_seconds=SECONDS_BETWEEN_LOOKS,
        default_status=status,
        description="Load, transform and forecast just the tables and months that changed at the source.",
    )
    def sensor(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        cursor = Cursor.read(context.cursor)
        months = Window.of_months(first_month, alerts.now().date()).months()
        try:
            with source.open() as opened:
                decision, unwatched = _look(context, cursor.watch, opened, months)
        except SourceError as error:
            outage, told = down(cursor.outage, source.name, str(error), alerts)
            return dg.SensorResult(skip_reason=f"{error} {told}", cursor=str(Cursor(cursor.watch, outage)))
        outage, told = back(cursor.outage, source.name, alerts)
        message = " ".join(filter(None, [decision.message, _unwatched(unwatched), told]))
        requests = list(_requests(context, decision))
        # Dagster shows no message of a tick that launches: its log has it, and each run.
        context.log.info(message)
        return dg.SensorResult(
            run_requests=requests,
            skip_reason=None if requests else message,
            cursor=str(Cursor(decision.watch, outage)),
        )

    return sensor


def _look(
    context: dg.SensorEvaluationContext, watch: Watch, source: TableSource, months: Sequence[date]
) -> tuple[Decision, Sequence[str]]:
    """What to do, and the tables that cannot be watched."""
    if watch.source != source.key:
        watch = Watch(source.key)
    fate = fate_of(context.instance, watch.launched.runs) if watch.launched else None
    watch = settled(watch, fate)
    wholes = ask(source, of_tables(TABLES))
    # While runs are under way the months can wait: they may change once more.
    waiting = fate is not None and fate.outcome == "running"
    facts = [] if waiting else to_look_into(watch, wholes, TABLES)
    of_facts = ask(source, [question for fact in facts for question in of_months(fact, months)])
    now = marks_now(watch, wholes, facts, of_facts)
    unwatched = [table.name for table in TABLES if Question(table.name) not in wholes]
    return decide(watch, now, fate, TABLES, months), unwatched


def _requests(context: dg.SensorEvaluationContext, decision: Decision) -> Iterator[dg.RunRequest]:
    for load in decision.loads:
        everything = load.months is None and len(load.tables) == len(TABLES)
        yield dg.RunRequest(
            run_key=load.key,
            run_config=PREFILL,
            asset_selection=None if everything else _assets(context, decision, load),
            tags={
                SOURCE_CHANGE: load.key,
                REASON: decision.message,
                **(month_tags(*load.months) if load.months else {}),
            },
        )


def _assets(context: dg.SensorEvaluationContext, decision: Decision, load: Load) -> Sequence[dg.AssetKey]:
    """The tables of the run; and of the last one, what follows from all that changed."""
    assert context.repository_def is not None
    selected: dg.AssetSelection = dg.AssetSelection.assets(*load.tables)
    if load.is_last:
        changed = dg.AssetSelection.assets(*decision.changed)
        selected = selected | (changed.downstream() - changed)
    return sorted(selected.resolve(context.repository_def.asset_graph))


def _unwatched(tables: Sequence[str]) -> str:
    if not tables:
        return ""
    return (
        f"Nothing tells whether {', '.join(tables)} changed: the source gives no ETag or Last-Modified. "
        "Turn on nightly_refresh for that."
    )
