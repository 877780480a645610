from collections import Counter
from datetime import date, datetime, timedelta

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serverless_assets.sample_shop.catalogue import FACTS, STORES
from serverless_assets.sample_shop.sales import sales, thanksgiving
from serverless_assets.sample_shop.shop import SampleShop
from tests.raw_tables import TABLES

SHOP = SampleShop(end=date(2026, 11, 22))
# By its end every store is long open and growth has levelled off: what is left is seasons and luck.
GROWN_UP = SampleShop(end=date(2039, 12, 31))

days_around = st.dates(SHOP.start - timedelta(days=40), SHOP.end + timedelta(days=40))


def orders_by_day(shop: SampleShop, start: date | None = None, end: date | None = None) -> Counter[date]:
    days = shop.table("raw_orders", start, end)["ordered_at"].cast(pa.date32()).value_counts()
    return Counter({day["values"]: day["counts"] for day in days.to_pylist()})


def mean_orders(shop: SampleShop, days: list[date]) -> float:
    by_day = orders_by_day(shop, min(days), max(days) + timedelta(days=1))
    return sum(by_day[day] for day in days) / len(days)


def days_of(year: int, *months: int) -> list[date]:
    new_year = date(year, 1, 1)
    return [day for n in range(365) if (day := new_year + timedelta(days=n)).month in months]


def values(table: pa.Table, column: str) -> set[object]:
    return set(table[column].to_pylist())


# ---- history


def test_the_past_is_as_it_was_written():
    june = date(2025, 6, 1), date(2025, 7, 1)
    orders, items = SHOP.table("raw_orders", *june), SHOP.table("raw_items", *june)
    assert (orders.num_rows, pc.sum(orders["order_total"]).as_py(), items.num_rows) == (4575, 5_414_428, 7271)
    assert orders.slice(orders.num_rows - 1).to_pylist() == [
        {
            "id": "20250630-0126",
            "customer": "CUS-001031",
            "ordered_at": datetime(2025, 6, 30, 21, 44, 7),
            "store_id": "STO-04",
            "subtotal": 900,
            "tax_paid": 0,
            "order_total": 900,
        }
    ]
    assert SHOP.table("raw_customers").slice(9999, 1).to_pylist() == [
        {"id": "CUS-010000", "name": "Anna Price"}
    ]


@pytest.mark.parametrize("name", sorted(FACTS))
@pytest.mark.parametrize("end", [date(2026, 11, 21), date(2026, 3, 1), date(2025, 1, 31)])
def test_shops_with_different_ends_agree_on_every_day_that_they_share(name, end):
    earlier = SampleShop(end=end)
    assert earlier.table(name, start=SHOP.start).equals(SHOP.table(name, end=end + timedelta(days=1)))


@pytest.mark.parametrize("name", ["raw_customers", "raw_stores"])
def test_a_snapshot_only_ever_gains_rows_at_its_end(name):
    before, now = SampleShop(end=date(2025, 4, 30)).table(name), SHOP.table(name)
    assert 0 < before.num_rows < now.num_rows
    assert now.slice(0, before.num_rows).equals(before)


def test_a_day_is_drawn_the_same_whatever_was_drawn_before_it():
    whole = SHOP.table("raw_orders", start=date(2026, 11, 22))
    sales.cache_clear()
    assert SHOP.table("raw_orders", start=date(2026, 11, 22)).equals(whole)


def test_another_seed_is_another_shop():
    other = SampleShop(seed=8, end=SHOP.end)
    last_week = SHOP.end - timedelta(days=6)
    assert not other.table("raw_orders", last_week).equals(SHOP.table("raw_orders", last_week))
    assert not other.table("raw_customers").equals(SHOP.table("raw_customers"))


@pytest.mark.parametrize(
    ("end", "start"),
    [
        (date(2026, 11, 22), date(2024, 11, 1)),
        (date(2024, 2, 29), date(2022, 2, 1)),
        (date(2026, 1, 1), date(2024, 1, 1)),
    ],
)
def test_history_begins_with_the_month_two_years_before_its_end(end, start):
    shop = SampleShop(end=end)
    assert shop.start == start
    assert min(orders_by_day(shop, end=start + timedelta(days=7))) in (start, start + timedelta(days=1))


def test_history_ends_with_its_last_day():
    assert max(orders_by_day(SHOP)) == SHOP.end


@pytest.mark.parametrize("year", [2012, 2015, 2020, 2040, 2100])
def test_there_is_trade_of_a_sane_size_in_any_year(year):
    shop = SampleShop(end=date(year, 12, 31))
    assert 1_000 < shop.table("raw_orders", date(year, 10, 1)).num_rows < 35_000
    assert shop.table("raw_stores").num_rows >= 1


@pytest.mark.parametrize("name", ["raw_orders", "raw_items", "raw_customers", "raw_stores"])
def test_before_its_founding_there_is_nothing(name):
    before = SampleShop(end=date(2010, 2, 28)).table(name)
    assert (before.num_rows, before.schema) == (0, SHOP.table(name).schema)


# ---- windows


@pytest.mark.parametrize("name", sorted(FACTS))
@given(days=st.tuples(days_around, days_around, days_around).map(sorted))
@settings(deadline=None, max_examples=25)
def test_any_split_of_a_window_gives_the_same_rows(name, days):
    start, middle, end = days
    parts = [SHOP.table(name, start, middle), SHOP.table(name, middle, end)]
    assert pa.concat_tables(parts).equals(SHOP.table(name, start, end))


@given(middle=days_around)
@settings(deadline=None, max_examples=25)
def test_an_open_window_reaches_as_far_as_history(middle):
    parts = [SHOP.table("raw_orders", end=middle), SHOP.table("raw_orders", start=middle)]
    assert pa.concat_tables(parts).equals(SHOP.table("raw_orders"))


@given(days=st.tuples(days_around, days_around).map(sorted))
@settings(deadline=None, max_examples=25)
def test_a_window_holds_only_its_own_days_and_the_items_of_its_orders(days):
    start, end = days
    orders, items = SHOP.table("raw_orders", start, end), SHOP.table("raw_items", start, end)
    days_seen = orders["ordered_at"].cast(pa.date32()).unique().to_pylist()
    assert all(start <= day < end for day in days_seen)
    assert items["order_id"].unique().equals(orders["id"].combine_chunks())


@pytest.mark.parametrize("name", sorted(FACTS))
@pytest.mark.parametrize(
    "window",
    [
        (date(2020, 1, 1), date(2020, 2, 1)),
        (date(2027, 1, 1), date(2027, 2, 1)),
        (date(2026, 5, 5), date(2026, 5, 5)),
        (date(2025, 12, 25), date(2025, 12, 26)),
    ],
)
def test_a_window_without_orders_is_empty_with_the_full_schema(name, window):
    table = SHOP.table(name, *window)
    assert table.num_rows == 0
    assert table.schema == SHOP.table(name).schema


@pytest.mark.parametrize(
    "window", [(date(2020, 1, 1), date(2020, 2, 1)), (date(2027, 1, 1), None), (SHOP.end, SHOP.end)]
)
def test_windows_without_a_day_are_all_the_same(window):
    assert SHOP.clip(*window) == (SHOP.start, SHOP.start)


def test_facts_are_in_order_of_time():
    times = SHOP.table("raw_orders")["ordered_at"].combine_chunks()
    assert pc.all(pc.less_equal(times[:-1], times[1:])).as_py()
    order_of_items = list(dict.fromkeys(SHOP.table("raw_items")["order_id"].to_pylist()))
    assert order_of_items == SHOP.table("raw_orders")["id"].to_pylist()


def test_there_is_no_other_table():
    with pytest.raises(KeyError, match="raw_refunds"):
        SHOP.table("raw_refunds")


# ---- rows


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_every_table_keeps_the_contract(table):
    rows = SHOP.table(table.name)
    assert rows.schema == table.source_schema
    assert sum(column.null_count for column in rows.columns) == 0
    assert rows.group_by(list(table.key)).aggregate([]).num_rows == rows.num_rows


@pytest.mark.parametrize(
    ("child", "column", "parent", "key"),
    [
        ("raw_items", "order_id", "raw_orders", "id"),
        ("raw_items", "sku", "raw_products", "sku"),
        ("raw_orders", "store_id", "raw_stores", "id"),
        ("raw_orders", "customer", "raw_customers", "id"),
        ("raw_supplies", "sku", "raw_products", "sku"),
    ],
)
def test_every_reference_leads_somewhere(child, column, parent, key):
    assert values(SHOP.table(child), column) <= values(SHOP.table(parent), key)


def test_every_order_has_an_item():
    assert values(SHOP.table("raw_items"), "order_id") == values(SHOP.table("raw_orders"), "id")


def test_money_adds_up_to_the_cent():
    prices = {row["sku"]: row["price"] for row in SHOP.table("raw_products").to_pylist()}
    tax_rates = {row["id"]: row["tax_rate"] for row in SHOP.table("raw_stores").to_pylist()}
    in_items: Counter[str] = Counter()
    since = date(2026, 9, 1)
    for item in SHOP.table("raw_items", since).to_pylist():
        in_items[item["order_id"]] += prices[item["sku"]]
    for order in SHOP.table("raw_orders", since).to_pylist():
        assert order["subtotal"] == in_items[order["id"]] > 0
        assert abs(order["tax_paid"] - order["subtotal"] * tax_rates[order["store_id"]]) <= 0.5 + 1e-9
        assert order["order_total"] == order["subtotal"] + order["tax_paid"]


def test_ids_say_the_day_the_order_and_the_item():
    orders, items = SHOP.table("raw_orders", SHOP.end), SHOP.table("raw_items", SHOP.end)
    assert orders["id"].to_pylist() == [f"20261122-{n + 1:04d}" for n in range(orders.num_rows)]
    seen: Counter[str] = Counter()
    for item in items.to_pylist():
        seen[item["order_id"]] += 1
        assert item["id"] == f"{item['order_id']}-{seen[item['order_id']]}"


def test_a_supply_goes_into_several_products_at_one_cost():
    supplies = SHOP.table("raw_supplies")
    by_id = supplies.group_by("id").aggregate([("sku", "count_distinct"), ("cost", "count_distinct")])
    assert 55 <= supplies.num_rows <= 70
    assert pc.max(by_id["sku_count_distinct"]).as_py() == 5
    assert pc.max(by_id["cost_count_distinct"]).as_py() == 1


def test_a_customer_orders_only_after_signing_up():
    for day in (date(2010, 3, 1), date(2024, 11, 1), SHOP.end):
        shop = SampleShop(end=day)
        assert values(shop.table("raw_orders", start=day), "customer") <= values(
            shop.table("raw_customers"), "id"
        )


def test_somebody_signs_up_every_day():
    for end in (date(2012, 5, 5), date(2025, 12, 25), SHOP.end):
        before, now = (SampleShop(end=day).table("raw_customers") for day in (end - timedelta(days=1), end))
        assert before.num_rows < now.num_rows
        assert SampleShop(end=end).changed_on("raw_customers") == end


def test_most_orders_are_from_customers_who_came_before():
    orders = SHOP.table("raw_orders")
    assert orders.num_rows > 5 * len(values(orders, "customer"))


def test_customers_new_to_the_shop_order_the_most():
    last_week = Counter(SHOP.table("raw_orders", date(2026, 11, 16))["customer"].to_pylist())
    customers = SHOP.table("raw_customers")["id"].to_pylist()
    newest = customers[-100:]
    assert sum(last_week[customer] for customer in newest) / 100 > 5 * last_week.total() / len(customers)


def test_many_customers_stay_for_years():
    first_month = values(SHOP.table("raw_orders", end=date(2024, 12, 1)), "customer")
    last_month = values(SHOP.table("raw_orders", start=date(2026, 10, 23)), "customer")
    assert len(first_month & last_month) > 0.4 * len(first_month)


# ---- demand


def test_two_years_are_some_130_000_orders_of_1_6_items():
    orders, items = SHOP.table("raw_orders").num_rows, SHOP.table("raw_items").num_rows
    assert 120_000 < orders < 140_000
    assert 1.5 < items / orders < 1.7


@pytest.mark.parametrize("store", STORES, ids=lambda store: store.name)
def test_a_store_sells_from_the_day_it_opens(store):
    orders = SHOP.table("raw_orders")
    first_sale = pc.min(orders.filter(pc.equal(orders["store_id"], store.id))["ordered_at"]).as_py().date()
    from_then = max(store.opened, SHOP.start)
    assert from_then <= first_sale < from_then + timedelta(days=7)


def test_a_store_is_listed_from_the_day_it_opens():
    opening = STORES[-1].opened
    assert SampleShop(end=opening - timedelta(days=1)).table("raw_stores").num_rows == len(STORES) - 1
    assert SampleShop(end=opening).table("raw_stores").num_rows == len(STORES)


def test_a_store_new_in_town_ramps_up():
    opened = STORES[-1].opened
    orders = SHOP.table("raw_orders", opened)
    times = orders.filter(pc.equal(orders["store_id"], STORES[-1].id))["ordered_at"].to_pylist()
    weeks = Counter((time.date() - opened).days // 7 for time in times)
    assert weeks[0] < 0.3 * weeks[20]


@pytest.mark.parametrize("store", STORES, ids=lambda store: store.name)
def test_a_store_trades_for_nine_hours_that_end_by_midnight_utc(store):
    orders = SHOP.table("raw_orders")
    hours = pc.hour(orders.filter(pc.equal(orders["store_id"], store.id))["ordered_at"])
    assert store.opens_at_utc <= pc.min(hours).as_py() <= pc.max(hours).as_py() < store.opens_at_utc + 9 <= 24


def test_saturdays_are_busier_than_mondays():
    days = days_of(2039, 2, 3, 4, 5, 6, 8, 9, 10)
    saturdays = mean_orders(GROWN_UP, [day for day in days if day.weekday() == 5])
    assert saturdays > 1.3 * mean_orders(GROWN_UP, [day for day in days if day.weekday() == 0])


def test_summers_are_busier_than_winters():
    assert mean_orders(GROWN_UP, days_of(2039, 6, 7, 8)) > 1.15 * mean_orders(GROWN_UP, days_of(2039, 1, 2))


def test_trade_grows_as_stores_open():
    last_year, this_year = days_of(2025, 8, 9, 10), days_of(2026, 8, 9, 10)
    assert mean_orders(SHOP, this_year) > 1.3 * mean_orders(SHOP, last_year)


@pytest.mark.parametrize(("year", "day"), [(2024, 28), (2025, 27), (2026, 26), (2029, 22), (2030, 28)])
def test_thanksgiving_is_the_fourth_thursday_of_november(year, day):
    assert thanksgiving(year) == date(year, 11, day)


def test_the_shop_is_closed_on_thanksgiving_and_christmas_and_busy_before():
    by_day = orders_by_day(SHOP)
    closed = {SHOP.start + timedelta(days=n) for n in range((SHOP.end - SHOP.start).days)} - set(by_day)
    assert closed == {thanksgiving(2024), date(2024, 12, 25), thanksgiving(2025), date(2025, 12, 25)}
    days_before = sum(by_day[holiday - timedelta(days=1)] for holiday in closed)
    two_weeks_earlier = sum(by_day[holiday - timedelta(days=15)] for holiday in closed)
    assert days_before > 1.2 * two_weeks_earlier
