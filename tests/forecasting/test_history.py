"""Which days of daily_revenue the forecast is made from, and what is said of those that it is not."""

from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta

import pyarrow as pa
import pytest

from modal_forecast.grain import DAY
from modal_forecast.messages import ForecastRefused
from serverless_assets.forecasting.checks import HISTORY
from serverless_assets.forecasting.history import History, HistoryError, Today, history_of, read_history
from serverless_assets.forecasting.part_history import parts_in
from serverless_assets.forecasting.report import read_sections
from serverless_assets.forecasting.reuse import SAME_FORECAST
from serverless_assets.transformation.manifest import TargetSchema
from serverless_assets.transformation.relation_states import UnfinishedError
from serverless_assets.warehouse import TableShape
from serverless_assets.warehouse.duckdb import DuckDBWarehouse
from tests.conftest import SHOP, Pipeline
from tests.test_pipeline import change_work

LAST = date(2026, 11, 26)
TODAY = Today(LAST, date(2026, 11, 27))


def days_until(last: date, count: int) -> list[date]:
    return [last - timedelta(days=n) for n in reversed(range(count))]


def revenue(orders: Mapping[date, int]) -> pa.Table:
    """Rows of daily_revenue at 12.50 an order."""
    return pa.table(
        {
            "ds": pa.array(list(orders), pa.date32()),
            "y": [12.5 * count for count in orders.values()],
            "events": list(orders.values()),
        }
    )


USUAL = dict.fromkeys(days_until(LAST, 500), 10)


def history(extra: Mapping[date, int], usual: Mapping[date, int] = USUAL, today: Today = TODAY) -> History:
    return history_of(SHOP, revenue({**usual, **extra}), today)


# ---- days that are over


@pytest.mark.parametrize(
    ("zone", "now", "last_complete", "latest"),
    [
        ("UTC", "2026-11-27T00:00", "2026-11-26", "2026-11-27"),
        ("UTC", "2026-11-27T23:59", "2026-11-26", "2026-11-27"),
        ("America/New_York", "2026-11-27T03:00", "2026-11-25", "2026-11-27"),
        ("America/New_York", "2026-11-27T06:00", "2026-11-26", "2026-11-27"),
        ("Pacific/Auckland", "2026-11-26T12:00", "2026-11-25", "2026-11-27"),
        ("Pacific/Auckland", "2026-11-27T00:00", "2026-11-26", "2026-11-27"),
    ],
)
def test_a_day_is_complete_once_it_is_over_in_utc_and_where_the_business_is(zone, now, last_complete, latest):
    today = Today.of(zone, datetime.fromisoformat(now).replace(tzinfo=UTC))
    assert (str(today.last_complete), str(today.latest)) == (last_complete, latest)


def test_the_running_day_is_left_out_and_noted_without_a_warning():
    found = history({date(2026, 11, 27): 2})
    assert found.table == history({}).table
    assert found.notes == ["2 orders dated 2026-11-27 are left out: the day is not over yet."]
    assert (found.left_out, found.warnings) == (2, [])


@pytest.mark.parametrize("day", [date(2026, 11, 28), date(2027, 6, 1), date(2099, 1, 1), date(9999, 12, 31)])
def test_a_future_order_is_left_out_with_a_warning(day):
    found = history({day: 1})
    assert found.table == history({}).table
    assert found.warnings == [f"1 order dated {day} is left out: the day has not come yet."]


def test_future_orders_of_several_days_are_counted_together():
    found = history({date(2027, 6, 1): 1, date(2099, 1, 1): 1200})
    assert found.warnings == [
        "1,201 orders dated 2027-06-01 to 2099-01-01 are left out: these days have not come yet."
    ]


# ---- days far from all others


@pytest.mark.parametrize(
    ("extra", "usual"),
    [
        ({date(1, 1, 1): 1}, USUAL),
        ({date(1970, 1, 1): 400}, USUAL),
        ({date(2016, 1, 1): 1, date(2016, 3, 1): 2}, USUAL),
        ({LAST - timedelta(days=531): 30}, USUAL),
        ({LAST: 2}, dict.fromkeys(days_until(LAST - timedelta(days=40), 500), 10)),
    ],
    ids=["year 1", "dates never set", "two mistyped", "just over 30 days before", "long after the last load"],
)
def test_a_few_orders_far_from_all_others_are_left_out_with_a_warning(extra, usual):
    found = history(extra, usual)
    assert found.table == history({}, usual).table
    count, days = sum(extra.values()), " to ".join(map(str, extra))
    [said] = [warning for warning in found.warnings if "left out" in warning]
    assert said.startswith(f"{count} order{'s' if count > 1 else ''} dated {days} ")
    assert "more than 30 days from all others" in said


@pytest.mark.parametrize(
    ("extra", "usual"),
    [
        ({LAST - timedelta(days=530): 30}, USUAL),
        (dict.fromkeys(days_until(LAST - timedelta(days=600), 60), 10), USUAL),
        ({LAST: 9}, dict.fromkeys(days_until(LAST - timedelta(days=120), 500), 10)),
    ],
    ids=["30 days before", "a season before a pause", "opened again yesterday"],
)
def test_a_shop_that_was_closed_keeps_its_history(extra, usual):
    found = history(extra, usual)
    first, last = min({**extra, **usual}), max({**extra, **usual})
    assert found.table["ds"].to_pylist() == days_until(last, (last - first).days + 1)
    assert found.left_out == 0


def test_a_day_without_a_row_counts_as_zero():
    gap = LAST - timedelta(days=3)
    found = history({}, {day: count for day, count in USUAL.items() if day != gap})
    values = dict(zip(found.table["ds"].to_pylist(), found.table["y"].to_pylist(), strict=True))
    assert (values[gap], values[LAST], len(values)) == (0.0, 125.0, 500)


def test_a_history_that_ends_long_before_today_is_warned_of():
    usual = dict.fromkeys(days_until(LAST - timedelta(days=8), 100), 10)
    assert history({}, usual).warnings == [
        "The history ends on 2026-11-18, 8 days before the last complete day, 2026-11-26: load newer data."
    ]
    assert not history({}, dict.fromkeys(days_until(LAST - timedelta(days=7), 100), 10)).warnings


# ---- what cannot be forecast


def test_no_revenue_is_said_in_a_sentence():
    for orders in ({}, {date(2027, 6, 1): 3}):
        with pytest.raises(HistoryError, match="There is nothing to forecast from: daily_revenue has"):
            history(orders, {}).request(180)
    with pytest.raises(HistoryError, match="3 orders dated 2027-06-01 are left out"):
        history({date(2027, 6, 1): 3}, {}).request(180)


def test_too_few_days_are_refused_before_a_worker_is_asked():
    with pytest.raises(ForecastRefused, match="The history has 13 days with a value"):
        history({}, dict.fromkeys(days_until(LAST, 13), 10)).request(180)


# ---- stores


def test_days_that_the_total_leaves_out_are_left_out_of_the_stores():
    rows = [
        {"ds": day, "id": id, "name": id.upper(), "y": 5.0, "events": 10}
        for id, days in {
            "a": days_until(LAST, 500),
            # A mistyped date within the history of all, and orders that are not over or have not come.
            "b": [LAST - timedelta(days=300), *days_until(LAST, 100), date(2026, 11, 27), date(2027, 6, 1)],
        }.items()
        for day in days
    ]
    rows[500]["events"] = 1
    stores = parts_in(pa.Table.from_pylist(rows), history({}).table, DAY)
    a, b = map(stores.history, range(2))
    assert a["ds"].to_pylist() == days_until(LAST, 500)
    assert b["ds"].to_pylist() == days_until(LAST, 100)


# ---- in a run


def test_orders_of_today_and_of_next_year_change_neither_the_forecast_nor_its_scores(pipeline: Pipeline):
    today = datetime.now(UTC).date()
    far = today + timedelta(days=200)
    for day in (today, far, date(2199, 12, 31)):
        change_work(
            pipeline,
            "insert into dwh.daily_revenue (ds, location_id, location_name, nr_orders, revenue_usd)"
            f" select date '{day}', min(location_id), min(location_name), 1, 3.18 from dwh.daily_revenue",
        )
    result = pipeline.run(job="forecast")
    assert result.success, pipeline.summary
    for asset in ("order_forecast", "store_forecast", "forecast_accuracy"):
        assert pipeline.summary["assets"][asset]["status"] == "reused", pipeline.reason(asset)
    assert pipeline.reason("order_forecast") == SAME_FORECAST
    [check] = [one for one in result.get_asset_check_evaluations() if one.check_name == HISTORY]
    warned = f"2 orders dated {far} to 2199-12-31 are left out: these days have not come yet."
    assert not check.passed
    assert check.severity.value == "WARN"
    assert warned in check.description
    facts = pipeline.facts("order_forecast")
    assert facts["orders_left_out"] == 3
    assert f"1 order dated {today} is left out: the day is not over yet." in facts["history"]
    said = [entry.user_message for entry in pipeline.instance.all_logs(result.run_id)]
    assert any(warned in line for line in said)
    assert warned in (pipeline.home / "artifacts" / "forecast.html").read_text()


def test_an_empty_daily_revenue_leaves_the_last_forecast_and_says_why(pipeline: Pipeline):
    before = pipeline.published("select * from dwh.order_forecast order by ds")
    change_work(pipeline, "delete from dwh.daily_revenue")
    assert not pipeline.run(job="forecast").success
    assert "There is nothing to forecast from: daily_revenue has no order" in pipeline.reason(
        "order_forecast"
    )
    assert pipeline.published("select * from dwh.order_forecast order by ds") == before


def test_no_forecast_is_made_from_a_mart_whose_tests_failed(tmp_path):
    rows = pa.table({"ds": pa.array([LAST], pa.date32()), "revenue_usd": [1.0], "nr_orders": [1]})
    warehouse = DuckDBWarehouse(tmp_path / "warehouse.duckdb", "dwh")
    shape = TableShape("daily_revenue", rows.schema)
    warehouse.replace_rows(shape, rows, {"dirty_reason": "last tests failed: no_negative_revenue"})
    with pytest.raises(
        UnfinishedError, match="daily_revenue cannot be relied on: last tests failed: no_negative_revenue"
    ):
        read_history(SHOP, warehouse, TODAY)
    warehouse.replace_rows(shape, rows, {"version": "sound"})
    assert read_history(SHOP, warehouse, TODAY).table.num_rows == 1


def test_the_relation_of_a_forecast_may_be_in_a_schema_and_a_database_of_its_own(tmp_path):
    rows = pa.table({"ds": pa.array([LAST], pa.date32()), "revenue_usd": [1.0], "nr_orders": [1]})
    warehouse = DuckDBWarehouse(tmp_path / "warehouse.duckdb", "dwh")
    warehouse.prepare_schemas([("finance", "marts")])
    warehouse.in_schema("finance", "marts").replace_rows(TableShape("daily_revenue", rows.schema), rows, {})
    model = {"name": "daily_revenue", "resource_type": "model", "config": {"materialized": "table"}}
    nodes = {"model.shop.daily_revenue": {**model, "database": "finance", "schema": "marts"}}
    shop = SHOP.located({"nodes": nodes, "sources": {}}, TargetSchema("warehouse", "dwh"))
    assert read_history(shop, warehouse, TODAY).table.num_rows == 1


def test_no_section_of_the_report_is_of_a_table_whose_tests_failed(tmp_path):
    [section] = SHOP.sections
    rows = pa.table({section.rows: ["Brooklyn"], section.columns: ["flour"], section.value: [2.0]})
    warehouse = DuckDBWarehouse(tmp_path / "warehouse.duckdb", "dwh")
    shape = TableShape(section.asset, rows.schema)
    warehouse.replace_rows(shape, rows, {"dirty_reason": "last tests failed: unique"})
    with pytest.raises(
        UnfinishedError, match=f"{section.asset} cannot be relied on: last tests failed: unique. First run `"
    ):
        read_sections(SHOP, warehouse)
    warehouse.replace_rows(shape, rows, {"version": "sound"})
    assert [found["rows"] for found in read_sections(SHOP, warehouse)] == [[["Brooklyn", 2.0]]]


# ---- weeks and months


def by_grain(grain: str, orders: Mapping[date, int], today: Today = TODAY) -> History:
    declared = SHOP.model_copy(update={"grain": grain, "country": None})
    return history_of(declared, revenue(orders), today)


@pytest.mark.parametrize(
    ("grain", "first", "last", "running"),
    [
        ("week", date(2025, 7, 21), date(2026, 11, 16), "2026-11-23 to 2026-11-29"),
        ("month", date(2025, 8, 1), date(2026, 10, 1), "2026-11-01 to 2026-11-30"),
    ],
)
def test_days_are_summed_to_whole_weeks_or_months(grain, first, last, running):
    found = by_grain(grain, USUAL)
    days, values = found.table["ds"].to_pylist(), found.table["y"].to_pylist()
    assert (days[0], days[-1]) == (first, last)
    assert values[0] == 125 * ((days[1] - days[0]).days)
    begun, unfinished = found.notes
    assert begun.endswith(f"are left out: the {grain} is known in part.")
    assert f"dated {running} are left out: the {grain} is not over yet." in unfinished
    assert not found.warnings and found.request(3).grain == grain


@pytest.mark.parametrize("day", [1, 15, 28])
def test_one_row_a_month_may_be_dated_with_any_of_its_days(day):
    months = [date(2023 + n // 12, n % 12 + 1, day) for n in range(47)]
    found = by_grain("month", {month: 10 for month in months if month != date(2024, 5, day)})
    assert found.table["ds"].to_pylist() == [month.replace(day=1) for month in months[:-1]]
    assert found.table["y"].to_pylist()[16] == 0, "a month without a row"
    assert found.left_out == 10 and not found.warnings


def test_rows_that_end_in_the_midst_of_a_week_end_the_history_with_the_week_before():
    saturdays_closed = {day: 10 for day in USUAL if day.isoweekday() != 6}
    today = Today(date(2026, 11, 22), date(2026, 11, 23))
    usual = by_grain("week", saturdays_closed, today)
    assert usual.table["ds"][-1].as_py() == date(2026, 11, 16)
    friday = {day: 10 for day in saturdays_closed if day <= date(2026, 11, 19)}
    assert by_grain("week", friday, today).table["ds"][-1].as_py() == date(2026, 11, 9)


def test_a_history_by_month_is_old_when_a_month_is_overdue():
    months = {date(2023 + n // 12, n % 12 + 1, 1): 10 for n in range(45)}
    [warning] = by_grain("month", months).warnings
    assert warning.startswith("The history ends on 2026-09-30, 57 days before the last complete day")
