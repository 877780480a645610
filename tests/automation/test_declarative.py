"""By conditions: what follows from changed data is requested once, and nothing from loading it again."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

import dagster as dg
import pytest

from serverless_assets.automation.declarative import changed_data
from serverless_assets.ingestion.tables import RAW_ORDERS, RAW_STORES, TABLES
from tests.automation.conftest import at
from tests.conftest import Pipeline
from tests.ingestion.shop import Shop, order, shop

RAW = [table.name for table in TABLES]
OF_ORDERS = {
    "stg_orders",
    "orders",
    "customers",
    "daily_revenue",
    "order_forecast",
    "forecast_report",
}
OF_STORES = {"stg_locations", "sum_revenue_per_city"}


@dataclass
class World:
    """The real definitions, and a small source."""

    pipeline: Pipeline
    shop: Shop
    cursor: str | None = None
    builds: int = 0

    def tick(self) -> set[str]:
        """What is requested, of one run."""
        context = dg.build_sensor_context(
            self.pipeline.instance, self.cursor, definitions=self.pipeline.definitions
        )
        data = changed_data().evaluate_tick(context)
        self.cursor = data.cursor
        assert len(data.run_requests) <= 1
        return {
            key.to_user_string() for request in data.run_requests for key in request.asset_selection or []
        }

    def load(self, *tables: str, months: tuple[str, str] | None = None) -> None:
        edges = dict(zip(("start", "end"), months or (), strict=False))
        tags = {f"dagster/asset_partition_range_{edge}": f"{month}-01" for edge, month in edges.items()}
        assert self.pipeline.run(assets=tables or RAW, tags=tags).success

    def say(self, table: str, version: str, status: str, month: str | None = None) -> None:
        """That a raw table, or a month of it, was loaded or found unchanged."""
        tags = {"dagster/data_version": version}
        event = dg.AssetMaterialization(table, partition=month, metadata={"status": status}, tags=tags)
        self.pipeline.instance.report_runless_asset_event(event)

    def build(self, requested: set[str]) -> None:
        """What was requested, as if dbt and the forecast had run: with data versions of its own."""
        self.builds += 1
        for asset in requested:
            tags = {"dagster/data_version": f"{asset} {self.builds}"}
            event = dg.AssetMaterialization(asset, tags=tags)
            self.pipeline.instance.report_runless_asset_event(event)


@pytest.fixture
def world(place: Pipeline, instance: dg.DagsterInstance) -> Iterator[World]:
    with shop(Shop(url=str(place.settings.dataset_url))) as source:
        pipeline = at(place, instance)
        yield World(pipeline, source)


def test_another_data_version_is_followed_by_all_that_depends_on_it_once(world):
    assert world.tick() == set()
    world.say(RAW_STORES.name, "1", "built")
    requested = world.tick()
    assert requested >= OF_STORES and not requested & {"stg_orders", *RAW}
    assert world.tick() == set()
    world.build(requested)
    for status in ("reused", "built"):
        world.say(RAW_STORES.name, "1", status)
    assert world.tick() == set()
    # The parent has partitions, and its children have none.
    world.say(RAW_ORDERS.name, "2026-10 changed", "built", month="2026-10-01")
    requested = world.tick()
    assert requested >= OF_ORDERS and "stg_locations" not in requested
    world.build(requested)
    world.say(RAW_ORDERS.name, "as it was, in another span", "reused", month="2026-10-01")
    assert world.tick() == set()


@pytest.mark.slow
def test_data_that_the_source_changed_is_followed_by_everything_that_depends_on_it_once(world):
    assert world.tick() == set()
    world.load()
    everything = world.tick()
    assert everything >= OF_ORDERS | OF_STORES and not everything & set(RAW)
    world.build(everything)
    assert [world.tick() for _ in range(2)] == [set(), set()]

    # The same again, whole and by name: another materialization, the same data.
    world.load()
    assert world.tick() == set()

    world.shop.rows[RAW_STORES.name][0] = ("s1", "Philly", datetime(2024, 9, 1), 0.06)
    world.load(RAW_STORES.name)
    requested = world.tick()
    assert requested >= OF_STORES and "stg_orders" not in requested
    world.build(requested)
    assert world.tick() == set()

    # A month that is as it was, in another span than it was loaded in.
    world.load(RAW_ORDERS.name, months=("2026-09", "2026-09"))
    assert world.tick() == set()

    # A month of a fact, whose parents are partitioned and children are not.
    world.shop.rows[RAW_ORDERS.name].append(order("late", datetime(2026, 10, 3)))
    world.load(RAW_ORDERS.name, months=("2026-10", "2026-10"))
    requested = world.tick()
    assert requested >= OF_ORDERS and "stg_locations" not in requested
    world.build(requested)
    assert world.tick() == set()
    world.load(RAW_ORDERS.name, months=("2026-10", "2026-10"))
    assert world.tick() == set()

    # A run of everything leaves nothing to request.
    world.shop.rows[RAW_ORDERS.name].append(order("later", datetime(2026, 11, 3)))
    world.load(RAW_ORDERS.name)
    world.build(everything)
    assert world.tick() == set()


def test_the_sensor_is_off_and_has_the_derived_assets_for_its_target(world):
    sensor = changed_data()
    assert sensor.default_status == dg.DefaultSensorStatus.STOPPED
    target = sensor.asset_selection.resolve(world.pipeline.definitions.resolve_asset_graph())
    names = {key.to_user_string() for key in target}
    assert names >= OF_ORDERS | OF_STORES and not names & set(RAW)
