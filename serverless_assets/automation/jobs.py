"""The jobs: what people launch, each with a form that is filled in already, and what runs by the clock.

The schedules are off, unless SERVERLESS_AUTOMATION is on or somebody turns them on in the UI.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import partial, reduce
from operator import or_
from typing import Any, Literal

import dagster as dg

from serverless_assets.asset_keys import asset_key
from serverless_assets.dagster_internals import without_partitions
from serverless_assets.environments import Environment
from serverless_assets.forecasting.declaration import ForecastDeclaration
from serverless_assets.ingestion.raw_table import FORMATS, RawTable
from serverless_assets.metadata import latest_materialization
from serverless_assets.names import MAIN_JOB, RAW_TABLE_TAG, REASON_TAG
from serverless_assets.partitions import month_tags
from serverless_assets.run_inputs import RunInputs


def prefill(
    rebuild: Literal["changed", "all"] = "changed",
    ingestion: Literal["reload", "reuse"] = "reload",
    cpu: str = "0.25",
    memory: str = "256",
    only: Collection[str] = tuple(RunInputs.model_fields),
) -> dict[str, Any]:
    """Run config with the choices `only` written out, so that the launchpad opens on a form that shows what
    there is to choose: an object of the same choices would leave out those without fields."""
    chosen: dict[str, Any] = {
        "rebuild": rebuild,
        "deleted_models": "keep",
        "ingestion": {ingestion: {"dataset_url": ""} if ingestion == "reload" else {}},
        "forecast": {"run": {"cpu": cpu, "memory": memory, "style": {"default": {}}}},
    }
    form = {name: value for name, value in chosen.items() if name in only}
    return {"resources": {"run_inputs": {"config": form}}}


FULL_REBUILD = "full_rebuild"
PREFILL = prefill()
FORECAST_CHOICES = ("rebuild", "forecast")
EVERYTHING = dg.AssetSelection.all()
NOTHING_YET = "There is nothing to forecast from yet: run serverless_pipeline once."


@dataclass(frozen=True)
class Job:
    """What a job runs, when to use it, and the form that it opens on."""

    selection: dg.AssetSelection
    description: str
    config: Mapping[str, Any]


JOBS: Mapping[str, Job] = {
    MAIN_JOB: Job(EVERYTHING, "Load, transform, forecast and report.", PREFILL),
    "ingest": Job(
        # By tag, as the dbt project may choose the group; the value of the tag is the format.
        reduce(or_, (dg.AssetSelection.tag(RAW_TABLE_TAG, format) for format in FORMATS)),
        "Load the raw tables.",
        prefill(only=("rebuild", "ingestion")),
    ),
    # By kind, not by folder: a model is in this job wherever its file is.
    "transform": Job(
        dg.AssetSelection.kind("dbt"),
        "Build and test the dbt models from the raw tables as they are.",
        prefill(only=("rebuild", "deleted_models")),
    ),
    FULL_REBUILD: Job(
        EVERYTHING,
        "Load, build and forecast everything again, changed or not, for example after rows were edited by "
        "hand.",
        prefill(rebuild="all"),
    ),
}


def forecast_jobs(forecast: ForecastDeclaration) -> Mapping[str, Job]:
    """Return the jobs of a forecast by name."""
    assets = dg.AssetSelection.assets(
        *(asset_key(name) for name in [*forecast.assets, *(section.asset for section in forecast.sections)])
    )
    declared = (
        f"{forecast.title}: {forecast.time_grain.counted(forecast.horizon)} ahead in the table "
        f"{forecast.table}, {forecast.file} and {forecast.page}, unless the run config says otherwise."
    )
    return {
        forecast.name: Job(
            assets,
            f"Forecast and report from the models as they are. {declared}",
            prefill(only=FORECAST_CHOICES),
        ),
        f"{forecast.name}_on_a_bigger_machine": Job(
            assets,
            "Forecast and report with 4 cores and 4 GiB, for a horizon of years or after a forecast ran out "
            "of memory or time. An unchanged forecast is not made again.",
            prefill(cpu="4.0", memory="4096", only=FORECAST_CHOICES),
        ),
    }


def define_jobs(jobs: Mapping[str, Job]) -> list[Any]:
    """Return the definitions of these jobs."""
    return [
        without_partitions(
            dg.define_asset_job(name, job.selection, description=job.description, config=dict(job.config))
        )
        for name, job in jobs.items()
    ]


def schedules(environment: Environment) -> list[dg.ScheduleDefinition]:
    """`nightly_refresh` at 02:00 and, if there is a forecast, `daily_forecast` at 09:00."""
    settings, tables = environment.settings, environment.raw_tables
    status = (
        dg.DefaultScheduleStatus.RUNNING if settings.automation_is_on else dg.DefaultScheduleStatus.STOPPED
    )
    schedule = partial(
        dg.schedule, job_name=MAIN_JOB, execution_timezone=settings.timezone, default_status=status
    )

    @schedule(
        cron_schedule="0 9 * * *",
        description="Transform and forecast at 09:00 from the raw tables as they are.",
    )
    def daily_forecast(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        names = [table.name for table in tables]
        if names and not any(latest_materialization(context.instance, asset_key(name)) for name in names):
            return dg.SkipReason(NOTHING_YET)
        reason = "The daily forecast, from the raw tables as they are."
        # With the declared horizon and colours, as in the nightly refresh, which writes the same table.
        return _request(context, prefill(ingestion="reuse"), {REASON_TAG: reason})

    @schedule(
        cron_schedule="0 2 * * *",
        description="Load the current month and what is missing before it, transform and forecast, at 02:00.",
    )
    def nightly_refresh(context: dg.ScheduleEvaluationContext) -> dg.RunRequest:
        loaded = _last_month_of_facts(context.instance, tables)
        months = months_to_load(context.scheduled_execution_time, loaded, environment.first_month)
        if months is None:
            return _request(
                context,
                PREFILL,
                {REASON_TAG: "The nightly refresh: nothing is loaded yet, so everything is."},
            )
        reason = f"The nightly refresh of {months[0]:%Y-%m} to {months[1]:%Y-%m}."
        return _request(context, PREFILL, {REASON_TAG: reason, **month_tags(*months)})

    return [daily_forecast, nightly_refresh] if environment.forecasts else [nightly_refresh]


def months_to_load(now: datetime, last_loaded: date | None, first_month: date) -> tuple[date, date] | None:
    """Return the first and last month to load, or None to load the whole history: nothing was loaded yet.

    The last is the current month. The first is the last month that was loaded, so that missed nights are made
    up for, or the month of yesterday if that is earlier, so that the last day of a month is loaded once it is
    complete. Months begin at midnight UTC, as partitions do, in whatever time zone the schedule runs.
    """
    today = now.astimezone(UTC).date()
    current = today.replace(day=1)
    if last_loaded is None or current < first_month:
        return None
    yesterday = (today - timedelta(days=1)).replace(day=1)
    return max(min(yesterday, last_loaded), first_month.replace(day=1)), current


def _request(
    context: dg.ScheduleEvaluationContext, config: dict[str, object], tags: dict[str, str]
) -> dg.RunRequest:
    """Return one run for a day, also when a change of the clock repeats the hour."""
    context.log.info(tags[REASON_TAG])
    day: datetime = context.scheduled_execution_time
    return dg.RunRequest(run_key=day.date().isoformat(), run_config=config, tags=tags)


def _last_month_of_facts(instance: dg.DagsterInstance, tables: Sequence[RawTable]) -> date | None:
    """Return the last month up to which every fact is loaded; None if one of them was never loaded."""
    months = {
        table: max(instance.get_materialized_partitions(asset_key(table.name)), default="")
        for table in tables
        if table.has_months
    }
    # An optional table that was never loaded does not count.
    loaded = [month for table, month in months.items() if month or not table.optional]
    return date.fromisoformat(min(loaded)) if loaded and all(loaded) else None
