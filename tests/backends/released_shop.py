"""A small shop on BigQuery: runs that write a few relations and files, and what people read of them."""

import logging
from dataclasses import replace
from typing import Any

from google.cloud import bigquery

from serverless_assets.publishing.bigquery import BigQueryPublisher
from serverless_assets.publishing.outcome import AssetOutcome
from serverless_assets.warehouse.bigquery import BigQueryWarehouse
from serverless_assets.warehouse.bigquery_release import RELEASES
from tests.backends.stock import ORDERS, STOCK, orders

ASSETS = ("raw_orders", "raw_items", "some_orders")
FILES = ("forecast.html", "forecast.parquet")
LOG: Any = logging.getLogger("run")


class Shop:
    """A publisher, and runs that write two tables, a view of one of them, and two files."""

    def __init__(self, publisher: BigQueryPublisher) -> None:
        self.publisher = publisher

    def run(self, number: int, failed: str | None = None, assets: tuple[str, ...] = ASSETS) -> bool:
        """Write rows that are all of the amount `number`; whether they were published."""
        self.publisher.begin(f"run-{number}", assets, ASSETS, LOG)
        try:
            self.write(number)
            outcomes = [
                AssetOutcome(asset, "failed" if asset == failed else "built", "a reason") for asset in assets
            ]
            return self.publisher.end(f"run-{number}", outcomes, LOG)
        finally:
            self.publisher.close()

    def write(self, number: int, elsewhere: BigQueryWarehouse | None = None) -> None:
        """What a run writes before it is published; one of the tables where else it is to be."""
        warehouse = self.publisher.warehouse
        for name, there in (("raw_orders", warehouse), ("raw_items", elsewhere or warehouse)):
            rows = orders(*[(id, at, number) for id, at, _ in STOCK])
            there.replace_rows(replace(ORDERS, name=name), rows, {"version": f"{name} {number}"})
        base, view = warehouse.quoted_name("raw_orders"), warehouse.quoted_name("some_orders")
        # Another view each time, with all rows of any release.
        warehouse.query(f"create or replace view {view} as select * from {base} where amount > -{number}")
        warehouse.write_states({"some_orders": {"version": f"view {number}"}})
        for name in FILES:
            self.publisher.artifacts.write(name, f"{name} {number}".encode())

    def publish(self, run: str) -> None:
        """A run of no asset, which publishes what is there."""
        self.publisher.begin(run, (), ASSETS, LOG)
        try:
            assert self.publisher.end(run, [], LOG)
        finally:
            self.publisher.close()

    def read(self) -> dict[str, Any]:
        """What people read: the amounts in each relation, and the files."""
        published = self.publisher.published
        amounts = {
            name: published.warehouse.query(
                f"select distinct amount from {published.warehouse.quoted_name(name)} order by amount"
            )["amount"].to_pylist()
            for name in ASSETS
        }
        return amounts | {name: published.artifacts.read(name) for name in FILES}


def release_of(number: int) -> dict[str, Any]:
    tables: dict[str, Any] = {name: [number] for name in ASSETS}
    return tables | {name: f"{name} {number}".encode() for name in FILES}


def table(shop: Shop, name: str) -> bigquery.Table:
    warehouse = shop.publisher.published.warehouse
    assert isinstance(warehouse, BigQueryWarehouse)
    return warehouse.relations()[name]


def releases(shop: Shop) -> list[str]:
    name = shop.publisher.published.warehouse.quoted_name(RELEASES)
    answer = shop.publisher.warehouse.query(f"select run_id from {name} order by published_at")
    return list(answer["run_id"].to_pylist())
