"""The definitions of a forecast: its assets, its jobs, and the sensor that alerts when it is old."""

import dagster as dg

from serverless_assets.automation.jobs import define_jobs, forecast_jobs
from serverless_assets.automation.plan import PlannedEnvironment
from serverless_assets.automation.sensors import alerts_of, forecast_stale
from serverless_assets.automation.what_if import what_if_job
from serverless_assets.forecasting.assets import forecasting_assets
from serverless_assets.forecasting.declaration import ForecastDeclaration
from serverless_assets.settings import Settings


def forecast_definitions(
    declared: ForecastDeclaration, environment: PlannedEnvironment, settings: Settings
) -> dg.Definitions:
    """Return the definitions of a declared forecast; none in an environment that goes without it."""
    for forecast in environment.forecasts:
        if forecast.name == declared.name:
            hours = settings.forecast_fresh_hours
            return dg.Definitions(
                assets=forecasting_assets(forecast, hours, settings.pool, settings.timezone),
                jobs=[*define_jobs(forecast_jobs(forecast)), what_if_job(environment, forecast)],
                sensors=[
                    forecast_stale(forecast, alerts_of(settings), hours, dg.DefaultSensorStatus.RUNNING)
                ],
            )
    return dg.Definitions()
