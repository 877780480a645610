"""The code location: everything that Dagster loads, assembled."""

import warnings

import dagster as dg

from serverless_assets.annotations import annotate_assets
from serverless_assets.automation.jobs import jobs
from serverless_assets.automation.plan import plan_job
from serverless_assets.automation.schedules import schedules
from serverless_assets.automation.sensors import sensors
from serverless_assets.automation.what_if import what_if_job
from serverless_assets.dagster_internals import keep_sqlite_engines
from serverless_assets.environments import environment as build_environment
from serverless_assets.forecasting.assets import forecasting_assets, refuse_owned_name
from serverless_assets.forecasting.history import has_revenue
from serverless_assets.ingestion.assets import ingestion_assets
from serverless_assets.publishing.summary import pipeline_runs
from serverless_assets.run_inputs import RunInputs
from serverless_assets.settings import Settings
from serverless_assets.transformation.assets import transformation_assets

# The beta APIs in use: code references, backfill policies and data versions of assets. Dagster is pinned to a
# patch release, so an upgrade, not a run, is when to look at them again.
BETA_APIS = (
    "Class `(CodeReferencesMetadataValue|LocalFileCodeReference|UrlCodeReference)`",
    "Function `with_source_code_references`",
    "Parameter `backfill_policy` of function `asset`",
    "Parameter `data_version` of initializer `Output.__init__`",
)
for api in BETA_APIS:
    warnings.filterwarnings("ignore", f"{api} is currently in beta", dg.BetaWarning)


def build(settings: Settings) -> dg.Definitions:
    """The definitions of the environment that the settings name."""
    keep_sqlite_engines()
    environment, table = build_environment(settings), settings.forecast_table
    manifest = environment.project.read_manifest()
    raw_tables = environment.raw_tables
    has_forecast = has_revenue(manifest)
    forecasting: list[dg.AssetsDefinition] = []
    if has_forecast:
        refuse_owned_name(table, manifest)
        forecasting = forecasting_assets(
            table, settings.forecast_fresh_hours, settings.pool, settings.timezone
        )
    what_if = [what_if_job(environment, table)] if has_forecast else []
    assets = [
        ingestion_assets(raw_tables, environment.first_month, settings.pool),
        transformation_assets(environment.project, settings.pool),
        *forecasting,
    ]
    names = {key.to_user_string() for definition in assets for key in definition.keys}
    annotated = annotate_assets(assets, settings, environment.publisher.warehouse, manifest, raw_tables)
    return dg.Definitions(
        assets=[*annotated, pipeline_runs(settings.owner)],
        jobs=[*jobs(has_forecast), plan_job(environment, table), *what_if],
        schedules=schedules(
            raw_tables, settings.timezone, environment.first_month, settings.automation_is_on, has_forecast
        ),
        sensors=sensors(environment, raw_tables, settings, has_forecast),
        resources={**environment.resources(names), "run_inputs": RunInputs.configure_at_launch()},
        # One process a run: steps share the warehouse file, which admits one writing process, and a
        # process each would cost seconds a step.
        executor=dg.in_process_executor,
    )


@dg.definitions
def defs() -> dg.Definitions:
    return build(Settings.from_environ())
