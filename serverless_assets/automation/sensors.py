"""All sensors, and which of them are on until somebody says otherwise in the UI."""

from datetime import date
from typing import Any, Protocol

import dagster as dg

from serverless_assets.automation.alerts import Alerts
from serverless_assets.automation.dead_runs import dead_runs
from serverless_assets.automation.declarative import changed_data
from serverless_assets.automation.forecast_stale import forecast_stale
from serverless_assets.automation.run_alerts import recovered, run_failed
from serverless_assets.automation.source_updated import source_updated
from serverless_assets.automation.webhook import Webhook
from serverless_assets.ingestion.source import Source
from serverless_assets.settings import Settings


class Parts(Protocol):
    """What of an environment the sensors look at."""

    @property
    def source(self) -> Source: ...
    @property
    def first_month(self) -> date: ...


def alerts_of(settings: Settings) -> Alerts:
    """Where the settings send alerts to."""
    webhook = Webhook(settings.alert_url) if settings.alert_url else None
    return Alerts(webhook, settings.alert_format, settings.environment, settings.ui_url)


def sensors(parts: Parts, settings: Settings) -> list[Any]:
    """Those that only tell are on; the one that launches runs is on where SERVERLESS_AUTOMATION is."""
    alerts = alerts_of(settings)
    on, off = dg.DefaultSensorStatus.RUNNING, dg.DefaultSensorStatus.STOPPED
    launching = on if settings.automation_is_on else off
    return [
        run_failed(alerts, on),
        recovered(alerts, on),
        forecast_stale(alerts, settings.forecast_fresh_hours, on),
        dead_runs(settings.home, on),
        source_updated(parts.source, parts.first_month, alerts, launching),
        changed_data(),
    ]
