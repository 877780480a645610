"""What a run that is not published says."""

import logging
from collections.abc import Sequence

import dagster as dg
import duckdb

from serverless_assets.environments import environment
from serverless_assets.publishing.layout import prepare_work_folder
from serverless_assets.publishing.local import LocalPublisher
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


def test_a_run_of_a_part_is_published_unless_an_earlier_one_left_half_of_its_work(tmp_path, caplog):
    publisher = LocalPublisher(tmp_path, "dwh")
    log = dg.get_dagster_logger()

    def run(run_id: str, assets: Sequence[str], written: str = "", failed: str = "") -> bool:
        publisher.begin(run_id, assets, ("raw_orders", "orders", "order_forecast"), log)
        if written:
            publisher.artifacts.write(f"{written}.html", run_id.encode())
        outcomes = [AssetOutcome(asset, "failed" if asset == failed else "built", "") for asset in assets]
        try:
            return publisher.end(run_id, outcomes, log)
        finally:
            publisher.close()

    prepare_work_folder(publisher.layout)
    with duckdb.connect(str(publisher.layout.working_warehouse)) as db:
        db.execute("create table raw_orders as select 1 as n")
    assert run("run-1", ["raw_orders", "orders"], written="orders")
    # The source does not answer: nothing was done, so that there is nothing to wait for.
    assert not run("run-2", ["raw_orders", "orders"], failed="raw_orders")
    assert run("run-3", ["order_forecast"], written="forecast")
    assert publisher.pending_assets.read() == {"raw_orders"}
    assert publisher.pending_before_publish() == set()
    assert not run("run-4", ["raw_orders", "orders"], written="orders", failed="raw_orders")
    assert publisher.pending_before_publish() == {"raw_orders"}
    caplog.clear()
    assert not run("run-5", ["order_forecast"], written="forecast")
    assert publisher.published.artifacts.read("forecast.html") == b"run-3"
    assert caplog.messages[-1].startswith("Not published: an earlier run did not finish raw_orders. ")
    assert caplog.messages[-1].endswith(
        "`serverless run --resume` does what is left, and publishes all of it."
    )
    assert run("run-6", ["raw_orders"])
    assert publisher.published.artifacts.read("forecast.html") == b"run-5"
