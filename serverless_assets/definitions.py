"""The code location: everything that Dagster loads, assembled."""

import dagster as dg

from serverless_assets.annotations import annotate_assets
from serverless_assets.asset_keys import asset_name, keys_of_others, with_key_prefix
from serverless_assets.automation.forecasts import forecast_definitions
from serverless_assets.automation.jobs import JOBS, define_jobs, schedules
from serverless_assets.automation.plan import plan_job
from serverless_assets.automation.sensors import sensors
from serverless_assets.dagster_internals import adapt_dagster
from serverless_assets.dagster_storage import adapt_storages
from serverless_assets.environments import environment as build_environment
from serverless_assets.forecasting.component import build_defs_folder
from serverless_assets.ingestion.assets import ingestion_assets
from serverless_assets.publishing.summary import pipeline_runs
from serverless_assets.python_assets.reuse import reuse_frames, without_left_out
from serverless_assets.settings import Settings
from serverless_assets.transformation.assets import transformation_assets
from serverless_assets.transformation.manifest import source_keys_of_others


def build(settings: Settings) -> dg.Definitions:
    """The definitions of the environment that the settings name."""
    adapt_dagster()
    adapt_storages()
    environment = build_environment(settings)
    manifest, first_month = environment.manifest, environment.first_month
    frames = environment.python_assets
    declared = build_defs_folder(lambda forecast: forecast_definitions(forecast, environment))
    of_others = {*keys_of_others(declared.assets or ()), *source_keys_of_others(manifest)}
    with_prefix = with_key_prefix(declared.assets or (), of_others)
    declared_assets = [*without_left_out(with_prefix, frames)]
    assets = [
        ingestion_assets(environment.raw_tables, first_month, settings.pool),
        transformation_assets(environment.project, first_month, settings.pool, environment.absent_tables),
        *declared_assets,
    ]
    asset_names = {asset_name(key) for asset in assets for key in asset.keys}
    annotated = annotate_assets(assets, environment)
    # Specifications of assets that other systems write.
    external = [asset for asset in with_prefix if not isinstance(asset, dg.AssetsDefinition)]
    return dg.Definitions(
        assets=[*reuse_frames(annotated, frames, settings.pool), *external, pipeline_runs(settings.owner)],
        asset_checks=with_key_prefix(declared.asset_checks or (), of_others),
        jobs=[*define_jobs(JOBS), plan_job(environment), *(declared.jobs or ())],
        schedules=[*schedules(environment), *(declared.schedules or ())],
        sensors=[*sensors(environment), *(declared.sensors or ())],
        resources={**environment.resources(asset_names), **(declared.resources or {})},
        # One process a run: the warehouse's file admits one that writes, and each would cost seconds a step.
        executor=dg.in_process_executor,
    )


@dg.definitions
def defs() -> dg.Definitions:
    return build(Settings.from_environ())
