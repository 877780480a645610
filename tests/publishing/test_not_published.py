"""What a run that is not published says."""

import logging

from serverless_assets.environments import environment
from serverless_assets.publishing.outcome import NOT_REACHED, AssetOutcome, PendingAssets
from serverless_assets.settings import Settings


def test_a_run_whose_tests_failed_says_what_readers_see(tmp_path, caplog):
    settings = Settings.from_environ({"SERVERLESS_HOME": str(tmp_path)})
    publisher = environment(settings).publisher
    (tmp_path / "work").mkdir()
    PendingAssets(tmp_path).replace(["customers"])
    failed = AssetOutcome("customers", "failed", "a test failed")
    assert not publisher.end("run-1", [failed], logging.getLogger("run"))
    assert "Not published: customers did not succeed." in caplog.text
    assert "What was published before stays as it is." in caplog.text


def test_a_run_that_is_not_published_names_what_failed_and_counts_what_waits_for_it(tmp_path, caplog):
    publisher = environment(Settings.from_environ({"SERVERLESS_HOME": str(tmp_path)})).publisher
    (tmp_path / "work").mkdir()
    PendingAssets(tmp_path).replace(["raw_orders", "orders", "customers"])
    outcomes = [
        AssetOutcome("raw_orders", "failed", "no connection"),
        AssetOutcome("orders", "skipped", NOT_REACHED),
        AssetOutcome("customers", "skipped", NOT_REACHED),
    ]
    assert not publisher.end("run-1", outcomes, logging.getLogger("run"))
    assert "Not published: raw_orders did not succeed, and 2 more assets are not finished." in caplog.text


def test_a_run_that_succeeds_beside_what_an_earlier_one_left_says_whose_assets_are_unfinished(
    tmp_path, caplog
):
    publisher = environment(Settings.from_environ({"SERVERLESS_HOME": str(tmp_path)})).publisher
    (tmp_path / "work").mkdir()
    PendingAssets(tmp_path).replace(["order_forecast"])
    assert not publisher.end(
        "run-2", [AssetOutcome("raw_orders", "reused", "unchanged")], logging.getLogger("run")
    )
    assert "Not published: an earlier run did not finish order_forecast." in caplog.text
