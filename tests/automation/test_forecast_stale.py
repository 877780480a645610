"""A stale forecast is told once, and once that it is fresh again."""

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import dagster as dg
import pytest

from serverless_assets.automation.alerts import NOT_SET, Alerts
from serverless_assets.automation.forecasts import forecast_stale, judge
from serverless_assets.forecasting.assets import forecasting_assets
from tests.automation.hook import NOW, Hook
from tests.conftest import SHOP


@dataclass
class World:
    """A forecast that is made when it is told to, and the sensor."""

    instance: dg.DagsterInstance
    alerts: Alerts
    cursor: str | None = None

    def forecast(self, run_succeeds: bool = True) -> None:
        @dg.asset
        def order_forecast() -> None: ...

        @dg.asset(deps=[order_forecast])
        def forecast_report() -> None:
            assert run_succeeds

        dg.materialize([order_forecast, forecast_report], instance=self.instance, raise_on_error=False)

    def tick(self) -> str:
        data = forecast_stale(SHOP, self.alerts, 36).evaluate_tick(
            dg.build_sensor_context(self.instance, self.cursor)
        )
        self.cursor = data.cursor
        return str(data.skip_message)


@pytest.fixture
def world(instance: dg.DagsterInstance, webhook: Hook) -> World:
    webhook.now = datetime.now(UTC)
    return World(instance, webhook.alerts)


def test_a_stale_spell_is_told_once_and_its_end_once(world, webhook):
    assert world.tick() == "There is no forecast yet: run serverless_pipeline once."
    world.forecast()
    assert world.tick().startswith("The forecast is fresh: made ")
    webhook.now += timedelta(hours=37)
    said = [world.tick() for _ in range(3)]
    assert said[0].endswith("An alert was sent.") and said[2].endswith("An alert was sent before.")
    (stale,) = webhook.told
    assert (stale["kind"], stale["link"]) == ("forecast_stale", "http://ui.example/assets/order_forecast")
    assert (
        "1 d 13 h ago; 36 h are allowed (SERVERLESS_FORECAST_FRESH_HOURS). Launch serverless"
        in stale["sentence"]
    )
    webhook.now = datetime.now(UTC)
    world.forecast()
    world.tick()
    world.tick()
    assert webhook.kinds == ["forecast_stale", "forecast_fresh"]
    webhook.now += timedelta(hours=37)
    world.tick()
    assert webhook.kinds == ["forecast_stale", "forecast_fresh", "forecast_stale"]


def test_a_forecast_that_a_failed_run_made_is_not_published(world, webhook):
    world.forecast(run_succeeds=False)
    assert world.tick() == "There is no forecast yet: run serverless_pipeline once."


def test_many_failed_runs_do_not_hide_the_last_green_one(world, monkeypatch):
    monkeypatch.setattr("serverless_assets.automation.forecasts.MATERIALIZATIONS_A_PAGE", 1)
    world.forecast()
    for _ in range(2):
        world.forecast(run_succeeds=False)
    assert world.tick().startswith("The forecast is fresh: made ")


def test_an_alert_that_does_not_arrive_is_sent_at_the_next_tick(world, webhook):
    world.forecast()
    webhook.now += timedelta(hours=37)
    webhook.answers = [404]
    assert "answered 404" in world.tick()
    assert world.tick().endswith("An alert was sent.") and webhook.kinds == ["forecast_stale"]


def test_without_a_webhook_the_tick_says_that_nobody_was_told(world, webhook):
    world.alerts = replace(world.alerts, webhook=None)
    world.forecast()
    webhook.now += timedelta(hours=37)
    world.alerts = replace(webhook.alerts, webhook=None)
    assert NOT_SET in world.tick()


@pytest.mark.parametrize(
    ("age", "is_alerted", "alert"),
    [
        (36, False, None),
        (36.1, False, "forecast_stale"),
        (36.1, True, None),
        (36, True, "forecast_fresh"),
    ],
)
def test_it_is_stale_beyond_its_hours_and_told_on_the_change(age, is_alerted, alert):
    assert judge(NOW - timedelta(hours=age), NOW, 36, is_alerted)[0] == alert


def test_the_policy_is_one_that_dagster_shows():
    order_forecast, *_ = forecasting_assets(SHOP, fresh_hours=36, pool="dwh", timezone="UTC")
    policy = order_forecast.specs_by_key[dg.AssetKey("order_forecast")].freshness_policy
    assert policy.fail_window.to_timedelta() == timedelta(hours=36)
