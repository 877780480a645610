"""Runs on real accounts, the whole pipeline compared with a laptop: they cost a little and leave the bucket.

Besides what the other live tests need, the pipeline takes Modal's token and a deployed worker.
"""

import os
from dataclasses import replace
from datetime import date
from pathlib import Path
from uuid import uuid4

import dagster as dg
import pytest

from serverless_assets.artifacts.gcs import GcsArtifacts
from serverless_assets.publishing.bigquery import BigQueryPublisher
from serverless_assets.publishing.lease import Lease
from serverless_assets.publishing.run_lock import AtWork
from serverless_assets.run_inputs import CustomisedStyle, RunForecast, RunInputs
from serverless_assets.sample_shop.api import create_app, serve
from serverless_assets.warehouse.bigquery import BigQueryWarehouse
from tests.backends.conftest import OUTSIDE, PARITY, Backend, delete_dataset, environment
from tests.backends.parity import compare
from tests.backends.released_shop import ASSETS, LOG, Shop, release_of, releases
from tests.backends.small_shop import SmallShop
from tests.backends.test_pipeline import run_once
from tests.conftest import SAMPLE_END

pytestmark = pytest.mark.live
EXECUTION_PROJECT = OUTSIDE.get("SERVERLESS_LIVE_EXECUTION_PROJECT", "")


@pytest.fixture
def live_shop(live_backend: Backend, tmp_path: Path) -> Shop:
    warehouse, bucket = live_backend.warehouse, live_backend.artifacts
    assert isinstance(warehouse, BigQueryWarehouse) and isinstance(bucket, GcsArtifacts)
    published = replace(warehouse, execution_project=EXECUTION_PROJECT)
    return Shop(
        BigQueryPublisher(tmp_path / "home", published, bucket.in_folder(f"{live_backend.prefix}shop"))
    )


def test_a_release_is_replaced_and_returned_to(live_shop: Shop) -> None:
    assert live_shop.run(1)
    assert not live_shop.run(2, failed="some_orders")
    assert live_shop.read() == release_of(1)
    assert live_shop.run(3)
    assert live_shop.read() == release_of(3)
    with dg.DagsterInstance.ephemeral() as instance:
        live_shop.publisher.rollback(None, instance, LOG)
    assert live_shop.read() == release_of(1)
    # Clones are tables, as dbt asks for types.
    relations = live_shop.publisher.warehouse.relations()
    assert {name: relations[name].table_type for name in ASSETS} == {
        "raw_orders": "TABLE", "raw_items": "TABLE", "some_orders": "VIEW"
    }  # fmt: skip
    assert releases(live_shop) == ["run-1", "run-3", "run-1"]


def test_a_run_of_another_home_waits_for_its_turn(live_shop: Shop, tmp_path: Path) -> None:
    live_shop.publisher.warehouse.prepare()
    other = Lease(live_shop.publisher.warehouse, tmp_path / "other", "run-2", LOG)
    other.check()
    with pytest.raises(AtWork, match=r"^Run run-2, process"):
        Lease(live_shop.publisher.warehouse, live_shop.publisher.home, "run-3", LOG, wait=False)
    other.release()
    assert live_shop.run(3)


def test_the_check_names_the_project_of_the_jobs_and_an_account(live_shop: Shop) -> None:
    warehouse = live_shop.publisher.warehouse
    assert warehouse.check().startswith(f"jobs run in {EXECUTION_PROJECT or warehouse.project} as ")


def test_the_whole_pipeline_ends_with_the_rows_that_a_laptop_has(tmp_path):
    project, bucket = OUTSIDE.get("SERVERLESS_LIVE_PROJECT"), OUTSIDE.get("SERVERLESS_LIVE_BUCKET")
    if not project or not bucket:
        pytest.skip("set SERVERLESS_LIVE_PROJECT and SERVERLESS_LIVE_BUCKET to test on the real services")
    unique = f"serverless_test_{uuid4().hex}"
    style = CustomisedStyle(forecast_file=f"{unique}.parquet", html_report=f"{unique}.html", nr_days_fcst=30)
    inputs = RunInputs(forecast=RunForecast(style=style))
    shop = SmallShop(end=date.fromisoformat(SAMPLE_END))
    with serve(create_app(lambda: shop)) as url, environment(OUTSIDE):
        source = {"SERVERLESS_DATASET_URL": url, "SERVERLESS_FIRST_MONTH": "2024-01", "DBT_SCHEMA": unique}
        live = {
            **os.environ,
            **source,
            "SERVERLESS_ENV": "gcp",
            "GOOGLE_CLOUD_PROJECT": project,
            "SERVERLESS_BUCKET": bucket,
            "SERVERLESS_EXECUTION_PROJECT": EXECUTION_PROJECT,
            "SERVERLESS_LOCATION": OUTSIDE.get("SERVERLESS_LIVE_LOCATION", "EU"),
        }
        for laptop in run_once(tmp_path / "laptop", source, inputs):
            for on_gcp in run_once(tmp_path / "gcp", live, inputs):
                try:
                    compared = list(compare(laptop.warehouse, on_gcp.warehouse))
                    PARITY.extend(map(str, compared))
                    assert [one.relation for one in compared if one.differences] == []
                    assert on_gcp.run(inputs).success
                    assert {found["status"] for found in on_gcp.summary["assets"].values()} == {"reused"}
                finally:
                    delete_dataset(on_gcp.warehouse)
                    files = on_gcp.parts.publisher.published.artifacts
                    for name in files.names(unique):
                        files.delete(name)
