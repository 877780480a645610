"""What runs by the clock: off, unless SERVERLESS_AUTOMATION is on or somebody turns it on in the UI."""

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta

import dagster as dg

from serverless_assets.automation.jobs import PREFILL, prefill
from serverless_assets.automation.source_updated import month_tags
from serverless_assets.ingestion.catalog import RawTable
from serverless_assets.metadata import latest_materialization
from serverless_assets.names import MAIN_JOB, REASON_TAG

NOTHING_YET = "There is nothing to forecast from yet: run serverless_pipeline once."


def schedules(
    tables: Sequence[RawTable],
    timezone: str,
    first_month: date = date.min,
    is_on: bool = False,
    has_forecast: bool = True,
) -> list[dg.ScheduleDefinition]:
    """`nightly_refresh` at 02:00 and, if `has_forecast`, `daily_forecast` at 09:00."""
    status = dg.DefaultScheduleStatus.RUNNING if is_on else dg.DefaultScheduleStatus.STOPPED

    @dg.schedule(
        job_name=MAIN_JOB,
        cron_schedule="0 9 * * *",
        execution_timezone=timezone,
        default_status=status,
        description="Transform and forecast at 09:00 from the raw tables as they are.",
    )
    def daily_forecast(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        names = [table.name for table in tables]
        if names and not any(latest_materialization(context.instance, dg.AssetKey(name)) for name in names):
            return dg.SkipReason(NOTHING_YET)
        reason = "The daily forecast, from the raw tables as they are."
        # In the forecast's own horizon and colours, as the nightly refresh: both write the same table.
        return _request(context, prefill(ingestion="reuse"), {REASON_TAG: reason})

    @dg.schedule(
        job_name=MAIN_JOB,
        cron_schedule="0 2 * * *",
        execution_timezone=timezone,
        default_status=status,
        description="Load the current month and what is missing before it, transform and forecast, at 02:00.",
    )
    def nightly_refresh(context: dg.ScheduleEvaluationContext) -> dg.RunRequest:
        loaded = _last_month_of_facts(context.instance, tables)
        months = months_to_load(context.scheduled_execution_time, loaded, first_month)
        if months is None:
            return _request(
                context, PREFILL, {REASON_TAG: "The nightly refresh: nothing is loaded yet, so all."}
            )
        reason = f"The nightly refresh of {months[0]:%Y-%m} to {months[1]:%Y-%m}."
        return _request(context, PREFILL, {REASON_TAG: reason, **month_tags(*months)})

    return [daily_forecast, nightly_refresh] if has_forecast else [nightly_refresh]


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
        table: max(instance.get_materialized_partitions(dg.AssetKey(table.name)), default="")
        for table in tables
        if table.has_months
    }
    # The source may never have an optional one.
    loaded = [month for table, month in months.items() if month or not table.optional]
    return date.fromisoformat(min(loaded)) if loaded and all(loaded) else None
