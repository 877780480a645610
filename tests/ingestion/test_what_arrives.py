"""What the source says decides what is loaded: months beside others, rows that moved, rows that are gone."""

from datetime import datetime

import pytest

from serverless_assets.ingestion.source import HttpSource
from serverless_assets.run_inputs import Reload, RunInputs
from tests.ingestion.loads import FACTS, FIRST, NOT_LOADED, Ingestion, reasons
from tests.ingestion.shop import Shop, order, shop

pytestmark = pytest.mark.slow


@pytest.fixture
def source(open_shop: Shop) -> Shop:
    return open_shop


OCTOBER, NOVEMBER = ("2026-10-01", "2026-10-01"), ("2026-11-01", "2026-11-01")
REBUILD = RunInputs(rebuild="all")


def ids(loaded: Ingestion, table: str = "raw_orders") -> list[object]:
    return [row["id"] for row in loaded.rows(table)]


def move(source: Shop, key: str, at: datetime) -> None:
    orders = source.rows["raw_orders"]
    orders[:] = [order(key, at) if row[0] == key else row for row in orders]


def partition_rows(loaded: Ingestion, table: str) -> dict[str, object]:
    """The rows of each month that the last run recorded."""
    months = loaded.partitions(table).items()
    return {month[:7]: found["dagster/partition_row_count"] for month, found in months}


# ---- one table, one source


@pytest.fixture
def other(loaded: Ingestion):
    """Another shop, with the keys of the first in one month and keys of its own in the others."""
    with shop() as running:
        running.rows["raw_orders"] = [
            order("x9", datetime(2026, 9, 3)),
            order("o10", datetime(2026, 10, 14), 500),
            order("x11", datetime(2026, 11, 3)),
        ]
        running.rows["raw_items"] = [("ix9", "x9", "p1"), ("i10", "o10", "p1"), ("ix11", "x11", "p1")]
        yield running


def test_a_month_from_another_source_brings_all_of_its_history(loaded, other):
    found = loaded.run(*FACTS, months=OCTOBER, inputs=RunInputs(ingestion=Reload(dataset_url=other.url)))
    assert ids(loaded) == ["o10", "x11", "x9"]
    assert ids(loaded, "raw_items") == ["i10", "ix11", "ix9"]
    assert found["raw_orders"]["reason"] == "loaded from the source: 2026-09, 2026-10, 2026-11"
    assert set(loaded.partitions("raw_orders")) == {"2026-09-01", "2026-10-01", "2026-11-01"}


def test_months_from_the_usual_source_after_a_run_from_another_leave_nothing_of_that(loaded, other):
    loaded.run(inputs=RunInputs(ingestion=Reload(dataset_url=other.url)))
    assert "x9" in ids(loaded)
    loaded.run(*FACTS, months=NOVEMBER)
    assert ids(loaded) == ["o10", "o11", "o9"]
    assert ids(loaded, "raw_items") == ["i10", "i11", "i9"]
    other.forget()
    assert set(reasons(loaded.run(*FACTS, months=NOVEMBER)).values()) == {NOT_LOADED}


def test_the_same_rows_at_another_address_are_then_that_sources(loaded, source):
    with shop() as moved:
        loaded.source = HttpSource(moved.url)
        assert set(reasons(loaded.run(*FACTS, months=OCTOBER)).values()) == {NOT_LOADED}
        assert ("start" in "".join(moved.queries), ids(loaded)) == (False, ["o10", "o11", "o9"])
        moved.forget()
        loaded.run(*FACTS, months=OCTOBER)
        assert all("start=2026-10-01" in query for query in moved.queries)


# ---- rows that the source moved to another month


@pytest.mark.parametrize("windows", [True, False], ids=["a server that cuts", "a folder of files"])
def test_an_order_that_moved_into_the_month_that_is_loaded_leaves_its_old_month(loaded, source, windows):
    source.windows = windows
    move(source, "o9", datetime(2026, 11, 2))
    loaded.run(*FACTS, months=NOVEMBER)
    assert loaded.result.success
    at = {row["id"]: row["ordered_at"].month for row in loaded.rows("raw_orders")}
    assert at == {"o9": 11, "o10": 10, "o11": 11}
    assert {row["id"]: row["ordered_at"].month for row in loaded.rows("raw_items")} == {
        "i9": 11, "i10": 10, "i11": 11,
    }  # fmt: skip
    for table in FACTS:
        assert partition_rows(loaded, table) == {"2026-09": 0, "2026-11": 2}
    # What is then known of the tables is what a load of all of it finds.
    assert set(reasons(loaded.run(*FACTS)).values()) == {NOT_LOADED}


def test_an_item_that_moved_to_an_order_of_another_month_is_in_the_table_once(loaded, source):
    source.rows["raw_items"][0] = ("i9", "o11", "p1")
    loaded.run(*FACTS, months=NOVEMBER)
    assert ids(loaded, "raw_items") == ["i10", "i11", "i9"]
    assert {row["id"]: row["ordered_at"].month for row in loaded.rows("raw_items")}["i9"] == 11


def test_rows_that_moved_along_a_chain_of_months_are_in_the_table_once(loaded, source):
    source.rows["raw_orders"].append(order("o1", datetime(2026, 1, 14)))
    loaded.run(*FACTS)
    move(source, "o10", datetime(2026, 11, 2))
    move(source, "o1", datetime(2026, 10, 2))
    loaded.run("raw_orders", months=NOVEMBER)
    assert {row["id"]: row["ordered_at"].month for row in loaded.rows("raw_orders")} == {
        "o1": 10, "o9": 9, "o10": 11, "o11": 11,
    }  # fmt: skip


def test_an_order_that_the_source_serves_in_two_months_is_refused(loaded, source):
    source.rows["raw_orders"].append(order("o9", datetime(2026, 11, 2)))
    loaded.run(*FACTS, months=NOVEMBER)
    assert "raw_orders.id: expected unique values, found 'o9' 2 times" in loaded.failure()
    assert ids(loaded) == ["o10", "o11", "o9"]


# ---- rows that are gone


def test_a_table_that_the_source_serves_empty_stays_as_it_was_until_a_person_takes_it(loaded, source):
    kept, source.rows["raw_supplies"] = loaded.rows("raw_supplies"), []
    loaded.run()
    assert loaded.failure() == (
        "1 of the raw tables could not be loaded and stay as they were. "
        "raw_supplies: the source serves 0 rows instead of the 1 in the table. Fewer than 50% are refused, "
        "and the table stays as it was. If the source is right, run again with rebuild: all (--rebuild)."
    )
    assert loaded.rows("raw_supplies") == kept
    loaded.run(inputs=REBUILD)
    assert loaded.result.success
    assert loaded.rows("raw_supplies") == []
    assert not loaded.checks()["raw_supplies_volume"].passed


def test_a_fraction_of_a_table_is_refused_and_a_few_rows_fewer_are_warned_of(ingestion, source):
    all_customers = source.rows["raw_customers"] = [(f"c{n}", "ann") for n in range(1, 41)]
    ingestion.run()
    source.rows["raw_customers"] = all_customers[:19]
    ingestion.run("raw_customers")
    assert "raw_customers: the source serves 19 rows instead of the 40 in the table" in ingestion.failure()
    source.rows["raw_customers"] = all_customers[:30]
    for _ in range(2):
        ingestion.run("raw_customers")
        volume = ingestion.checks()["raw_customers_volume"]
        assert not volume.passed
        assert volume.description == "The last load left 30 rows where there were 40."
    source.rows["raw_customers"] = all_customers[:29]
    ingestion.run("raw_customers")
    assert ingestion.checks()["raw_customers_volume"].passed


def test_orders_that_are_gone_fail_with_their_items_in_one_sentence(ingestion, source):
    keys = [f"o{n}" for n in range(1, 21)]
    source.rows["raw_orders"] = [order(key, datetime(2026, 10, 2)) for key in keys]
    source.rows["raw_items"] = [(f"i{key}", key, "p1") for key in keys]
    ingestion.run()
    del source.rows["raw_orders"][5:], source.rows["raw_items"][5:]
    for months in (None, OCTOBER):
        ingestion.run(*FACTS, months=months)
        assert ingestion.failure().count("the source serves") == 1
        assert "raw_orders: the source serves 5 rows" in ingestion.failure()
        assert (len(ids(ingestion)), len(ids(ingestion, "raw_items"))) == (20, 20)


def test_months_that_are_gone_are_warned_of(loaded, source):
    del source.rows["raw_orders"][0], source.rows["raw_items"][0]
    loaded.run()
    assert "The last load left no rows of 2026-09." in loaded.checks()["raw_orders_volume"].description


def test_a_smaller_source_may_take_the_place_of_a_larger_one_but_not_an_empty_one(ingestion, source):
    source.rows["raw_customers"] = [(f"c{n}", "ann") for n in range(1, 41)]
    ingestion.run()
    with shop() as small:
        inputs = RunInputs(ingestion=Reload(dataset_url=small.url))
        ingestion.run("raw_customers", inputs=inputs)
        assert ids(ingestion, "raw_customers") == ["c1"]
        small.rows["raw_customers"] = []
        ingestion.run("raw_customers", inputs=inputs)
        assert "the source serves 0 rows instead of the 1" in ingestion.failure()


def test_a_table_that_was_always_empty_is_loaded_with_a_warning(ingestion, source):
    source.rows["raw_supplies"] = source.rows["raw_items"] = []
    assert {one["reason"] for one in ingestion.run().values()} == {FIRST}
    failed = {name for name, check in ingestion.checks().items() if not check.passed and "volume" in name}
    assert failed == {"raw_supplies_volume", "raw_items_volume"}
    assert ingestion.checks()["raw_items_volume"].description == "The table has no rows."
    assert ingestion.run("raw_supplies")["raw_supplies"]["dagster/row_count"] == 0


# ---- what is said of it


def test_each_month_of_a_range_has_its_own_number_of_rows_beside_the_tables(loaded, source):
    source.rows["raw_orders"].append(order("o12", datetime(2026, 10, 20)))
    for _ in range(2):
        # The second time, nothing is downloaded.
        loaded.run("raw_orders", months=("2026-08-01", "2026-10-01"))
        assert partition_rows(loaded, "raw_orders") == {"2026-08": 0, "2026-09": 1, "2026-10": 2}
        found = loaded.partitions("raw_orders")
        assert {one["dagster/row_count"] for one in found.values()} == {4}


def test_each_month_of_a_whole_history_has_its_own_number_of_rows_beside_the_tables(ingestion, source):
    source.rows["raw_orders"].append(order("o12", datetime(2026, 10, 20)))
    assert ingestion.run()["raw_orders"]["dagster/row_count"] == 4
    assert partition_rows(ingestion, "raw_orders") == {"2026-09": 1, "2026-10": 2, "2026-11": 1}
    found = ingestion.partitions("raw_orders")
    assert {one["dagster/row_count"] for one in found.values()} == {4}


def test_columns_beyond_the_catalogue_are_named_whenever_the_source_serves_them(ingestion, source, capfd):
    source.more["raw_customers"] = "loyalty"
    for inputs in (RunInputs(), RunInputs(), REBUILD):
        found = ingestion.run(inputs=inputs)
        assert found["raw_customers"]["columns_not_loaded"] == "loyalty (int64)"
        assert "columns_not_loaded" not in found["raw_orders"]
    logged = "raw_customers: columns that its entry does not declare are not loaded: loyalty (int64)."
    assert capfd.readouterr().err.count(logged) == 2


def test_an_order_of_the_year_9999_fails_the_orders_and_what_they_date(loaded, source):
    move(source, "o9", datetime(9999, 12, 31))
    source.rows["raw_customers"].append(("c2", "bob"))
    found = loaded.run()
    assert loaded.failure() == (
        "2 of the raw tables could not be loaded and stay as they were. raw_orders.ordered_at: expected "
        "times from 1900-01-01 up to 2200-01-01, found 9999-12-31 00:00:00. raw_items is "
        "dated by raw_orders, which could not be loaded."
    )
    assert set(found) == {"raw_customers", "raw_products", "raw_stores", "raw_supplies"}
    assert ids(loaded, "raw_customers") == ["c1", "c2"]


def test_orders_dated_in_the_future_are_loaded_and_counted_and_do_not_make_the_table_fresh(loaded, source):
    source.rows["raw_orders"] = [order("o1", datetime(2020, 1, 1)), order("o9", datetime(2100, 6, 1))]
    source.rows["raw_items"] = []
    loaded.run(inputs=REBUILD)
    assert loaded.result.success
    checks = loaded.checks()
    assert ids(loaded) == ["o1", "o9"]
    assert not checks["raw_orders_freshness"].passed
    assert "2020-01-01" in checks["raw_orders_freshness"].description
    times = checks["raw_orders_event_time"]
    assert not times.passed
    assert "1 rows are dated later than a day from" in times.description
    assert "such as 2100-06-01 00:00" in times.description
    assert (times.metadata["later_rows"].value, times.metadata["earlier_rows"].value) == (1, 1)
