"""The definitions of a forecast: its assets, its jobs, and the sensor that alerts when it is old."""

import dagster as dg

from serverless_assets.automation.jobs import define_jobs, forecast_jobs
from serverless_assets.automation.sensors import alerts_of, forecast_stale
from serverless_assets.automation.what_if import what_if_job
from serverless_assets.dagster_internals import replace_keys
from serverless_assets.environments import Environment
from serverless_assets.forecasting.assets import forecasting_assets
from serverless_assets.forecasting.declaration import ForecastDeclaration
from serverless_assets.settings import Settings


def forecast_definitions(
    declared: ForecastDeclaration, environment: Environment, settings: Settings
) -> dg.Definitions:
    """Return the definitions of a declared forecast; none in an environment that goes without it."""
    present = [forecast for forecast in environment.forecasts if forecast.name == declared.name]
    if not present:
        return dg.Definitions()
    [forecast] = present
    hours = settings.forecast_fresh_hours
    relation, upstream = dg.AssetKey(forecast.relation), forecast.upstream(environment.manifest)

    def of_upstream(key: dg.AssetKey) -> dg.AssetKey:
        # The asset of a model may have another name than its table.
        return upstream if upstream and key == relation else key

    assets = forecasting_assets(forecast, hours, settings.pool, settings.timezone)
    return dg.Definitions(
        assets=[replace_keys(asset, of_upstream) for asset in assets],
        jobs=[*define_jobs(forecast_jobs(forecast)), what_if_job(environment, forecast)],
        sensors=[forecast_stale(forecast, alerts_of(settings), hours, dg.DefaultSensorStatus.RUNNING)],
    )
