from collections.abc import Iterator
from dataclasses import replace
from datetime import date, datetime
from itertools import count
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from serverless_assets import sql
from serverless_assets.ingestion import audit
from serverless_assets.ingestion.content import content_of
from serverless_assets.ingestion.contract import ContractError
from serverless_assets.ingestion.raw_table import RawTable
from serverless_assets.ingestion.stage import stage
from serverless_assets.months import Window
from serverless_assets.warehouse.staging import STAGING_PREFIX, StagedRows, StagingArea
from tests.raw_tables import RAW_CUSTOMERS, RAW_ITEMS, RAW_ORDERS, RAW_SUPPLIES

NUMBERS = count()
SEPTEMBER, OCTOBER = date(2026, 9, 1), date(2026, 10, 1)
LAST_OF_SEPTEMBER = datetime(2026, 9, 30, 23, 59, 59, 999_999)
FIRST_OF_OCTOBER = datetime(2026, 10, 1)
TWO_TEXTS = RawTable("things", "Two texts.", {"id": pa.string(), "one": pa.string(), "other": pa.string()})


@pytest.fixture
def area(tmp_path: Path) -> Iterator[StagingArea]:
    with duckdb.connect() as connection:
        yield StagingArea(connection, tmp_path, 512)


@pytest.fixture
def staged(area: StagingArea, tmp_path: Path):
    """Staged rows, given those of a parquet file in the table's source columns."""

    def staged(
        table: RawTable, rows: list[tuple], parent: StagedRows | None = None, **options: object
    ) -> StagedRows:
        columns = dict(zip(table.source_schema.names, zip(*rows, strict=True), strict=True)) if rows else {}
        arrays = [pa.array(columns.get(field.name, []), field.type) for field in table.source_schema]
        path = tmp_path / f"{table.name}.parquet"
        pq.write_table(pa.table(arrays, schema=table.source_schema), path, **options)
        staged_rows = area.rows(f"{table.name}_{next(NUMBERS)}")
        stage(staged_rows, table, path, parent)
        return staged_rows

    return staged


def read(rows: StagedRows) -> pa.Table:
    return rows.area.connection.sql(rows.query).to_arrow_table()


def order(key: str | None, at: datetime | None = FIRST_OF_OCTOBER, cents: int = 100) -> tuple:
    return (key, "ann", at, "philadelphia", cents, 6, cents + 6)


# ---- keys


def test_good_keys_pass(staged):
    audit.check_keys(staged(RAW_ORDERS, [order("1"), order("2")]), RAW_ORDERS)


def test_an_empty_table_has_good_keys(staged):
    audit.check_keys(staged(RAW_ORDERS, []), RAW_ORDERS)


def test_a_key_that_comes_twice_is_refused_and_shown(staged):
    rows = staged(RAW_CUSTOMERS, [("1", "ann"), ("7", "bob"), ("7", "cid")])
    with pytest.raises(ContractError, match=r"raw_customers\.id: expected unique values, found '7' 2 times"):
        audit.check_keys(rows, RAW_CUSTOMERS)


def test_a_key_of_two_columns_is_unique_as_a_pair(staged):
    pairs = [("1", "cup", 5, False, "JAF-1"), ("1", "cup", 5, False, "JAF-2")]
    audit.check_keys(staged(RAW_SUPPLIES, pairs), RAW_SUPPLIES)
    with pytest.raises(ContractError, match=r"raw_supplies\.id\+sku: .* found '1', 'JAF-1' 2 times"):
        audit.check_keys(staged(RAW_SUPPLIES, [*pairs, pairs[0]]), RAW_SUPPLIES)


@pytest.mark.parametrize(
    ("rows", "column", "count"),
    [
        ([order("1"), order(None), order(None)], "id", "2 rows"),
        ([order("1"), order("2", at=None)], "ordered_at", "1 row"),
    ],
)
def test_a_row_without_key_or_time_is_refused(staged, rows, column, count):
    found = rf"raw_orders\.{column}: expected no nulls, found {count} without a value"
    with pytest.raises(ContractError, match=found):
        audit.check_keys(staged(RAW_ORDERS, rows), RAW_ORDERS)


def test_a_value_beside_the_key_may_be_missing_or_repeated(staged):
    rows = [("1", "ann"), ("2", "ann"), ("3", None)]
    audit.check_keys(staged(RAW_CUSTOMERS, rows), RAW_CUSTOMERS)


def test_texts_with_separators_in_them_do_not_pass_for_the_same_content(staged):
    pairs = [("1", "a\x1fb", "c"), ("1", "a", "b\x1fc"), ("1", "", "c"), ("1", None, "c"), ("1", "\0", "c")]
    versions = {content_of(staged(TWO_TEXTS, [row]), TWO_TEXTS).hash for row in pairs}
    assert len(versions) == len(pairs)


def test_texts_that_are_a_key_of_their_own_are_not_compressed(tmp_path):
    ids = [f"{number:036x}" for number in range(5_000)]
    path = tmp_path / "things.parquet"
    pq.write_table(pa.table({"id": ids, "one": ids, "other": ids}), path)
    with duckdb.connect(str(tmp_path / "warehouse.duckdb")) as connection:
        rows = StagingArea(connection, tmp_path, 512, '"main"').rows("things", for_warehouse=True)
        stage(rows, TWO_TEXTS, path)
        connection.execute("checkpoint")
        compressed = connection.execute(
            f"select distinct column_name from pragma_storage_info({sql.literal(f'{STAGING_PREFIX}things')})"
            " where compression not in ('Uncompressed', 'Constant', 'Empty Validity')"
        ).fetchall()
    assert {name for (name,) in compressed} == {"one", "other"}


# ---- dated by a parent


def test_an_item_has_the_time_of_its_order(staged):
    orders = staged(RAW_ORDERS, [order("o1", LAST_OF_SEPTEMBER), order("o2"), order("without items")])
    items = [("1", "o2", "JAF-1"), ("2", "o1", "JAF-1"), ("3", "o2", "BEV-1")]
    dated = read(staged(RAW_ITEMS, items, orders))
    assert (dated.schema.names, dated.schema.types) == (RAW_ITEMS.schema.names, RAW_ITEMS.schema.types)
    assert {row["id"]: row["ordered_at"] for row in dated.to_pylist()} == {
        "1": FIRST_OF_OCTOBER,
        "2": LAST_OF_SEPTEMBER,
        "3": FIRST_OF_OCTOBER,
    }


@pytest.mark.parametrize("stray", ["o9", None])
def test_an_item_of_no_known_order_is_refused(staged, stray):
    orders = staged(RAW_ORDERS, [order("o1")])
    items = staged(RAW_ITEMS, [("1", "o1", "JAF-1"), ("2", stray, "JAF-1")], orders)
    with pytest.raises(ContractError) as raised:
        audit.check_parents(items, RAW_ITEMS, lambda: orders)
    assert str(raised.value) == (
        f"raw_items.order_id: expected keys of raw_orders, found 1 rows of others, such as {stray!r}."
    )


def test_an_item_of_an_order_of_another_month_is_left_out(staged):
    september, every = order("o1", LAST_OF_SEPTEMBER), [order("o1", LAST_OF_SEPTEMBER), order("o2")]
    items = staged(RAW_ITEMS, [("1", "o1", "JAF-1"), ("2", "o2", "JAF-1")], staged(RAW_ORDERS, [september]))
    assert audit.check_parents(items, RAW_ITEMS, lambda: staged(RAW_ORDERS, every)) == 1
    kept = audit.within(items, RAW_ITEMS, Window.of_months(SEPTEMBER, OCTOBER))
    assert read(kept)["id"].to_pylist() == ["1"]


# ---- window


def test_a_window_keeps_its_first_instant_and_not_its_end(staged):
    times = [LAST_OF_SEPTEMBER, FIRST_OF_OCTOBER, datetime(2026, 10, 31, 23, 59, 59, 999_999)]
    times.append(datetime(2026, 11, 1))
    orders = staged(RAW_ORDERS, [order(str(n), at) for n, at in enumerate(times)])
    kept = audit.within(orders, RAW_ORDERS, Window.of_months(OCTOBER, OCTOBER))
    assert sorted(read(kept)["id"].to_pylist()) == ["1", "2"]
    assert content_of(kept, RAW_ORDERS).rows == 2


def test_a_quote_in_a_path_is_part_of_the_path(staged, area, tmp_path):
    staged(RAW_CUSTOMERS, [("1", "ann")])
    folder = tmp_path / "ann's files"
    folder.mkdir()
    path = (tmp_path / f"{RAW_CUSTOMERS.name}.parquet").rename(folder / "customers.parquet")
    rows = replace(area, scratch=folder).rows("ann's rows")
    stage(rows, RAW_CUSTOMERS, path)
    assert pq.read_table(rows.parquet())["name"].to_pylist() == ["ann"]


# ---- content

ROWS = [order(str(n), datetime(2026, 9 + n % 2, 1 + n % 28), cents=n) for n in range(500)]


def test_content_does_not_depend_on_the_order_of_rows_or_the_layout_of_the_file(staged):
    content = content_of(staged(RAW_ORDERS, ROWS), RAW_ORDERS)
    other = staged(RAW_ORDERS, ROWS[::-1], row_group_size=7, compression="gzip", use_dictionary=False)
    assert content_of(other, RAW_ORDERS) == content


@pytest.mark.parametrize("column", range(len(RAW_ORDERS.columns)))
def test_content_changes_with_a_single_value_of_any_column(staged, column):
    content = content_of(staged(RAW_ORDERS, ROWS), RAW_ORDERS)
    value = ROWS[250][column]
    changed = {str: "else", int: -1, datetime: datetime(2026, 9, 2, 0, 0, 0, 1)}[type(value)]
    row = (*ROWS[250][:column], changed, *ROWS[250][column + 1 :])
    rows = staged(RAW_ORDERS, [*ROWS[:250], row, *ROWS[251:]])
    found = content_of(rows, RAW_ORDERS)
    assert found.rows == content.rows
    assert found.hash != content.hash


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ([("1", None)], [("1", "")]),
        ([("1", "ab")], [("1a", "b")]),
        ([(None, "1")], [("1", None)]),
        ([("1", "x"), ("2", "y")], [("1", "y"), ("2", "x")]),
        ([("1", "x")], [("1", "x"), ("1", "x")]),
        ([("1", "x")], [("1", "x"), ("1", "x"), ("1", "x")]),
        ([("1", "x"), ("1", "x"), ("2", "z")], [("1", "y"), ("1", "y"), ("2", "z")]),
        ([], [("1", "x")]),
        ([("1", "x")], [("1", "x ")]),
        ([("1", "x")], [("1", "X")]),
    ],
)
def test_tables_that_differ_have_different_content(staged, one, other):
    content = content_of(staged(RAW_CUSTOMERS, one), RAW_CUSTOMERS)
    assert content_of(staged(RAW_CUSTOMERS, other), RAW_CUSTOMERS).hash != content.hash


def test_a_renamed_column_is_new_content(staged):
    renamed = replace(RAW_CUSTOMERS, columns={"id": pa.string(), "full_name": pa.string()})
    rows = [("1", "ann")]
    content = content_of(staged(RAW_CUSTOMERS, rows), RAW_CUSTOMERS)
    assert content_of(staged(renamed, rows), renamed).hash != content.hash


def test_every_month_has_its_own_rows_and_hash(staged):
    rows = [order("1", LAST_OF_SEPTEMBER), order("2"), order("3")]
    content = content_of(staged(RAW_ORDERS, rows), RAW_ORDERS)
    assert content.rows == 3
    assert {month: part.rows for month, part in content.months.items()} == {SEPTEMBER: 1, OCTOBER: 2}

    october_changed = [*rows[:2], order("3", cents=999)]
    found = content_of(staged(RAW_ORDERS, october_changed), RAW_ORDERS)
    assert found.months[SEPTEMBER] == content.months[SEPTEMBER]
    assert found.months[OCTOBER].hash != content.months[OCTOBER].hash


def test_a_month_means_the_same_alone_and_among_others(staged):
    among = content_of(staged(RAW_ORDERS, ROWS), RAW_ORDERS)
    september = [row for row in ROWS if row[2].month == 9]
    alone = content_of(staged(RAW_ORDERS, september), RAW_ORDERS)
    assert alone.months == {SEPTEMBER: among.months[SEPTEMBER]}


def test_a_snapshot_has_no_months(staged):
    content = content_of(staged(RAW_CUSTOMERS, [("1", "ann")]), RAW_CUSTOMERS)
    assert content.rows == 1
    assert content.months == {}
