"""The way back to an earlier release on BigQuery: tables, views and files together, at any kill."""

import logging
import threading
import warnings
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import dagster as dg
import pytest
import requests

from serverless_assets.errors import UserError
from serverless_assets.publishing.releases import ReleaseError
from serverless_assets.warehouse import WarehouseError
from serverless_assets.warehouse.bigquery import BigQueryWarehouse
from serverless_assets.warehouse.bigquery_history import read_releases
from serverless_assets.warehouse.bigquery_release import RELEASES
from tests.backends.conftest import Google, everywhere
from tests.backends.released_shop import ASSETS, FILES, LOG, Shop, release_of, releases
from tests.backends.stock import STOCK
from tests.backends.watched import DENIED, is_swap, watching
from tests.services.proxy import Answer, Asked


@pytest.fixture(scope="module")
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as found:
        yield found


@everywhere
def test_a_rollback_returns_all_of_a_release_and_the_next_run_continues_from_it(
    shop: Shop, instance: dg.DagsterInstance
) -> None:
    assert shop.run(1)
    assert shop.run(2)
    newest, first = shop.publisher.releases()
    assert newest.changed == ["forecast.html", "forecast.parquet", "raw_items", "raw_orders", "some_orders"]
    assert newest.is_kept
    assert first.is_kept
    shop.publisher.rollback(None, instance, LOG)
    assert shop.read() == release_of(1)
    # What runs write to is as it was, too: nothing of the second run is published again.
    shop.publisher.begin("run-3", (), ASSETS, LOG)
    assert shop.publisher.warehouse.read_states()["raw_orders"] == {"version": "raw_orders 1"}
    assert shop.publisher.end("run-3", [], LOG)
    shop.publisher.close()
    assert shop.read() == release_of(1)
    shop.publisher.rollback("run-2", instance, LOG)
    assert shop.read() == release_of(2)
    assert shop.run(4)
    assert shop.read() == release_of(4)
    assert releases(shop) == ["run-1", "run-2", "run-1", "run-2", "run-4"]
    # Clones are tables, as dbt asks for types.
    relations = shop.publisher.warehouse.relations()
    assert [relations[name].table_type for name in ASSETS] == ["TABLE", "TABLE", "VIEW"]


@everywhere
def test_a_rollback_gives_up_what_a_run_left_unfinished(
    shop: Shop, instance: dg.DagsterInstance, caplog: pytest.LogCaptureFixture
) -> None:
    assert shop.run(1)
    assert shop.run(2)
    assert not shop.run(3, failed="some_orders")
    # As if the run's process had been killed.
    instance.add_run(dg.DagsterRun("ingest", "killed-3", status=dg.DagsterRunStatus.STARTED))
    file = shop.publisher.home / "running" / "killed-3.json"
    file.parent.mkdir(exist_ok=True)
    file.touch()
    with caplog.at_level(logging.INFO):
        shop.publisher.rollback("run-1", instance, LOG)
    assert "Run killed-3 of ingest has died: " in caplog.messages[-1]
    assert "Its unfinished work is dropped: " in caplog.messages[-1]
    assert shop.publisher.pending_assets.read() == set()
    assert shop.publisher.artifacts.read("forecast.html") == b"forecast.html 1"
    assert shop.read() == release_of(1)


@everywhere
def test_what_a_release_did_not_have_is_taken_off_and_comes_back(
    shop: Shop, instance: dg.DagsterInstance
) -> None:
    assert shop.run(1)
    shop.publisher.begin("run-2", (), ASSETS, LOG)
    shop.publisher.warehouse.drop_relation("some_orders")
    shop.publisher.warehouse.drop_relation("raw_items")
    assert shop.publisher.end("run-2", [], LOG)
    shop.publisher.close()
    shop.publisher.begin("run-3", (), ("raw_orders",), LOG)
    assert shop.publisher.end("run-3", [], LOG)
    shop.publisher.close()
    published = shop.publisher.published.warehouse
    assert published.tables() == {"raw_orders", RELEASES}
    shop.publisher.rollback("run-1", instance, LOG)
    assert shop.read() == release_of(1)
    shop.publisher.rollback("run-3", instance, LOG)
    assert published.tables() == {"raw_orders", RELEASES}


@everywhere
def test_copies_of_releases_beyond_those_to_keep_are_deleted(
    shop: Shop, instance: dg.DagsterInstance
) -> None:
    for number in range(1, 5):
        assert shop.run(number)
    assert [(release.run_id, release.is_kept) for release in shop.publisher.releases()] == [
        ("run-4", True), ("run-3", True), ("run-2", True), ("run-1", False),
    ]  # fmt: skip
    assert len(shop.publisher.warehouse.kept_names()) == 3 * len(ASSETS)
    assert len(shop.publisher.artifacts.kept.names("")) == 3 * len(FILES)
    with pytest.raises(ReleaseError, match="The release of run run-1 is no longer kept"):
        shop.publisher.rollback("run-1", instance, LOG)
    shop.publisher.rollback("run-2", instance, LOG)
    assert shop.read() == release_of(2)


@everywhere
def test_releases_in_which_no_rows_changed_push_none_out_and_are_not_returned_to(
    shop: Shop, instance: dg.DagsterInstance
) -> None:
    assert shop.run(1)
    assert shop.run(2)
    for number in range(3, 7):
        # A rebuild that was asked for, of the same rows.
        shop.publisher.begin(f"run-{number}", (), ASSETS, LOG)
        state = {"version": "raw_orders 2", "built_by": f"run-{number}"}
        shop.publisher.warehouse.write_states({"raw_orders": state})
        assert shop.publisher.end(f"run-{number}", [], LOG)
        shop.publisher.close()
    newest = shop.publisher.releases()
    assert newest[0].changed == []
    assert [release.run_id for release in newest if release.is_kept] == [
        "run-6", "run-5", "run-4", "run-2", "run-1",
    ]  # fmt: skip
    shop.publisher.rollback(None, instance, LOG)
    assert shop.read() == release_of(1)
    shop.publisher.rollback("run-5", instance, LOG)
    assert shop.read() == release_of(2)
    assert shop.publisher.published.warehouse.read_states()["raw_orders"]["built_by"] == "run-5"


@everywhere
def test_a_copy_that_somebody_dropped_is_named_and_nothing_changes(
    shop: Shop, instance: dg.DagsterInstance
) -> None:
    assert shop.run(1)
    assert shop.run(2)
    kept = sorted(shop.publisher.warehouse.kept_names())
    for name in kept:
        if name.startswith("serverless_kept_raw_items"):
            shop.publisher.warehouse.drop_relation(name)
    with pytest.raises(WarehouseError, match=r"returned to: serverless_kept_raw_items_\w+, the copy"):
        shop.publisher.rollback(None, instance, LOG)
    assert shop.read() == release_of(2)
    # A run does not take it up: it would fail as well.
    assert shop.run(3)
    assert shop.read() == release_of(3)


@pytest.mark.gcp
def test_a_rollback_that_stops_anywhere_is_completed_by_the_next_run(
    shop: Shop, google: Google, instance: dg.DagsterInstance,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    """Every other of its statements is refused in turn, and those after it; the last attempt goes through."""
    assert shop.run(1)
    assert shop.run(2)
    there, number = 2, 1
    with watching(google.bigquery) as watched:
        if not shop.publisher.releases():
            # Seen in two of six runs of all files, and never in this file alone. Not yet explained.
            direct = [requests.get(google.bigquery.url + asked.path, timeout=60) for asked in watched.asked]
            answers = [f"{answer.status_code} {answer.url} {answer.text[:300]}" for answer in direct]
            warnings.warn(
                "The record of releases read empty. Asked again: " + "; ".join(answers), stacklevel=1
            )
        assert [release.run_id for release in shop.publisher.releases()] == ["run-2", "run-1"]
        while True:
            statements: list[str] = []
            there = 3 - there

            def refuse(request: Asked, last: int = number, seen: list[str] = statements) -> Answer | None:
                if is_swap(request):
                    seen.append(request.path)
                return DENIED if is_swap(request) and len(seen) >= last else None

            watched.instead = refuse
            try:
                shop.publisher.rollback(f"run-{there}", instance, LOG)
                break
            except UserError as error:
                assert "serverless_test" in str(error)
            finally:
                watched.instead = lambda request: None
            caplog.clear()
            shop.publish("next")
            assert f"Completing the rollback to the release of run run-{there}" in caplog.text
            assert shop.read() == release_of(there)
            number += 2
        assert number > 6
        assert shop.read() == release_of(there)


@pytest.mark.gcp
def test_readers_see_whole_tables_always_and_two_releases_only_within_a_burst(
    shop: Shop, instance: dg.DagsterInstance
) -> None:
    """A burst lasts from `began_at` to `published_at` of its release, as the documentation says."""
    assert shop.run(1)
    reads: list[tuple[datetime, datetime, list[Counter[int]]]] = []
    has_ended = threading.Event()
    read = shop.publisher.published.warehouse
    assert isinstance(read, BigQueryWarehouse)
    statements = [f"select amount from {read.quoted_name(name)}" for name in ASSETS]

    def read_all() -> None:
        while not has_ended.is_set():
            began = datetime.now(UTC)
            amounts = [Counter(read.query(text)["amount"].to_pylist()) for text in statements]
            reads.append((began, datetime.now(UTC), amounts))

    with ThreadPoolExecutor(1) as pool:
        reader = pool.submit(read_all)
        try:
            assert shop.run(2)
            assert not shop.run(3, failed="some_orders")
            shop.publisher.rollback("run-1", instance, LOG)
            assert shop.run(4)
        finally:
            has_ended.set()
        reader.result()
    assert {len(STOCK)} == {sum(amounts.values()) for _, _, tables in reads for amounts in tables}
    bursts = [(release["began_at"], release["published_at"]) for release in read_releases(read)]
    assert len(bursts) == 4
    for began, ended, tables in reads:
        assert all(len(amounts) == 1 for amounts in tables)
        if len({next(iter(amounts)) for amounts in tables}) > 1:
            assert any(began <= last and first <= ended for first, last in bursts), (began, ended, bursts)
    assert {next(iter(tables[0])) for _, _, tables in reads} >= {1, 2}
