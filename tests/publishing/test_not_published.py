"""What a run that failed says of what people read now: it differs between the warehouses."""

import logging

import pytest

from serverless_assets.environments import environment
from serverless_assets.publishing.outcome import NOT_REACHED, AssetOutcome
from serverless_assets.publishing.publisher import PendingAssets
from serverless_assets.settings import Settings

GCP = {
    "SERVERLESS_ENV": "gcp",
    "SERVERLESS_COMPUTE": "subprocess",
    "GOOGLE_CLOUD_PROJECT": "my-shop",
    "SERVERLESS_BUCKET": "my-shop-forecasts",
}
NOT_HELD_BACK = "is live all the same, also tables whose tests failed: nothing is held back on BigQuery."


@pytest.mark.parametrize(
    ("variables", "sentence"), [({}, "What was published before stays as it is."), (GCP, NOT_HELD_BACK)]
)
def test_a_run_whose_tests_failed_says_what_readers_see(tmp_path, caplog, variables, sentence):
    settings = Settings.from_environ({"SERVERLESS_HOME": str(tmp_path), **variables})
    publisher = environment(settings).publisher
    (tmp_path / "work").mkdir()
    PendingAssets(tmp_path).add(["customers"])
    failed = AssetOutcome("customers", "failed", "a test failed")
    assert not publisher.end("run-1", [failed], logging.getLogger("run"))
    assert "Not published: customers did not succeed." in caplog.text
    assert sentence in caplog.text


def test_a_run_that_is_not_published_names_what_failed_and_counts_what_waits_for_it(tmp_path, caplog):
    publisher = environment(Settings.from_environ({"SERVERLESS_HOME": str(tmp_path)})).publisher
    (tmp_path / "work").mkdir()
    PendingAssets(tmp_path).add(["raw_orders", "orders", "customers"])
    outcomes = [
        AssetOutcome("raw_orders", "failed", "no connection"),
        AssetOutcome("orders", "skipped", NOT_REACHED),
        AssetOutcome("customers", "skipped", NOT_REACHED),
    ]
    assert not publisher.end("run-1", outcomes, logging.getLogger("run"))
    assert "Not published: raw_orders did not succeed, and 2 more are not finished." in caplog.text


def test_a_run_that_succeeds_beside_what_an_earlier_one_left_says_whose_assets_are_unfinished(
    tmp_path, caplog
):
    publisher = environment(Settings.from_environ({"SERVERLESS_HOME": str(tmp_path)})).publisher
    (tmp_path / "work").mkdir()
    PendingAssets(tmp_path).add(["order_forecast"])
    assert not publisher.end(
        "run-2", [AssetOutcome("raw_orders", "reused", "unchanged")], logging.getLogger("run")
    )
    assert "Not published: an earlier run did not finish order_forecast." in caplog.text
