"""`source_updated` against a source on a socket, with real ticks and real runs of the raw tables."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta

import dagster as dg
import pyarrow as pa
import pytest
from dagster._core.definitions.sensor_definition import SensorExecutionData

from serverless_assets.automation.alerts import NOT_SET, Alerts
from serverless_assets.automation.source_updated import source_updated
from serverless_assets.dagster_internals import ROOT_RUN_ID_TAG
from serverless_assets.ingestion.raw_table import RawTable
from serverless_assets.ingestion.rest_endpoint import read_endpoint
from serverless_assets.ingestion.source import HttpSource, Source
from serverless_assets.sample_shop import SampleSource
from tests.automation.conftest import at
from tests.automation.hook import Hook
from tests.conftest import Pipeline
from tests.ingestion.shop import Shop, order, shop
from tests.raw_tables import RAW_ITEMS, RAW_ORDERS, RAW_STORES, TABLES

RAW = {table.name for table in TABLES}
OFF = dg.DefaultSensorStatus.STOPPED
SUCCESS, STARTED = dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.STARTED
NOTHING = "Nothing changed at the source."


@dataclass
class World:
    """A shop that can close and open again, and the sensor that looks at it."""

    pipeline: Pipeline
    shop: Shop
    alerts: Alerts
    open: ExitStack
    cursor: str | None = None
    source: Source | None = None
    tables: Sequence[RawTable] = TABLES

    def close(self) -> None:
        self.open.close()

    def reopen(self) -> None:
        self.open.enter_context(shop(self.shop))

    def tick(self) -> SensorExecutionData:
        sensor = source_updated(
            self.source or HttpSource(self.shop.url), self.tables, date(2026, 9, 1), self.alerts, OFF
        )
        context = dg.build_sensor_context(
            self.pipeline.instance, self.cursor, definitions=self.pipeline.definitions
        )
        data = sensor.evaluate_tick(context)
        self.cursor = data.cursor
        return data

    def run(self, request: dg.RunRequest, **tags: str) -> dg.ExecuteInProcessResult:
        """What was asked for, of the raw tables: what follows from them takes seconds."""
        asked = [key.to_user_string() for key in request.asset_selection or []] or sorted(RAW)
        return self.pipeline.run(
            assets=[name for name in asked if name in RAW], tags={**request.tags, **tags}
        )

    def record(self, request: dg.RunRequest, status: dg.DagsterRunStatus) -> str:
        """A run as if it had been launched and had come so far; its id."""
        job = self.pipeline.definitions.resolve_job_def("ingest")
        return self.pipeline.instance.create_run_for_job(job, tags=dict(request.tags), status=status).run_id

    def settle(self) -> None:
        """Launch what there is, and have it succeed."""
        for request in self.tick().run_requests:
            self.record(request, SUCCESS)


@pytest.fixture
def world(place: Pipeline, webhook: Hook, instance: dg.DagsterInstance) -> Iterator[World]:
    with ExitStack() as stack:
        found = stack.enter_context(shop(Shop(url=str(place.settings.dataset_url))))
        yield World(at(place, instance), found, webhook.alerts, stack)


def keys(request: dg.RunRequest) -> set[str]:
    return {key.to_user_string() for key in request.asset_selection or []}


def months(request: dg.RunRequest) -> tuple[str | None, ...]:
    tags: Mapping[str, str] = request.tags
    return tuple(tags.get(f"dagster/asset_partition_range_{edge}") for edge in ("start", "end"))


def test_the_first_tick_launches_everything_and_the_next_ones_nothing(world):
    first = world.tick()
    (request,) = first.run_requests
    assert request.asset_selection is None and months(request) == (None, None)
    assert request.tags["serverless/reason"] == "First look at this source: everything is loaded."
    assert world.run(request).success
    world.shop.forget()
    ticks = [world.tick() for _ in range(3)]
    assert [(tick.run_requests, tick.skip_message) for tick in ticks] == [([], NOTHING)] * 3
    assert len(world.shop.asked) == 3 * len(TABLES) and not world.shop.served


def test_the_first_tick_after_runs_by_hand_launches_nothing_and_the_next_change_is_loaded(world):
    for name in RAW:
        world.pipeline.instance.report_runless_asset_event(dg.AssetMaterialization(name))
    first = world.tick()
    assert not first.run_requests
    assert first.skip_message.startswith("First look at this source: what changes from now on is loaded.")
    assert world.tick().skip_message == NOTHING
    world.shop.rows[RAW_STORES.name][0] = ("s1", "Philly", datetime(2024, 9, 1), 0.06)
    (request,) = world.tick().run_requests
    assert "raw_stores" in keys(request) and "raw_customers" not in keys(request)


@pytest.mark.parametrize("status", [403, 404, 405, 500])
def test_a_source_that_refuses_head_is_watched_by_get(world, status):
    world.shop.head_status = status
    world.settle()
    assert world.tick().skip_message == NOTHING
    world.shop.rows[RAW_STORES.name][0] = ("s1", "Philly", datetime(2024, 9, 1), 0.06)
    (request,) = world.tick().run_requests
    assert keys(request) & RAW == {RAW_STORES.name}


def test_a_table_that_the_source_does_not_have_is_loaded_once_it_is_there(world):
    world.shop.missing = {RAW_STORES.name}
    world.settle()
    assert world.tick().skip_message == NOTHING
    world.shop.missing = set()
    (request,) = world.tick().run_requests
    assert keys(request) & RAW == {RAW_STORES.name}


def test_a_late_order_launches_its_month_of_orders_and_items_and_all_that_follows_once(world):
    assert world.run(world.tick().run_requests[0]).success
    world.shop.rows[RAW_ORDERS.name].append(order("late", datetime(2026, 10, 3)))
    (request,) = world.tick().run_requests
    assert months(request) == ("2026-10-01", "2026-10-01")
    selected = keys(request)
    assert selected & RAW == {RAW_ORDERS.name, RAW_ITEMS.name}
    assert {"stg_orders", "orders", "daily_revenue", "order_forecast", "forecast_report"} <= selected
    assert not selected & {"stg_locations", "stg_products", "stg_supplies"}
    assert world.run(request).success
    assert world.pipeline.reason(RAW_ORDERS.name) == "loaded from the source: 2026-10"
    assert world.tick().skip_message == NOTHING


def test_months_and_tables_that_changed_together_are_loaded_by_one_run(world):
    world.settle()
    world.shop.rows[RAW_ORDERS.name] += [
        order("a", datetime(2026, 9, 3)),
        order("b", datetime(2026, 11, 3)),
    ]
    world.shop.rows[RAW_STORES.name][0] = ("s1", "Philly", datetime(2024, 9, 1), 0.06)
    (request,) = world.tick().run_requests
    assert months(request) == ("2026-09-01", "2026-11-01")
    assert {RAW_ORDERS.name, RAW_ITEMS.name, RAW_STORES.name, "order_forecast"} <= keys(request)
    waiting = world.record(request, STARTED)
    assert world.tick().skip_message == f"Run {waiting[:8]} is still loading the last change."
    world.pipeline.instance.delete_run(waiting)
    assert world.run(request).success
    assert world.tick().skip_message == NOTHING


def test_each_change_is_launched_once_back_and_forth(world):
    world.settle()
    stores, seen = world.shop.rows[RAW_STORES.name], set()
    for name in ("Philly", "Philadelphia", "Philly"):
        stores[0] = ("s1", name, datetime(2024, 9, 1), 0.06)
        (request,) = world.tick().run_requests
        assert keys(request) & RAW == {RAW_STORES.name}
        seen.add(request.run_key)
        world.record(request, SUCCESS)
        assert world.tick().skip_message == NOTHING
    assert len(seen) == 3


def test_a_source_that_ignores_the_window_has_its_fact_loaded_whole(world):
    world.shop.windows = False
    world.settle()
    world.shop.rows[RAW_ITEMS.name].append(("i", "o9", "p1"))
    (request,) = world.tick().run_requests
    assert (keys(request) & RAW, months(request)) == ({RAW_ITEMS.name}, (None, None))


def test_a_run_that_failed_is_not_launched_again_and_counts_once_it_was_re_executed(world):
    world.settle()
    stores = world.shop.rows[RAW_STORES.name]
    stores.append(stores[0])
    (request,) = world.tick().run_requests
    failed = world.run(request)
    assert not failed.success
    for _ in range(2):
        assert f"run {failed.run_id[:8]} did not succeed" in str(world.tick().skip_message)
    # A re-execution need not have the tags of the first.
    world.record(dg.RunRequest(tags={ROOT_RUN_ID_TAG: failed.run_id}), SUCCESS)
    assert world.tick().skip_message == NOTHING


def test_what_failed_is_taken_along_by_the_next_change(world):
    world.settle()
    stores = world.shop.rows[RAW_STORES.name]
    stores.append(stores[0])
    assert not world.run(world.tick().run_requests[0]).success
    world.shop.rows[RAW_ORDERS.name].append(order("late", datetime(2026, 10, 3)))
    stores[1] = ("s2", "Brooklyn", datetime(2025, 9, 1), 0.04)
    (request,) = world.tick().run_requests
    assert keys(request) & RAW == {RAW_STORES.name, RAW_ORDERS.name, RAW_ITEMS.name}
    assert world.run(request).success
    assert world.tick().skip_message == NOTHING


def test_a_run_that_waits_is_waited_for_and_one_that_was_cancelled_is_not_launched_again(world):
    world.settle()
    world.shop.rows[RAW_STORES.name][0] = ("s1", "Philly", datetime(2024, 9, 1), 0.06)
    (request,) = world.tick().run_requests
    run_id = world.record(request, STARTED)
    assert world.tick().skip_message == f"Run {run_id[:8]} is still loading the last change."
    world.pipeline.instance.report_run_canceled(world.pipeline.instance.get_run_by_id(run_id))
    assert f"run {run_id[:8]} did not succeed" in str(world.tick().skip_message)


def test_a_run_whose_record_was_deleted_is_launched_again(world):
    world.settle()
    world.shop.rows[RAW_STORES.name][0] = ("s1", "Philly", datetime(2024, 9, 1), 0.06)
    (request,) = world.tick().run_requests
    (again,) = world.tick().run_requests
    assert keys(again) == keys(request) and again.run_key != request.run_key


def test_another_source_is_looked_at_anew(world):
    world.settle()
    world.source = HttpSource(f"{world.shop.url}/elsewhere?token=s3cret")
    (request,) = world.tick().run_requests
    assert request.asset_selection is None
    assert "s3cret" not in str(world.cursor) and "127.0.0.1" not in str(world.cursor)


def test_a_source_without_validators_is_said_not_to_be_watched(world):
    world.shop.etags = False
    tick = world.tick()
    assert not tick.run_requests
    assert str(tick.skip_message).startswith(
        "The source cannot be watched. The source gives no ETag or Last-Modified for raw_customers,"
    )
    assert "nightly_refresh" in str(tick.skip_message)


def test_an_api_of_pages_is_not_asked_as_it_tells_only_of_the_first_one(world):
    endpoint = read_endpoint({"url": f"{world.shop.url}/visits"})
    visits = RawTable("raw_visits", "", {"id": pa.string()}, rest=endpoint)
    world.tables = [*TABLES, visits]
    world.settle()
    assert world.tick().skip_message == (
        f"{NOTHING} The source gives no ETag or Last-Modified for raw_visits: nightly_refresh loads what "
        "changes there."
    )
    assert "visits" not in world.shop.asked


def test_a_source_that_goes_away_and_comes_back_is_told_once_each_and_loses_nothing(world, webhook):
    world.settle()
    world.close()
    down = [world.tick() for _ in range(3)]
    assert not any(tick.run_requests for tick in down)
    assert "failed: no connection (connection refused). Gave up after 3 attempts. An alert was sent." in str(
        down[0].skip_message
    )
    assert str(down[2].skip_message).endswith("An alert was sent before.")
    assert webhook.kinds == ["source_down"]
    world.shop.rows[RAW_ORDERS.name].append(order("late", datetime(2026, 10, 3)))
    webhook.now += timedelta(minutes=7)
    world.reopen()
    back = world.tick()
    assert [months(request) for request in back.run_requests] == [("2026-10-01", "2026-10-01")]
    world.record(back.run_requests[0], SUCCESS)
    assert world.tick().skip_message == NOTHING
    assert webhook.kinds == ["source_down", "source_back"]
    assert webhook.told[1]["sentence"].endswith("answers again, after 7 min.")


def test_an_alert_that_does_not_arrive_is_sent_at_the_next_tick(world, webhook):
    world.settle()
    world.close()
    webhook.answers = [500] * 3
    assert "answered 500" in str(world.tick().skip_message)
    assert str(world.tick().skip_message).endswith("An alert was sent.")
    webhook.answers = [404]
    world.reopen()
    assert "answered 404" in str(world.tick().skip_message)
    assert str(world.tick().skip_message).startswith(NOTHING)
    assert webhook.kinds == ["source_down", "source_back"]


def test_without_a_webhook_the_tick_says_that_nobody_was_told(world):
    world.alerts = replace(world.alerts, webhook=None)
    world.close()
    assert NOT_SET in str(world.tick().skip_message)
    world.reopen()
    assert world.tick().run_requests


@pytest.mark.slow
def test_the_sample_shop_is_watched_from_one_server_to_the_next(world):
    days = [date(2026, 9, 20)]
    world.source = SampleSource(7, lambda: days[0])
    world.settle()
    assert world.tick().skip_message == NOTHING
    days[0] = date(2026, 9, 21)
    (request,) = world.tick().run_requests
    assert months(request) == ("2026-09-01", "2026-09-01")
