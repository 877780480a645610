"""An unchanged source is not downloaded, an unchanged table is not loaded: over HTTP, into a warehouse."""

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import date, datetime

import dagster as dg
import pytest

from serverless_assets.ingestion.raw_table import DatedBy
from serverless_assets.ingestion.source import HttpSource
from serverless_assets.run_inputs import Reload, Reuse, RunInputs
from serverless_assets.sample_shop import SampleSource
from serverless_assets.warehouse.duckdb import DuckDBWarehouse
from tests.ingestion.loads import (
    DATES,
    FACTS,
    FIRST,
    NAMES,
    NOT_DOWNLOADED,
    NOT_LOADED,
    Ingestion,
    correct_october,
    reasons,
)
from tests.ingestion.shop import Shop, order, shop
from tests.raw_tables import RAW_ITEMS, RAW_ORDERS, RAW_STORES

pytestmark = pytest.mark.slow


@pytest.fixture
def source(open_shop: Shop) -> Shop:
    return open_shop


def test_a_fact_of_grain_none_is_loaded_whole_whatever_months_a_run_is_for(ingestion, source):
    orders = replace(RAW_ORDERS, grain="none")
    ingestion.tables = [
        orders,
        replace(RAW_ITEMS, grain="none", dated_by=DatedBy(orders, "order_id")),
        RAW_STORES,
    ]
    assert set(reasons(ingestion.run(*FACTS)).values()) == {FIRST}
    assert ingestion.shown() == []
    # One order comes late, one is gone.
    source.rows["raw_orders"] = [*source.rows["raw_orders"][1:], order("late", datetime(2026, 11, 2))]
    source.rows["raw_items"] = source.rows["raw_items"][1:]
    assert reasons(ingestion.run(*FACTS)) == {
        "raw_orders": "loaded from the source: 2026-09, 2026-11",
        "raw_items": "loaded from the source: 2026-09",
    }
    assert [row["id"] for row in ingestion.rows("raw_orders")] == ["late", "o10", "o11"]
    assert not any("start=" in query for query in source.queries)
    assert set(reasons(ingestion.run(*FACTS)).values()) == {NOT_DOWNLOADED}


# ---- nothing changed


def test_a_second_load_downloads_nothing_and_says_which_run_loaded_what_is_there(loaded, source):
    first = loaded.result.run_id
    before = loaded.warehouse.read_states()
    found = loaded.run()
    assert source.served.total() == 0
    assert sorted(source.asked) == sorted(NAMES)
    assert reasons(found) == dict.fromkeys(NAMES, NOT_DOWNLOADED)
    for one in found.values():
        assert (one["status"], one["bytes"], one["built_by"]) == ("reused", 0, first)
    assert found["raw_orders"]["dagster/row_count"] == 3
    assert loaded.warehouse.read_states() == before


def test_what_is_reused_has_the_same_data_version(loaded, source):
    def versions():
        events = loaded.result.get_asset_materialization_events()
        return {event.asset_key: event.materialization.tags["dagster/data_version"] for event in events}

    before = versions()
    loaded.run()
    assert versions() == before
    source.etags = False
    loaded.run()
    assert versions() == before


def test_a_server_without_validators_is_asked_for_all_and_nothing_is_loaded(ingestion, source):
    source.etags = False
    ingestion.run()
    first, stamp = ingestion.result.run_id, ingestion.warehouse.path.stat().st_mtime_ns
    for _ in range(2):
        found = ingestion.run()
        assert reasons(found) == dict.fromkeys(NAMES, NOT_LOADED)
        for one in found.values():
            assert (one["status"], one["built_by"]) == ("reused", first)
            assert one["bytes"] > 0
    # Not even the file was written to: there is nothing to publish.
    assert ingestion.warehouse.path.stat().st_mtime_ns == stamp


def test_the_same_content_under_new_validators_is_not_downloaded_the_next_time(ingestion, source):
    source.etags = False
    ingestion.run()
    source.etags = True
    assert reasons(ingestion.run()) == dict.fromkeys(NAMES, NOT_LOADED)
    source.forget()
    assert reasons(ingestion.run()) == dict.fromkeys(NAMES, NOT_DOWNLOADED)
    assert source.served.total() == 0


def test_the_sample_shop_is_the_same_source_on_whatever_port_it_listens(tmp_path):
    with dg.DagsterInstance.ephemeral() as instance:
        sample = SampleSource(seed=7, end=lambda: date(2024, 10, 31))
        ingestion = Ingestion(DuckDBWarehouse(tmp_path / "warehouse.duckdb", "dwh"), instance, sample)
        first, second = ingestion.run("raw_stores"), ingestion.run("raw_stores")
        assert reasons(first) == {"raw_stores": FIRST}
        assert reasons(second) == {"raw_stores": NOT_DOWNLOADED}
        # Nothing listens there any more.
        assert not {"url"} & {*first["raw_stores"], *second["raw_stores"]}


@pytest.mark.parametrize(("first", "level"), [("2026-06-01", "WARNING"), ("2026-08-01", "INFO")])
def test_a_run_for_months_that_the_source_does_not_have_says_so(loaded, first, level):
    loaded.run("raw_orders", months=(first, "2026-08-01" if level == "WARNING" else "2026-09-01"))
    said = [
        entry for entry in loaded.instance.all_logs(loaded.result.run_id) if "no rows of" in entry.message
    ]
    months = "2026-06, 2026-07, 2026-08" if level == "WARNING" else "2026-08"
    assert [entry.user_message for entry in said] == [f"raw_orders: the source has no rows of {months}."]
    assert said[0].level == getattr(logging, level)


def test_reuse_says_which_run_loaded_what_is_there(loaded):
    first = loaded.result.run_id
    found = loaded.run(inputs=RunInputs(ingestion=Reuse()))
    assert {one["built_by"] for one in found.values()} == {first}


# ---- some of it changed


def test_a_corrected_order_in_a_past_month_changes_just_that_months_version(loaded, source):
    before = loaded.warehouse.read_state("raw_orders")
    correct_october(source)
    found = loaded.run()
    assert found["raw_orders"]["reason"] == "loaded from the source: 2026-10"
    assert (found["raw_orders"]["status"], found["raw_orders"]["built_by"]) == ("built", loaded.result.run_id)
    after = loaded.warehouse.read_state("raw_orders")
    assert {day for day in DATES if before["months"][day] != after["months"][day]} == {"2026-10-01"}
    assert before["version"] != after["version"]
    assert [row["order_total"] for row in loaded.rows("raw_orders")] == [999, 100, 100]
    assert loaded.shown() == [("raw_orders", "2026-10-01")]


def test_a_changed_snapshot_is_loaded_alone(loaded, source):
    source.rows["raw_customers"].append(("c2", "bob"))
    found = reasons(loaded.run())
    assert found.pop("raw_customers") == "loaded from the source: new content"
    assert set(found.values()) == {NOT_DOWNLOADED}
    assert source.served.keys() == {"raw_customers"}


def test_a_month_that_lost_all_its_orders_is_named_and_gone(loaded, source):
    del source.rows["raw_orders"][1], source.rows["raw_items"][1]
    found = loaded.run()
    for table in FACTS:
        assert found[table]["reason"] == "loaded from the source: 2026-10"
        assert set(loaded.warehouse.read_state(table)["months"]) == DATES - {"2026-10-01"}
    assert loaded.shown() == [("raw_items", "2026-10-01"), ("raw_orders", "2026-10-01")]


def test_a_new_month_is_named(loaded, source):
    source.rows["raw_orders"].append(order("o1", datetime(2026, 12, 1)))
    assert reasons(loaded.run("raw_orders")) == {"raw_orders": "loaded from the source: 2026-12"}


def test_a_first_load_shows_every_month_and_the_next_ones_what_changed(ingestion, source):
    def advice() -> list[str]:
        logged = [entry.user_message for entry in ingestion.instance.all_logs(ingestion.result.run_id)]
        return [text for text in logged if "SERVERLESS_FIRST_MONTH" in text]

    ingestion.run()
    assert ingestion.shown() == sorted((table, day) for table in FACTS for day in DATES)
    assert advice() == [
        f"The source begins in {min(DATES)[:7]}. The UI shows the months from 2026-01 until then as missing: "
        f"SERVERLESS_FIRST_MONTH={min(DATES)[:7]} leaves them out."
    ]
    ingestion.run()
    assert (ingestion.shown(), advice()) == ([], [])
    assert ingestion.instance.get_materialized_partitions(dg.AssetKey("raw_orders")) == DATES


def test_months_are_shown_again_where_dagsters_history_is_new(loaded, source):
    with dg.DagsterInstance.ephemeral() as loaded.instance:
        assert set(reasons(loaded.run()).values()) == {NOT_DOWNLOADED}
        assert loaded.shown() == sorted((table, day) for table in FACTS for day in DATES)
        october = loaded.partitions("raw_orders")["2026-10-01"]
        assert (october["status"], october["dagster/partition_row_count"]) == ("reused", 1)
        loaded.run()
        assert loaded.shown() == []


def test_a_whole_file_in_which_a_month_changed_replaces_the_rows_of_that_month_alone(loaded, source):
    # By hand, which nobody notices: a row that is loaded again would lose it.
    loaded.by_hand("update dwh.raw_orders set subtotal = 777 where id = 'o9'")
    source.rows["raw_orders"].append(order("o12", datetime(2026, 12, 1)))
    assert reasons(loaded.run("raw_orders")) == {"raw_orders": "loaded from the source: 2026-12"}
    assert [(row["id"], row["subtotal"]) for row in loaded.rows("raw_orders")] == [
        ("o10", 100), ("o11", 100), ("o12", 100), ("o9", 777),
    ]  # fmt: skip
    assert reasons(loaded.run("raw_orders")) == {"raw_orders": NOT_DOWNLOADED}
    assert loaded.run("raw_orders", inputs=RunInputs(rebuild="all"))["raw_orders"]["status"] == "built"
    assert {row["subtotal"] for row in loaded.rows("raw_orders")} == {100}


# ---- items and their orders


def test_items_are_judged_anew_when_only_orders_changed(loaded, source):
    correct_october(source)
    found = reasons(loaded.run())
    assert found["raw_orders"] == "loaded from the source: 2026-10"
    # An amount does not date an item: the file was needed to know that.
    assert found["raw_items"] == NOT_LOADED
    assert source.served.keys() == {"raw_orders", "raw_items"}
    source.forget()
    assert set(reasons(loaded.run()).values()) == {NOT_DOWNLOADED}
    assert source.served.total() == 0


def test_items_move_with_their_order_though_their_own_file_is_the_same(loaded, source):
    source.rows["raw_orders"][1] = order("o10", datetime(2026, 11, 1))
    found = reasons(loaded.run())
    assert found["raw_orders"] == found["raw_items"] == "loaded from the source: 2026-10, 2026-11"
    assert [row["ordered_at"].month for row in loaded.rows("raw_items")] == [11, 11, 9]


def test_orders_are_fetched_to_date_items_that_changed_and_not_loaded(loaded, source):
    source.rows["raw_items"].append(("i99", "o9", "p1"))
    found = reasons(loaded.run())
    assert found["raw_items"] == "loaded from the source: 2026-09"
    assert found["raw_orders"] == NOT_LOADED
    assert source.served.keys() == {"raw_orders", "raw_items"}


def test_items_alone_are_dated_by_the_orders_of_today_and_remember_which(loaded, source):
    source.rows["raw_orders"][1] = order("o10", datetime(2026, 11, 1))
    assert reasons(loaded.run("raw_items")) == {"raw_items": "loaded from the source: 2026-10, 2026-11"}
    # The orders in the warehouse are still those of yesterday.
    assert [row["ordered_at"].month for row in loaded.rows("raw_orders")] == [10, 11, 9]
    found = reasons(loaded.run(*FACTS))
    assert found == {"raw_orders": "loaded from the source: 2026-10, 2026-11", "raw_items": NOT_DOWNLOADED}


def test_items_alone_download_nothing_when_neither_changed(loaded, source):
    assert reasons(loaded.run("raw_items")) == {"raw_items": NOT_DOWNLOADED}
    assert source.served.total() == 0
    assert sorted(source.asked) == sorted(FACTS)


# ---- windows


def test_a_window_load_and_a_whole_load_of_the_same_rows_end_with_the_same_version(loaded, source):
    correct_october(source)
    source.rows["raw_items"].append(("i99", "o10", "p1"))
    found = loaded.run(*FACTS, months=("2026-10-01", "2026-11-01"))
    assert set(reasons(found).values()) == {"loaded from the source: 2026-10"}
    by_window = loaded.warehouse.read_states()
    assert loaded.rows("raw_orders")[0]["order_total"] == 999
    assert set(reasons(loaded.run(*FACTS)).values()) == {NOT_LOADED}
    loaded.by_hand("drop table dwh.raw_orders; drop table dwh.raw_items")
    loaded.run(*FACTS)
    for table in FACTS:
        whole = loaded.warehouse.read_state(table)
        assert (whole["version"], whole["months"]) == (
            by_window[table]["version"],
            by_window[table]["months"],
        )


@pytest.mark.parametrize("windows", [True, False], ids=["a server that cuts", "a folder of files"])
def test_a_window_is_loaded_again_only_if_its_months_changed(loaded, source, windows):
    source.windows = windows
    october = ("2026-10-01", "2026-10-01")
    assert set(reasons(loaded.run(*FACTS, months=october)).values()) == {NOT_LOADED}
    source.forget()
    assert set(reasons(loaded.run(*FACTS, months=october)).values()) == {NOT_DOWNLOADED}
    # Of each table one request, whose answer has no body.
    assert source.queries == ["start=2026-10-01&end=2026-11-01"] * len(FACTS)
    assert source.served.total() == 0
    source.rows["raw_orders"][2] = order("o11", datetime(2026, 11, 14), cents=5)
    # The orders' file is another, and what it says of October the same: so are the items of October.
    orders = NOT_DOWNLOADED if windows else NOT_LOADED
    expected = {"raw_orders": orders, "raw_items": NOT_DOWNLOADED}
    assert reasons(loaded.run(*FACTS, months=october)) == expected
    correct_october(source)
    assert reasons(loaded.run(*FACTS, months=october))["raw_orders"] == "loaded from the source: 2026-10"
    assert reasons(loaded.run(*FACTS))["raw_orders"] == "loaded from the source: 2026-11"


def test_a_window_looks_back_for_late_changes_as_far_as_the_table_says(loaded, source):
    september = source.rows["raw_orders"][0]
    source.rows["raw_orders"][0] = (*september[:4], 777, *september[5:])
    october = ("2026-10-01", "2026-10-01")
    assert reasons(loaded.run("raw_orders", months=october)) == {"raw_orders": NOT_LOADED}
    loaded.tables = [replace(RAW_ORDERS, lookback=1)]
    found = reasons(loaded.run("raw_orders", months=october))
    assert found["raw_orders"] == "loaded from the source: 2026-09"
    assert loaded.rows("raw_orders")[2]["subtotal"] == 777
    assert "start=2026-09-01&end=2026-11-01" in source.queries


def test_a_window_of_a_table_that_nobody_knows_brings_the_whole_history(loaded, source):
    loaded.by_hand("create or replace table dwh.raw_orders as from dwh.raw_orders where id = 'o9'")
    found = loaded.run("raw_orders", months=("2026-10-01", "2026-10-01"))
    assert found["raw_orders"]["reason"] == "loaded from the source: it was not known what the table held"
    assert len(loaded.rows("raw_orders")) == 3
    assert loaded.run("raw_orders")["raw_orders"]["status"] == "reused"


def test_a_window_that_makes_the_table_knows_all_that_it_holds(ingestion, source):
    ingestion.run("raw_orders", months=("2026-10-01", "2026-10-01"))
    assert ingestion.warehouse.read_state("raw_orders")["months"].keys() == {"2026-10-01"}
    found = ingestion.run("raw_orders")
    assert found["raw_orders"]["reason"] == "loaded from the source: 2026-09, 2026-11"


# ---- what is known of what


def test_another_source_is_not_asked_with_the_validators_of_the_first(loaded, source):
    with shop() as other:
        correct_october(other)
        inputs = RunInputs(ingestion=Reload(dataset_url=other.url))
        found = reasons(loaded.run(inputs=inputs))
        assert found["raw_orders"] == "loaded from the source: 2026-10"
        assert found["raw_stores"] == NOT_LOADED
        assert all(other.served[name] for name in NAMES)
    # Back at the first: the orders of the other are in the warehouse, and the stores of both.
    found = reasons(loaded.run())
    assert found["raw_orders"] == "loaded from the source: 2026-10"
    assert found["raw_stores"] == NOT_DOWNLOADED


def test_no_credential_is_in_a_note(ingestion, source):
    url = source.url.replace("//", "//quentin:hunter2@") + "?token=s3cret"
    ingestion.source = HttpSource(url)
    ingestion.run()
    assert set(reasons(ingestion.run()).values()) == {NOT_DOWNLOADED}
    kept = json.dumps(ingestion.warehouse.read_states())
    assert not [secret for secret in ("quentin", "hunter2", "s3cret", "127.0.0.1") if secret in kept]


def test_a_table_dropped_by_hand_is_loaded_again_from_an_unchanged_source(loaded, source):
    loaded.by_hand("drop table dwh.raw_orders; drop table dwh.raw_stores")
    found = reasons(loaded.run())
    assert found["raw_orders"] == found["raw_stores"] == FIRST
    assert found["raw_items"] == found["raw_customers"] == NOT_DOWNLOADED
    assert len(loaded.rows("raw_orders")) == 3


def test_a_relation_replaced_by_hand_is_loaded_again_from_an_unchanged_source(loaded, source):
    loaded.by_hand("create or replace table dwh.raw_stores as from dwh.raw_stores limit 0")
    found = reasons(loaded.run())
    assert found["raw_stores"] == "loaded from the source: it was not known what the table held"
    assert len(loaded.rows("raw_stores")) == 1


def test_what_a_killed_window_load_leaves_is_loaded_again(loaded, source):
    # Between its rows and its note there is none (see tests/backends/test_bigquery.py).
    loaded.by_hand("delete from dwh.raw_orders where id = 'o10'")
    loaded.warehouse.write_states({"raw_orders": {}})
    assert loaded.run()["raw_orders"]["status"] == "built"
    assert len(loaded.rows("raw_orders")) == 3


@dataclass(frozen=True)
class Meddled(DuckDBWarehouse):
    """A warehouse whose orders somebody replaces by hand as soon as a run has looked at it."""

    looks: list[str] = field(default_factory=list)

    def read_states(self) -> Mapping[str, Mapping[str, object]]:
        found = super().read_states()
        self.looks.append("look")
        if len(self.looks) > 1:
            return found
        # In this process, a file has one configuration: that of the warehouse.
        with self._transaction() as connection:
            connection.execute(
                "create or replace table dwh.raw_orders as from dwh.raw_orders where id != 'o9'"
            )
        return found


def test_a_window_load_claims_nothing_of_a_table_that_was_replaced_during_the_run(loaded, source):
    correct_october(source)
    loaded.warehouse = Meddled(loaded.warehouse.path, "dwh")
    assert loaded.run("raw_orders", months=("2026-10-01", "2026-10-01"))["raw_orders"]["status"] == "built"
    assert loaded.warehouse.read_state("raw_orders") == {}


def test_a_whole_file_replaces_all_rows_of_a_table_that_was_replaced_during_the_run(loaded, source):
    correct_october(source)
    loaded.warehouse = Meddled(loaded.warehouse.path, "dwh")
    assert reasons(loaded.run("raw_orders")) == {"raw_orders": "loaded from the source: 2026-10"}
    assert [row["order_total"] for row in loaded.rows("raw_orders")] == [999, 100, 100]


def test_no_validators_are_kept_with_a_table_that_was_replaced_during_the_run(loaded, source):
    source.etags = False
    loaded.warehouse = Meddled(loaded.warehouse.path, "dwh")
    assert reasons(loaded.run("raw_orders")) == {"raw_orders": NOT_LOADED}
    assert loaded.warehouse.read_state("raw_orders") == {}


def test_a_table_that_failed_keeps_what_is_known_of_it(loaded, source):
    before = loaded.warehouse.read_states()
    source.rows["raw_products"] *= 2
    found = loaded.run()
    assert not loaded.result.success
    assert "raw_products" not in found
    assert loaded.warehouse.read_states() == before
    del source.rows["raw_products"][1:]
    assert set(reasons(loaded.run()).values()) == {NOT_DOWNLOADED}
