"""The sensor of a forecast: one alert that the forecast is old, and one that it is fresh again."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Literal, NamedTuple

import dagster as dg

from serverless_assets.automation.alerts import AlertError, Alerts, format_duration
from serverless_assets.forecasting.declaration import ForecastDeclaration

SECONDS_BETWEEN_TICKS = 300
MATERIALIZATIONS_A_PAGE = 25
# The cursor: whether an alert was sent that the forecast is stale. Dagster does not take an empty one.
TOLD, NOT_TOLD = "told", "not told"


class Freshness(NamedTuple):
    """The kind of alert to send, if any, and the sentence of it and of the tick."""

    alert: Literal["forecast_stale", "forecast_fresh"] | None
    sentence: str


def judge(made: datetime, now: datetime, hours: int, is_alerted: bool) -> Freshness:
    """Judge a forecast that a run last made, or confirmed, at the time `made`."""
    age = now - made
    since = f"{made:%Y-%m-%d %H:%M} UTC, {format_duration(age.total_seconds())} ago"
    if age > timedelta(hours=hours):
        sentence = (
            f"The forecast is of {since}; it should not be older than {hours} h. "
            "Run serverless_pipeline, and see in the last runs why it was not made."
        )
        return Freshness(None if is_alerted else "forecast_stale", sentence)
    return Freshness("forecast_fresh" if is_alerted else None, f"The forecast is fresh: of {since}.")


def forecast_stale(
    forecast: ForecastDeclaration, alerts: Alerts, hours: int, status: dg.DefaultSensorStatus
) -> dg.SensorDefinition:
    """Tells when the published forecast is older than its policy allows, and when it is fresh again."""

    @dg.sensor(
        name=f"{forecast.name}_stale",
        minimum_interval_seconds=SECONDS_BETWEEN_TICKS,
        default_status=status,
        description=forecast_stale.__doc__,
    )
    def sensor(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        is_alerted = context.cursor == TOLD
        made_at = next(_times_made(context.instance, forecast.asset), None)
        if made_at is None:
            return dg.SensorResult(
                skip_reason="There is no forecast yet: run serverless_pipeline once.", cursor=context.cursor
            )
        alert, sentence = judge(made_at, alerts.now(), hours, is_alerted)
        outcome = " People know of it." if is_alerted and alert is None else ""
        if alert:
            is_stale = alert == "forecast_stale"
            title = f"{forecast.asset} is {'stale' if is_stale else 'fresh again'}"
            try:
                alerts.tell(alert, title, sentence, f"assets/{forecast.asset}")
                is_alerted, outcome = is_stale, " People were told."
            except AlertError as error:
                outcome = f" {error}"
        return dg.SensorResult(skip_reason=sentence + outcome, cursor=TOLD if is_alerted else NOT_TOLD)

    return sensor


def _times_made(instance: dg.DagsterInstance, asset: str) -> Iterator[datetime]:
    """Yield when successful runs made the asset or confirmed it, the newest first. What a failed run made
    is not published."""
    cursor, more = None, True
    while more:
        page = instance.fetch_materializations(
            dg.AssetKey(asset), limit=MATERIALIZATIONS_A_PAGE, cursor=cursor
        )
        cursor, more = page.cursor, page.has_more
        run_ids = list({record.run_id for record in page.records})
        runs = instance.get_runs(dg.RunsFilter(run_ids=run_ids)) if run_ids else []
        successful = {run.run_id for run in runs if run.is_success}
        for record in page.records:
            if record.run_id in successful:
                yield datetime.fromtimestamp(record.timestamp, UTC)
