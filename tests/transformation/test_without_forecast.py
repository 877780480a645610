"""The code location of a team whose dbt project has nothing that is forecast."""

import dagster as dg
import pytest

from serverless_assets.automation.plan import dry_run
from serverless_assets.definitions import build
from serverless_assets.environments import environment
from serverless_assets.names import MAIN_JOB
from serverless_assets.run_inputs import RunForecast, RunInputs, SkipForecast
from serverless_assets.settings import Settings
from tests.transformation.team import Team

pytestmark = pytest.mark.slow

# A model of this name is the team's own, as there is no forecast to take it.
MODELS = {"models/order_forecast.sql": "{{ config(materialized='table') }} select 1 as one"}


@pytest.mark.parametrize("forecast", [RunForecast(), SkipForecast()])
def test_a_project_without_daily_revenue_plans_runs_and_publishes(team: Team, forecast):
    team.write(MODELS)
    settings = Settings.from_environ(
        {
            "SERVERLESS_HOME": str(team.home),
            "SERVERLESS_DBT_PROJECT": str(team.directory),
        }
    )
    inputs = RunInputs(forecast=forecast)
    planned = {one.asset: one.verdict for one in dry_run(environment(settings), inputs)}
    assert planned["order_forecast"] == "build"
    assert not {"store_forecast", "forecast_accuracy", "forecast_report"} & planned.keys()
    definitions = build(settings)
    dg.Definitions.validate_loadable(definitions)
    assert "forecast" not in {job.name for job in definitions.resolve_all_job_defs()}
    run = definitions.resolve_job_def(MAIN_JOB).execute_in_process(
        run_config=dg.RunConfig(resources={"run_inputs": inputs}), instance=team.instance
    )
    assert run.success
    assert (team.home / "warehouse.duckdb").exists()
