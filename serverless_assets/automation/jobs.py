"""The jobs: what people launch, each with a form that is filled in already."""

from typing import Any

import dagster as dg

from serverless_assets.run_inputs import CustomisedStyle, Reuse, RunForecast, RunInputs

MAIN_JOB = "serverless_pipeline"


def run_config(inputs: RunInputs) -> dg.RunConfig:
    """Run config that makes these choices."""
    return dg.RunConfig(resources={"run_inputs": inputs})


# Every choice written out, so that the launchpad opens on a form that shows what there is to choose:
# an object of the same choices would leave out those without fields.
PREFILL = {
    "resources": {
        "run_inputs": {
            "config": {
                "rebuild": "changed",
                "ingestion": {"reload": {}},
                "forecast": {"run": {"cpu": "0.25", "memory": "256", "style": {"default": {}}}},
            }
        }
    }
}

DAILY_FORECAST = RunInputs(
    ingestion=Reuse(),
    forecast=RunForecast(
        cpu="0.25",
        memory="256",
        style=CustomisedStyle(color_history="blue", color_prediction="orange", nr_days_fcst=90),
    ),
)


def jobs() -> list[Any]:
    """The whole pipeline, and each of its parts by itself."""
    parts = {
        MAIN_JOB: (dg.AssetSelection.all(), "Load, transform, forecast and report."),
        "ingest": (dg.AssetSelection.groups("ingestion"), "Load the raw tables."),
        "transform": (
            dg.AssetSelection.groups("staging", "marts", "aggregations"),
            "Build and test the dbt models from the raw tables as they are.",
        ),
        "forecast": (
            dg.AssetSelection.groups("forecasting"),
            "Forecast and report from the models as they are.",
        ),
    }
    return [
        dg.define_asset_job(name, selection, description=description, config=PREFILL)
        for name, (selection, description) in parts.items()
    ]
