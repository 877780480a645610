"""All sensors, and which of them are on until somebody switches them in the UI."""

from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Protocol

import dagster as dg

from serverless_assets.automation.alerts import Alerts, Webhook
from serverless_assets.automation.run_alerts import recovered, run_failed
from serverless_assets.automation.source_updated import source_updated
from serverless_assets.ingestion.catalog import RawTable
from serverless_assets.ingestion.source import Source
from serverless_assets.publishing.run_lock import end_dead_runs
from serverless_assets.settings import Settings

SECONDS_BETWEEN_LOOKS_FOR_DEAD_RUNS = 15


class WatchedEnvironment(Protocol):
    """The parts of an environment that sensors use."""

    @property
    def source(self) -> Source: ...
    @property
    def first_month(self) -> date: ...


def sensors(
    environment: WatchedEnvironment,
    tables: Sequence[RawTable],
    settings: Settings,
) -> list[dg.SensorDefinition]:
    """Return all sensors but those of forecasts, which come with them.

    Those that alert are on; the one that launches follows SERVERLESS_AUTOMATION.
    """
    alerts = alerts_of(settings)
    on, off = dg.DefaultSensorStatus.RUNNING, dg.DefaultSensorStatus.STOPPED
    launching = on if settings.automation_is_on else off
    return [
        run_failed(alerts, on),
        recovered(alerts, on),
        dead_runs(settings.home, on),
        source_updated(environment.source, tables, environment.first_month, alerts, launching),
    ]


def alerts_of(settings: Settings) -> Alerts:
    """Return where the settings send alerts to."""
    webhook = Webhook(settings.alert_url) if settings.alert_url else None
    return Alerts(webhook, settings.alert_format, settings.environment, settings.ui_url)


def dead_runs(home: Path, status: dg.DefaultSensorStatus) -> dg.SensorDefinition:
    """Marks runs as failed whose processes have ended without finishing them, killed, say."""

    @dg.sensor(
        name="dead_runs",
        minimum_interval_seconds=SECONDS_BETWEEN_LOOKS_FOR_DEAD_RUNS,
        default_status=status,
        description=dead_runs.__doc__,
    )
    def sensor(context: dg.SensorEvaluationContext) -> dg.SkipReason:
        return dg.SkipReason(" ".join(end_dead_runs(home, context.instance)) or "No run has died.")

    return sensor
