"""What runs by the clock; off until somebody turns it on in the UI."""

import dagster as dg

from serverless_assets.automation.jobs import DAILY_FORECAST, MAIN_JOB, run_config


def schedules(timezone: str) -> list[dg.ScheduleDefinition]:
    """`daily_forecast`: every morning, the next 90 days from the raw tables as they are."""
    return [
        dg.ScheduleDefinition(
            name="daily_forecast",
            job_name=MAIN_JOB,
            cron_schedule="0 9 * * *",
            execution_timezone=timezone,
            run_config=run_config(DAILY_FORECAST),
            description="Transform and forecast 90 days at 09:00 from the raw tables as they are.",
        )
    ]
