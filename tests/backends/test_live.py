"""What is asked of real accounts, and costs a little: `make test-live`. Without accounts, it is skipped.

The pipeline takes Modal's token and a deployed worker besides. What is asked where:

    promise of docs/cloud.md                        on real services
    tables and files are written as on a laptop     test_warehouse, test_artifacts
    rows are counted after each load and merge      test_warehouse, test_release (rows lost since the build)
    a run that failed changes nothing people read   test_release
    what people set on a table survives             test_release: labels, descriptions
    exactly one release can be read                 test_release (copies), here (as of its time)
    a dataset of other kinds, or earlier versions   test_release
    rollback and forward, copies that are kept      test_rollback
    machines take turns                             here
    execution project, location, account            here
    the same rows as on a laptop, nothing twice     here

What needs a service to fail, to be slow, or to be stopped at a request (kills, outages, lost answers, readers
within a burst, silent servers, refused impersonation) is asked of the emulators alone, through a proxy. What
a replacement keeps of row policies, policy tags, KMS keys and partition filters needs an organisation's
set-up: the statements are asserted, in test_release.
"""

import os
import re
from datetime import date
from pathlib import Path
from uuid import uuid4

import pytest

from serverless_assets.project_root import PROJECT_ROOT
from serverless_assets.publishing.lease import Lease
from serverless_assets.publishing.run_lock import AtWork
from serverless_assets.run_inputs import CustomisedStyle, RunForecast, RunInputs
from serverless_assets.sample_shop.api import create_app, serve
from serverless_assets.warehouse.bigquery_release import RELEASES
from tests.backends.conftest import (
    EXECUTION_PROJECT,
    OUTSIDE,
    PARITY,
    delete_dataset,
    environment,
    on_real_services,
)
from tests.backends.parity import compare
from tests.backends.released_shop import LOG, Shop
from tests.backends.small_shop import SmallShop
from tests.backends.stock import STOCK
from tests.backends.test_pipeline import run_once
from tests.conftest import SAMPLE_END


@on_real_services
def test_tables_of_one_release_are_read_as_of_its_time_as_the_documentation_shows(shop: Shop) -> None:
    """No emulator keeps what a table held before it was replaced by a clone."""
    example = re.search(
        r"^ +(declare release .*\n) +(select .*)$", (PROJECT_ROOT / "docs" / "cloud.md").read_text(), re.M
    )
    assert example
    read = shop.publisher.published.warehouse
    script = example[1] + example[2].replace("customer_id", "id").replace("*", "raw_orders.amount")
    for documented, here in {"customers": "raw_items", "orders": "raw_orders"}.items():
        script = re.sub(rf"\bdwh\.{documented}\b", read.quoted_name(here), script)
    script = script.replace("dwh.serverless_releases", read.quoted_name(RELEASES))
    assert shop.run(1)
    assert shop.run(2)
    for release, amount in (("max(", 2), ("min(", 1)):
        rows = read.query(script.replace("max(", release))
        assert rows["amount"].to_pylist() == [amount] * len(STOCK)


@on_real_services
def test_a_run_of_another_home_waits_for_its_turn(shop: Shop, tmp_path: Path) -> None:
    shop.publisher.warehouse.prepare()
    other = Lease(shop.publisher.warehouse, tmp_path / "other", "run-2", LOG)
    other.check()
    with pytest.raises(AtWork, match=r"^Run run-2, process"):
        Lease(shop.publisher.warehouse, shop.publisher.home, "run-3", LOG, wait=False)
    other.release()
    assert shop.run(3)


@on_real_services
def test_the_check_names_the_project_of_the_jobs_and_an_account(shop: Shop) -> None:
    warehouse = shop.publisher.warehouse
    assert warehouse.check().startswith(f"jobs run in {EXECUTION_PROJECT or warehouse.project} as ")


@pytest.mark.live
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
