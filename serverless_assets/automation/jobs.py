"""The jobs: what people launch, each with a form that is filled in already."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import dagster as dg

from serverless_assets.forecasting.declaration import ForecastDeclaration
from serverless_assets.names import INGESTION, MAIN_JOB, REBUILD_TAG
from serverless_assets.run_inputs import RunInputs


def run_config(inputs: RunInputs) -> dg.RunConfig:
    """Run config that makes these choices."""
    return dg.RunConfig(resources={"run_inputs": inputs})


def prefill(
    rebuild: Literal["changed", "all"] = "changed",
    ingestion: Literal["reload", "reuse"] = "reload",
    cpu: str = "0.25",
    memory: str = "256",
) -> dict[str, Any]:
    """Run config with every choice written out, so that the launchpad opens on a form that shows what there
    is to choose: an object of the same choices would leave out those without fields."""
    chosen: dict[str, Any] = {
        "rebuild": rebuild,
        "deleted_models": "keep",
        "ingestion": {ingestion: {}},
        "forecast": {"run": {"cpu": cpu, "memory": memory, "style": {"default": {}}}},
    }
    return {"resources": {"run_inputs": {"config": chosen}}}


PREFILL = prefill()

EVERYTHING = dg.AssetSelection.all()


@dataclass(frozen=True)
class Job:
    """What a job runs, when to use it, and the form that it opens on."""

    selection: dg.AssetSelection
    description: str
    config: Mapping[str, Any]
    tags: Mapping[str, str] = field(default_factory=dict)


JOBS: Mapping[str, Job] = {
    MAIN_JOB: Job(EVERYTHING, "Load, transform, forecast and report.", PREFILL),
    "ingest": Job(dg.AssetSelection.groups(INGESTION), "Load the raw tables.", PREFILL),
    # By kind, not by folder: a model is in this job wherever its file is.
    "transform": Job(
        dg.AssetSelection.kind("dbt"),
        "Build and test the dbt models from the raw tables as they are.",
        PREFILL,
    ),
    # What people do often.
    "full_rebuild": Job(
        EVERYTHING,
        "Load, build and forecast everything again, changed or not: after rows were changed by hand, or when "
        "in doubt about what there is.",
        prefill(rebuild="all"),
        {REBUILD_TAG: "all"},
    ),
}


def forecast_jobs(forecast: ForecastDeclaration) -> Mapping[str, Job]:
    """Return the jobs of a forecast by name."""
    assets = dg.AssetSelection.assets(
        *forecast.assets, *dict.fromkeys(section.asset for section in forecast.sections)
    )
    return {
        forecast.name: Job(assets, "Forecast and report from the models as they are.", PREFILL),
        f"{forecast.name}_on_a_bigger_machine": Job(
            assets,
            "Forecast and report with 4 cores and 4 GiB: after a forecast ran out of memory or time, or for "
            "a horizon of years. A forecast that there is already is not made again.",
            prefill(cpu="4.0", memory="4096"),
        ),
    }


def define_jobs(jobs: Mapping[str, Job]) -> list[Any]:
    """Return the definitions of these jobs."""
    return [
        dg.define_asset_job(
            name, job.selection, description=job.description, config=dict(job.config), tags=job.tags
        )
        for name, job in jobs.items()
    ]
