"""Which sensors there are, and which are on."""

from types import SimpleNamespace

import pytest

from serverless_assets.automation.alerts import Alerts
from serverless_assets.automation.sensors import sensors
from serverless_assets.settings import Settings
from tests.raw_tables import TABLES


@pytest.mark.parametrize(("automation", "status"), [("off", "STOPPED"), ("on", "RUNNING")])
def test_what_only_tells_is_on_and_what_launches_as_it_is_set(automation, status):
    settings = Settings.from_environ({"SERVERLESS_AUTOMATION": automation})
    # To make them asks nobody anything.
    unreachable = SimpleNamespace(settings=settings, source=None, raw_tables=TABLES, first_month=None)
    assert {sensor.name: sensor.default_status.value for sensor in sensors(unreachable)} == {
        "run_failed": "RUNNING",
        "recovered": "RUNNING",
        "dead_runs": "RUNNING",
        "source_updated": status,
    }


def test_alerts_go_where_the_settings_say():
    found = Alerts.of(
        Settings.from_environ(
            {
                "SERVERLESS_ALERT_URL": "https://hooks.example/secret",
                "SERVERLESS_ALERT_FORMAT": "json",
                "SERVERLESS_UI_URL": "https://dagster.example/",
            }
        )
    )
    assert (found.webhook.host, found.form, found.ui_url) == (
        "hooks.example",
        "json",
        "https://dagster.example",
    )
    assert "secret" not in repr(found)
    assert Alerts.of(Settings.from_environ({})).webhook is None
