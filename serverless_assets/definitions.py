"""The code location: everything that Dagster loads, assembled."""

import warnings

import dagster as dg

from serverless_assets.annotations import annotate_assets
from serverless_assets.automation.jobs import JOBS, define_jobs, forecast_jobs, schedules
from serverless_assets.automation.plan import plan_job
from serverless_assets.automation.sensors import alerts_of, forecast_stale, sensors
from serverless_assets.automation.what_if import what_if_job
from serverless_assets.dagster_internals import allow_runs_without_partition, keep_sqlite_engines
from serverless_assets.environments import environment as build_environment
from serverless_assets.forecasting.assets import forecasting_assets
from serverless_assets.forecasting.component import build_defs_folder
from serverless_assets.forecasting.conflicts import refuse_owned_tables
from serverless_assets.forecasting.declaration import ForecastDeclaration
from serverless_assets.ingestion.assets import ingestion_assets
from serverless_assets.publishing.summary import pipeline_runs
from serverless_assets.python_assets.pandas_tables import pandas_tables
from serverless_assets.python_assets.reuse import is_frame, reuse_unchanged
from serverless_assets.run_inputs import RunInputs
from serverless_assets.settings import Settings
from serverless_assets.transformation.assets import asset_names, transformation_assets

# The beta APIs in use: code references, backfill policies, data versions of assets, owners of sensors.
# Dagster is pinned to a patch release, so an upgrade, not a run, is when to look at them again.
BETA_APIS = (
    "Class `(CodeReferencesMetadataValue|LocalFileCodeReference|UrlCodeReference)`",
    "Function `with_source_code_references`",
    "Parameter `backfill_policy` of function `asset`",
    "Parameter `data_version` of initializer `Output.__init__`",
    "Parameter `owners` of initializer `SensorDefinition.__init__`",
)
for api in BETA_APIS:
    warnings.filterwarnings("ignore", f"{api} is currently in beta", dg.BetaWarning)


def build(settings: Settings) -> dg.Definitions:
    """The definitions of the environment that the settings name."""
    keep_sqlite_engines()
    allow_runs_without_partition()
    environment = build_environment(settings)
    manifest, raw_tables = environment.project.read_manifest(), environment.raw_tables
    forecasts = {forecast.name: forecast for forecast in environment.forecasts}
    frames = {frame.name: frame for frame in environment.python_assets}
    alerts, fresh_hours = alerts_of(settings), settings.forecast_fresh_hours

    def forecast_definitions(declared: ForecastDeclaration) -> dg.Definitions:
        forecast = forecasts.get(declared.name)
        if forecast is None:
            return dg.Definitions()
        return dg.Definitions(
            assets=forecasting_assets(forecast, fresh_hours, settings.pool, settings.timezone),
            jobs=[*define_jobs(forecast_jobs(forecast)), what_if_job(environment, forecast)],
            sensors=[forecast_stale(forecast, alerts, fresh_hours, dg.DefaultSensorStatus.RUNNING)],
        )

    declared = build_defs_folder(forecast_definitions)
    assets = [
        ingestion_assets(raw_tables, environment.first_month, settings.pool),
        transformation_assets(environment.project, environment.first_month, settings.pool),
        *(
            asset
            for asset in declared.assets or ()
            if isinstance(asset, dg.AssetsDefinition)
            and (not is_frame(asset) or asset.key.to_user_string() in frames)
        ),
    ]
    external = [asset for asset in declared.assets or () if not isinstance(asset, dg.AssetsDefinition)]
    names = {key.to_user_string() for definition in assets for key in definition.keys}
    of_forecasts = {name for forecast in forecasts.values() for name in forecast.assets}
    models = set(asset_names(manifest).values()) | {table.name for table in raw_tables}
    refuse_owned_tables(environment.forecasts, manifest, names - of_forecasts - models)
    warehouse = environment.publisher.warehouse
    annotated = annotate_assets(
        assets, settings, warehouse, manifest, raw_tables, environment.forecasts, frames
    )
    reusing = [
        reuse_unchanged(asset, frames[asset.key.to_user_string()], settings.pool)
        if is_frame(asset)
        else asset
        for asset in annotated
    ]
    return dg.Definitions(
        assets=[*reusing, *external, pipeline_runs(settings.owner)],
        asset_checks=declared.asset_checks,
        jobs=[*define_jobs(JOBS), plan_job(environment), *(declared.jobs or ())],
        schedules=[
            *schedules(
                raw_tables,
                settings.timezone,
                environment.first_month,
                settings.automation_is_on,
                bool(forecasts),
            ),
            *(declared.schedules or ()),
        ],
        sensors=[*sensors(environment, raw_tables, settings), *(declared.sensors or ())],
        resources={
            **environment.resources(names),
            "run_inputs": RunInputs.configure_at_launch(),
            "pandas": pandas_tables,
            **(declared.resources or {}),
        },
        # One process a run: steps share the warehouse file, which admits one writing process, and a
        # process each would cost seconds a step.
        executor=dg.in_process_executor,
    )


@dg.definitions
def defs() -> dg.Definitions:
    return build(Settings.from_environ())
