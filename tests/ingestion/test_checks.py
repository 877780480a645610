"""The checks of raw tables: how they judge, and that they show beside what they judge."""

import calendar
import re
from collections.abc import Iterator
from datetime import date, datetime, timedelta

import dagster as dg
import duckdb
import pyarrow as pa
import pytest

from serverless_assets.ingestion.assets import ingestion_assets
from serverless_assets.ingestion.check_rules import (
    Month,
    count_months,
    event_times,
    freshness,
    schema_change,
    volume,
)
from serverless_assets.ingestion.checks import SourceObservation
from serverless_assets.ingestion.source import HttpSource
from serverless_assets.run_inputs import Reuse, RunInputs
from serverless_assets.warehouse.duckdb import DuckDBWarehouse
from tests.ingestion.loads import Target
from tests.ingestion.shop import Shop, order, shop
from tests.raw_tables import RAW_ORDERS, TABLES

NOW = datetime(2026, 11, 1, 9)


def month(number: int, per_day: float, days: float | None = None) -> Month:
    """A month of 2026 with so many rows a day; `days` if it is not whole."""
    length = calendar.monthrange(2026, number)[1] if days is None else days
    start = datetime(2026, number, 1)
    last = start + timedelta(days=length) - timedelta(microseconds=1)
    return Month(start, round(per_day * length), start, last)


def usual(*numbers: int) -> list[Month]:
    return [month(number, 100) for number in numbers]


# ---- volume


def test_a_month_like_the_others_passes_whatever_its_length():
    # February against months of 31 days.
    found = volume([month(1, 100), *usual(2, 3, 4, 5)])
    assert found.passed
    assert found.numbers["ratio"] == pytest.approx(1, abs=0.001)


@pytest.mark.parametrize(("per_day", "passes"), [(49, False), (51, True), (199, True), (201, False)])
def test_less_than_half_or_more_than_double_the_median_warns(per_day, passes):
    found = volume([*usual(1, 2, 3, 4, 5), month(6, per_day)])
    assert found.passed is passes
    assert f"{per_day}.0 rows per day in 2026-06" in found.text
    assert "the median of the 5 months before is 100.0" in found.text
    assert found.numbers["rows_per_day"] == pytest.approx(per_day, abs=0.1)
    assert found.numbers["usual_rows_per_day"] == pytest.approx(100, abs=0.1)


def test_one_odd_month_among_those_before_does_not_count_for_the_median():
    assert volume([*usual(1, 2), month(3, 5000), *usual(4, 5)]).passed


def test_six_months_before_at_most_are_compared_with():
    found = volume([*(month(n, 1) for n in (1, 2, 3)), *usual(4, 5, 6, 7, 8, 9, 10)])
    assert found.passed
    assert found.numbers["months_compared"] == 6


@pytest.mark.parametrize("numbers", [(), (1,), (1, 2, 3)])
def test_with_fewer_than_three_months_before_it_is_too_early_to_say(numbers):
    found = volume(usual(*numbers))
    assert found.passed
    assert "Too early to say" in found.text


def test_a_month_that_has_begun_is_judged_by_the_days_that_have_passed():
    assert volume([*usual(1, 2, 3), month(4, 100, days=8)]).passed
    found = volume([*usual(1, 2, 3), month(4, 300, days=8)])
    assert not found.passed
    assert "2026-04" in found.text


def test_less_than_a_week_of_a_month_is_not_judged_but_the_month_before_is():
    assert volume([*usual(1, 2, 3, 4), month(5, 900, days=5)]).passed
    found = volume([*usual(1, 2, 3), month(4, 900), month(5, 100, days=5)])
    assert not found.passed
    assert "2026-04" in found.text


def test_a_history_that_begins_in_the_middle_of_a_month_has_a_first_month_of_those_days():
    late = Month(datetime(2026, 1, 1), 1000, datetime(2026, 1, 22), datetime(2026, 1, 31, 23))
    found = volume([late, *usual(2, 3), month(4, 60)])
    assert found.numbers["usual_rows_per_day"] == pytest.approx(100, abs=0.1)


def test_a_month_without_a_row_counts_as_none_a_day():
    found = volume([month(1, 100), *usual(5)])
    assert found.numbers["usual_rows_per_day"] == 0
    assert not found.passed


def test_a_month_of_the_year_9999_that_an_older_version_let_in_is_no_trouble(tmp_path):
    warehouse = DuckDBWarehouse(tmp_path / "w.duckdb", "dwh")
    with duckdb.connect(str(warehouse.path)) as connection:
        connection.execute("create schema dwh; create table dwh.raw_orders (ordered_at timestamp)")
        times = "'9999-12-31', '0001-01-01', '290000-01-01', '2026-10-01', '2026-10-02', '2199-12-31'"
        connection.execute(f"insert into dwh.raw_orders select unnest([{times}])::timestamp")
    found = count_months(RAW_ORDERS, warehouse, NOW)
    assert {month.start: (month.rows, month.later) for month in found} == {
        datetime(2026, 10, 1): (2, 0), datetime(2199, 12, 1): (0, 1),
    }  # fmt: skip
    assert volume(found).passed


# ---- times that cannot be


def test_rows_later_than_a_day_from_now_warn_with_their_number_and_the_latest():
    start = datetime(2027, 6, 1)
    later = Month(start, 0, None, None, later=3, latest=datetime(2027, 6, 7, 12))
    found = event_times([*usual(9, 10), later], date(2026, 1, 1), NOW)
    assert not found.passed
    assert found.text == (
        "3 rows are dated later than a day from 2026-11-01 09:00 UTC, such as 2027-06-07 12:00: "
        "loaded, and left out of volume and freshness."
    )
    assert volume([*usual(6, 7, 8, 9, 10), later]) == volume(usual(6, 7, 8, 9, 10))


def test_rows_before_the_first_month_warn_with_their_number_and_the_earliest():
    found = event_times(usual(1, 2, 3), date(2026, 3, 1), NOW)
    assert not found.passed
    assert f"{31 * 100 + 28 * 100:,} rows are dated before 2026-03, such as 2026-01-01 00:00" in found.text
    assert event_times(usual(1, 2, 3), date(2026, 1, 1), NOW).passed
    assert event_times([], date(2026, 1, 1), NOW).passed


# ---- schema


def test_new_gone_and_changed_columns_are_named_with_their_types():
    said = schema_change(
        {"id": "string", "price": "int64", "old": "bool"}, {"id": "string", "price": "double", "tip": "int64"}
    )
    assert "tip (int64) is new" in said
    assert "old (bool) is gone" in said
    assert "price was int64 and is double" in said


def test_the_order_of_columns_is_no_change_and_the_first_load_has_nothing_to_differ_from():
    assert schema_change({"a": "string", "b": "int64"}, {"b": "int64", "a": "string"}) == ""
    assert schema_change(None, {"a": "string"}) == ""


def test_a_change_is_told_until_the_source_serves_a_file_again():
    first = SourceObservation().updated({"a": "string"}, NOW)
    changed = first.updated({"a": "int64"}, NOW)
    assert changed.change
    later = NOW + timedelta(days=1)
    assert changed.updated(None, later) == SourceObservation({"a": "int64"}, changed.change, later)
    assert changed.updated({"a": "int64"}, later).change == ""


def test_what_was_seen_comes_back_from_the_metadata_of_a_materialization():
    observation = SourceObservation({"a": "string", "b": "int64"}, "a is new", NOW, "rows are gone")
    stored = dg.AssetMaterialization("raw_orders", metadata=observation.as_metadata(RAW_ORDERS)).metadata
    assert SourceObservation.in_metadata(stored) == observation
    assert SourceObservation.in_metadata({}) == SourceObservation()


# ---- freshness


def test_rows_of_three_days_ago_are_fresh_and_older_ones_warn_with_their_age():
    assert freshness(NOW - timedelta(hours=71), NOW, "Newest row").passed
    found = freshness(NOW - timedelta(days=4), NOW, "Newest row")
    assert not found.passed
    sentence = (
        "Newest row: 2026-10-28 09:00 UTC, 4.0 days ago; 3.0 days are allowed "
        "(`freshness: warn_after:` of the source sets it)."
    )
    assert found.text == sentence
    assert found.numbers == {"age_hours": 96.0, "allowed_hours": 72.0}


def test_a_row_of_a_source_whose_clock_is_ahead_has_no_negative_age():
    assert freshness(NOW + timedelta(hours=20), NOW, "Newest row").numbers["age_hours"] == 0


def test_what_nobody_knows_the_age_of_is_not_fresh():
    assert not freshness(None, NOW, "Newest row").passed


# ---- in Dagster


class World:
    """The raw tables of a small shop, in a warehouse of their own."""

    def __init__(self, source: Shop, warehouse: DuckDBWarehouse, instance: dg.DagsterInstance) -> None:
        self.shop, self.warehouse, self.instance = source, warehouse, instance
        self.assets = ingestion_assets(TABLES, datetime(2026, 9, 1).date(), "dwh")

    def run(self, inputs: RunInputs | None = None, selection=None) -> dict[str, dg.AssetCheckEvaluation]:
        result = dg.materialize(
            [self.assets],
            instance=self.instance,
            selection=selection,
            resources={
                "run_inputs": inputs or RunInputs(),
                "source": HttpSource(self.shop.url),
                "publisher": Target(self.warehouse),
            },
        )
        return {found.check_name: found for found in result.get_asset_check_evaluations()}


@pytest.fixture
def world(tmp_path) -> Iterator[World]:
    with shop() as source, dg.DagsterInstance.ephemeral() as instance:
        yield World(source, DuckDBWarehouse(tmp_path / "w.duckdb", "dwh"), instance)


def test_the_months_that_the_warehouse_counts_are_those_of_the_rows(world):
    world.run()
    months = count_months(RAW_ORDERS, world.warehouse, datetime(2027, 1, 1))
    found = sorted(months, key=lambda month: month.start)
    assert [(m.start.month, m.rows, m.first, m.last) for m in found] == [
        (n, 1, datetime(2026, n, 14), datetime(2026, n, 14)) for n in (9, 10, 11)
    ]


def test_checks_query_no_months_that_the_state_knows_and_see_rows_that_somebody_removed(world, monkeypatch):
    world.shop.rows["raw_orders"] = [order(str(n), datetime(2026, n, 14)) for n in range(1, 11)]
    world.shop.rows["raw_items"] = []
    world.run()
    orders, reuse = world.warehouse.quoted_name("raw_orders"), RunInputs(ingestion=Reuse())
    world.warehouse.write_states({"raw_orders": {"version": "of an earlier version"}})

    def outcomes():
        # Without the age of the newest row and the time of the look, which grow.
        found = world.run(reuse).items()
        return {
            name: (check.passed, re.sub(r"(?<=by the source): .*| UTC,.*", "", check.description))
            for name, check in found
        }

    queried = outcomes()
    world.run(RunInputs(rebuild="all"))
    with monkeypatch.context() as patch:
        patch.setattr(DuckDBWarehouse, "query", lambda *_: pytest.fail("the months were queried"))
        assert outcomes() == queried
    assert not queried["raw_orders_event_time"][0]
    with duckdb.connect(str(world.warehouse.path)) as connection:
        connection.execute(f"delete from {orders} where ordered_at > timestamp '2026-03-01'")
    assert "2026-02-14" in world.run(reuse)["raw_orders_freshness"].description


def test_every_table_has_its_checks_and_they_warn_without_failing_the_run(world):
    world.shop.rows["raw_orders"] = [order("o1", datetime(2020, 1, 1))]
    world.shop.rows["raw_items"] = []
    found = world.run()
    assert len(found) == 20
    assert not found["raw_orders_freshness"].passed
    assert {check.severity for check in found.values()} == {dg.AssetCheckSeverity.WARN}
    assert found["raw_orders_freshness"].metadata["age_hours"].value > 24 * 365
    assert {name for name, check in found.items() if not check.passed} == {
        "raw_orders_freshness", "raw_orders_event_time", "raw_items_freshness", "raw_items_volume",
    }  # fmt: skip


def test_a_new_column_at_the_source_is_told_until_the_next_load(world, monkeypatch):
    serve = Shop.answer

    def with_loyalty(self, name, window):
        import io

        import pyarrow.parquet as pq

        content = serve(self, name, window)
        if name != "raw_customers":
            return content
        table, sink = pq.read_table(io.BytesIO(content)), io.BytesIO()
        pq.write_table(table.append_column("loyalty", pa.array([1] * table.num_rows)), sink)
        return sink.getvalue()

    assert world.run()["raw_customers_schema"].passed
    monkeypatch.setattr(Shop, "answer", with_loyalty)
    for inputs in (RunInputs(), RunInputs(), RunInputs(ingestion=Reuse())):
        found = world.run(inputs)
        assert not found["raw_customers_schema"].passed
        assert "loyalty (int64) is new" in found["raw_customers_schema"].description
        assert found["raw_orders_schema"].passed
    assert world.run(RunInputs(rebuild="all"))["raw_customers_schema"].passed


def test_reused_tables_are_as_fresh_as_the_sources_last_word(world, monkeypatch):
    world.run()
    later = datetime.now() + timedelta(days=30)

    class Later(datetime):
        @classmethod
        def now(cls, tz=None):
            return later.replace(tzinfo=tz)

    monkeypatch.setattr("serverless_assets.ingestion.checks.datetime", Later)
    found = world.run(RunInputs(ingestion=Reuse()))
    assert not found["raw_stores_freshness"].passed
    assert found["raw_stores_freshness"].metadata["age_hours"].value == pytest.approx(720, abs=24)
    # Asked again, the source says that it is as it was.
    assert world.run()["raw_stores_freshness"].passed


def test_checks_can_be_asked_for_alone_and_then_nothing_is_loaded(world):
    world.run()
    world.shop.forget()
    only = dg.AssetSelection.checks(dg.AssetCheckKey(dg.AssetKey("raw_orders"), "raw_orders_volume"))
    assert set(world.run(selection=only)) == {"raw_orders_volume"}
    assert world.shop.asked == []
