"""The sensor `forecast_stale`: tells once that the forecast is old, and once that it is fresh again."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal

import dagster as dg

from serverless_assets.automation.alerts import Alerts, duration_in_words
from serverless_assets.automation.webhook import AlertError

FORECAST = dg.AssetKey("order_forecast")
SECONDS_BETWEEN_LOOKS = 300
MATERIALIZATIONS_A_PAGE = 25
# What the cursor says: whether people know that the forecast is stale. Dagster does not take an empty one.
TOLD, NOT_TOLD = "told", "not told"


@dataclass(frozen=True)
class Verdict:
    """What to tell people, if anything, and what the tick says."""

    tell: Literal["forecast_stale", "forecast_fresh"] | None
    sentence: str


def judge(made: datetime, now: datetime, hours: int, told: bool) -> Verdict:
    """Whether a forecast that a run last made, or confirmed, at this time is stale; told: people know it."""
    age = now - made
    since = f"{made:%Y-%m-%d %H:%M} UTC, {duration_in_words(age.total_seconds())} ago"
    if age > timedelta(hours=hours):
        sentence = (
            f"The forecast is of {since}; it should not be older than {hours} h. "
            "Run serverless_pipeline, and see in the last runs why it was not made."
        )
        return Verdict(None if told else "forecast_stale", sentence)
    return Verdict("forecast_fresh" if told else None, f"The forecast is fresh: of {since}.")


def forecast_stale(alerts: Alerts, hours: int, status: dg.DefaultSensorStatus) -> dg.SensorDefinition:
    """Tells when the published forecast is older than its policy allows, and when it is fresh again."""

    @dg.sensor(
        name="forecast_stale",
        minimum_interval_seconds=SECONDS_BETWEEN_LOOKS,
        default_status=status,
        description=forecast_stale.__doc__,
    )
    def sensor(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        told = context.cursor == TOLD
        made = next(_made_by_green_runs(context.instance), None)
        if made is None:
            return dg.SensorResult(
                skip_reason="There is no forecast yet: run serverless_pipeline once.", cursor=context.cursor
            )
        verdict = judge(made, alerts.now(), hours, told)
        outcome = " People know of it." if told and verdict.tell is None else ""
        if verdict.tell:
            title = (
                "The forecast is stale" if verdict.tell == "forecast_stale" else "The forecast is fresh again"
            )
            try:
                alerts.tell(verdict.tell, title, verdict.sentence, f"assets/{FORECAST.to_user_string()}")
            except AlertError as error:
                outcome = f" {error}"
            else:
                told, outcome = verdict.tell == "forecast_stale", " People were told."
        return dg.SensorResult(skip_reason=verdict.sentence + outcome, cursor=TOLD if told else NOT_TOLD)

    return sensor


def _made_by_green_runs(instance: dg.DagsterInstance) -> Iterator[datetime]:
    """When it was made, or found unchanged, the newest first. What a failed run made is not published."""
    cursor, more = None, True
    while more:
        page = instance.fetch_materializations(FORECAST, limit=MATERIALIZATIONS_A_PAGE, cursor=cursor)
        cursor, more = page.cursor, page.has_more
        ids = list({record.run_id for record in page.records})
        runs = instance.get_runs(dg.RunsFilter(run_ids=ids)) if ids else []
        green = {run.run_id for run in runs if run.is_success}
        for record in page.records:
            if record.run_id in green:
                yield datetime.fromtimestamp(record.timestamp, UTC)
