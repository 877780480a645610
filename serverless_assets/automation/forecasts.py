"""The definitions of a forecast: its assets, its jobs, and the sensor that alerts when it is old."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Literal

import dagster as dg

from serverless_assets.asset_keys import asset_key
from serverless_assets.automation.alerts import Alerts, format_duration, tick_text
from serverless_assets.automation.jobs import define_jobs, forecast_jobs
from serverless_assets.automation.what_if import what_if_job
from serverless_assets.dagster_internals import replace_keys
from serverless_assets.environments import Environment
from serverless_assets.forecasting.assets import forecasting_assets
from serverless_assets.forecasting.declaration import ForecastDeclaration

SECONDS_BETWEEN_LOOKS_AT_FORECAST = 300
MATERIALIZATIONS_A_PAGE = 25
# The cursor, which the page of the sensor shows. Dagster does not take an empty one.
ALERTED, NOT_ALERTED = "alert sent: stale", "no open alert"


def forecast_definitions(declared: ForecastDeclaration, environment: Environment) -> dg.Definitions:
    """Return the definitions of a declared forecast; none in an environment that goes without it."""
    present = [forecast for forecast in environment.forecasts if forecast.name == declared.name]
    if not present:
        return dg.Definitions()
    [forecast], settings = present, environment.settings
    relation, upstream = dg.AssetKey(forecast.relation), forecast.upstream(environment.manifest)

    def of_upstream(key: dg.AssetKey) -> dg.AssetKey:
        # The asset of a model may have another name than its table.
        return upstream if upstream and key == relation else key

    hours = settings.forecast_fresh_hours
    assets = forecasting_assets(forecast, hours, settings.pool, settings.timezone)
    return dg.Definitions(
        assets=[replace_keys(asset, of_upstream) for asset in assets],
        jobs=[*define_jobs(forecast_jobs(forecast)), what_if_job(environment, forecast)],
        sensors=[forecast_stale(forecast, Alerts.of(settings), hours)],
    )


def judge(
    made: datetime, now: datetime, hours: int, is_alerted: bool
) -> tuple[Literal["forecast_stale", "forecast_fresh"] | None, str]:
    """Judge a forecast that a run last made, or confirmed, at the time `made`.

    Returns:
        the kind of alert to send, if any, and the sentence of it and of the tick.
    """
    age = now - made
    since = f"{made:%Y-%m-%d %H:%M} UTC, {format_duration(age.total_seconds())} ago"
    if age > timedelta(hours=hours):
        sentence = (
            f"The forecast was last made {since}; {hours} h are allowed (SERVERLESS_FORECAST_FRESH_HOURS). "
            "Launch serverless_pipeline; the latest runs show why it was not made."
        )
        return None if is_alerted else "forecast_stale", sentence
    return "forecast_fresh" if is_alerted else None, f"The forecast is fresh: made {since}."


def forecast_stale(forecast: ForecastDeclaration, alerts: Alerts, hours: int) -> dg.SensorDefinition:
    """Tells when the published forecast is older than its policy allows, and when it is fresh again."""

    @dg.sensor(
        name=f"{forecast.name}_stale",
        minimum_interval_seconds=SECONDS_BETWEEN_LOOKS_AT_FORECAST,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description=forecast_stale.__doc__,
    )
    def sensor(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        is_alerted = context.cursor == ALERTED
        made_at = next(_times_made(context.instance, forecast.asset), None)
        if made_at is None:
            return dg.SensorResult(
                skip_reason="There is no forecast yet: run serverless_pipeline once.", cursor=context.cursor
            )
        alert, sentence = judge(made_at, alerts.now(), hours, is_alerted)
        outcome = "An alert was sent before." if is_alerted and alert is None else ""
        if alert:
            is_stale = alert == "forecast_stale"
            title = f"{forecast.asset} is {'stale' if is_stale else 'fresh again'}"
            page = f"assets/{asset_key(forecast.asset).to_user_string()}"
            has_arrived, outcome = alerts.try_to_tell(alert, title, sentence, page)
            is_alerted = is_stale if has_arrived else is_alerted
        return dg.SensorResult(
            skip_reason=tick_text(sentence, outcome), cursor=ALERTED if is_alerted else NOT_ALERTED
        )

    return sensor


def _times_made(instance: dg.DagsterInstance, asset: str) -> Iterator[datetime]:
    """Yield when successful runs made the asset or confirmed it, the newest first. What a failed run made
    is not published."""
    cursor, more = None, True
    while more:
        page = instance.fetch_materializations(asset_key(asset), limit=MATERIALIZATIONS_A_PAGE, cursor=cursor)
        cursor, more = page.cursor, page.has_more
        run_ids = list({record.run_id for record in page.records})
        runs = instance.get_runs(dg.RunsFilter(run_ids=run_ids)) if run_ids else []
        successful = {run.run_id for run in runs if run.is_success}
        for record in page.records:
            if record.run_id in successful:
                yield datetime.fromtimestamp(record.timestamp, UTC)
