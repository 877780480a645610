from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from serverless_assets.ingestion.source import HttpSource
from serverless_assets.months import Window
from serverless_assets.warehouse.duckdb import DuckDBWarehouse
from tests.ingestion.loads import FIRST, Ingestion
from tests.ingestion.shop import Shop, shop
from tests.raw_tables import RAW_ORDERS


@pytest.fixture
def lines() -> list[str]:
    return []


@pytest.fixture
def source():
    """A source that is asked without pauses."""

    def source(base_url: str, attempts: int = 3, **options: Any) -> HttpSource:
        quick = {"attempts": attempts, "first_pause_seconds": 0.0, "timeout_seconds": 10.0}
        return HttpSource(base_url, **{**quick, **options})

    return source


@pytest.fixture
def fetch(tmp_path: Path, lines: list[str], source):
    def fetch(base_url: str, window: Window | None = None, attempts: int = 3, **options: Any):
        path = tmp_path / "raw_orders.download"
        return source(base_url, attempts, **options).fetch(RAW_ORDERS, window, path, lines.append)

    return fetch


@pytest.fixture
def open_shop() -> Iterator[Shop]:
    with shop() as running:
        yield running


@pytest.fixture
def ingestion(open_shop: Shop, tmp_path: Path) -> Iterator[Ingestion]:
    # In memory: on disk, Dagster's own log takes seconds a run.
    with dg.DagsterInstance.ephemeral() as instance:
        warehouse = DuckDBWarehouse(tmp_path / "warehouse.duckdb", "dwh")
        yield Ingestion(warehouse, instance, HttpSource(open_shop.url))


@pytest.fixture
def loaded(ingestion: Ingestion, open_shop: Shop) -> Ingestion:
    """After one load of everything."""
    assert {one["reason"] for one in ingestion.run().values()} == {FIRST}
    open_shop.forget()
    return ingestion
