"""The whole pipeline on real accounts, compared with a laptop: it costs a little, and leaves just the bucket.

Besides what the other live tests need, Modal's token and a deployed worker.
"""

import os
from datetime import date
from uuid import uuid4

import pytest

from serverless_assets.run_inputs import CustomisedStyle, RunForecast, RunInputs
from serverless_assets.sample_shop.api import create_app, serve
from tests.backends.conftest import OUTSIDE, PARITY, delete_dataset, environment
from tests.backends.parity import compare
from tests.backends.small_shop import SmallShop
from tests.backends.test_pipeline import run_once
from tests.conftest import SAMPLE_END

pytestmark = pytest.mark.live


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
