from dataclasses import replace
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from serverless_assets.ingestion.contract import ContractError
from serverless_assets.ingestion.raw_table import LARGEST_INTEGER, LONGEST_TEXT_BYTES, TIMESTAMP, RawTable
from serverless_assets.ingestion.stage import stage
from serverless_assets.warehouse import staging
from serverless_assets.warehouse.staging import StagingArea
from tests.raw_tables import RAW_PRODUCTS, RAW_STORES, RAW_SUPPLIES, TABLES

NOON = datetime(2026, 10, 1, 12, 30)
THING = RawTable(
    "things",
    "All kinds.",
    {"id": pa.string(), "name": pa.string(), "price": pa.int64(), "rate": pa.float64(), "made_at": TIMESTAMP},
)
GOOD = {
    "id": pa.array(["1", "2"]),
    "name": pa.array(["jaffle", None]),
    "price": pa.array([1100, -5], pa.int64()),
    "rate": pa.array([0.06, None]),
    "made_at": pa.array([NOON, None], pa.timestamp("us")),
}


@pytest.fixture
def staged(tmp_path: Path):
    """What a table is after its contract, given the file that the source serves."""

    def staged(source: Path, table: RawTable = THING, memory_mib: int = 512) -> pa.Table:
        with duckdb.connect() as connection:
            rows = StagingArea(connection, tmp_path, memory_mib).rows(table.name)
            stage(rows, table, source)
            return connection.sql(rows.query).to_arrow_table()

    return staged


@pytest.fixture
def arrive(tmp_path: Path, staged):
    """What a table is after its contract, given the columns that the source serves."""

    def arrive(
        columns: dict[str, pa.Array], table: RawTable = THING, memory_mib: int = 512, **options: object
    ) -> pa.Table:
        source = tmp_path / "source.parquet"
        pq.write_table(pa.table(columns), source, **options)
        arrived = staged(source, table, memory_mib)
        assert arrived.schema.equals(table.source_schema)
        return arrived

    return arrive


def test_a_table_in_the_contracts_own_types_arrives_as_it_is(arrive):
    assert arrive(GOOD).to_pydict() == pa.table(GOOD).to_pydict()


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_every_table_of_the_catalogue_can_arrive_empty(arrive, table):
    assert (
        arrive(
            table.source_schema.empty_table().to_pydict()
            and {name: pa.array([], kind) for name, kind in table.columns.items()},
            table,
        ).num_rows
        == 0
    )


def test_columns_arrive_in_the_contracts_order_without_those_beyond_it(arrive):
    served = {"loyalty": pa.array([1, 2]), **dict(reversed(GOOD.items())), "nested": pa.array([[1], [2]])}
    assert arrive(served).column_names == list(THING.columns)


def test_a_table_of_many_row_groups_arrives_whole(arrive):
    many = 130_000
    columns = {"sku": [str(n) for n in range(many)], "name": ["x"] * many, "type": ["y"] * many}
    served = {
        **{name: pa.array(values) for name, values in columns.items()},
        "price": pa.array(range(many), pa.int32()),
        "description": pa.nulls(many),
    }
    arrived = arrive(served, RAW_PRODUCTS, row_group_size=10_000)
    arrived = arrived.sort_by("price")
    assert arrived["price"].to_pylist() == list(range(many))
    assert arrived["sku"].to_pylist() == columns["sku"]


# ---- other types that mean the same


@pytest.mark.parametrize(
    ("column", "served", "means"),
    [
        ("price", pa.array([1100, None], pa.int32()), [1100, None]),
        ("price", pa.array([200, 0], pa.uint8()), [200, 0]),
        ("price", pa.array([1100.0, -5.0]), [1100, -5]),
        ("price", pa.array([Decimal("1100.00"), Decimal("-5.00")], pa.decimal128(12, 2)), [1100, -5]),
        ("price", pa.array([1100, 5]).dictionary_encode(), [1100, 5]),
        ("price", pa.nulls(2), [None, None]),
        ("id", pa.array([7, 2**62], pa.int64()), ["7", str(2**62)]),
        ("id", pa.array([7, 2**64 - 1], pa.uint64()), ["7", str(2**64 - 1)]),
        ("id", pa.array(["a", "b"], pa.large_string()), ["a", "b"]),
        ("id", pa.array(["a", "b"], pa.string_view()), ["a", "b"]),
        ("name", pa.array(["jaffle", "jaffle"]).dictionary_encode(), ["jaffle", "jaffle"]),
        ("name", pa.array(["ü", "\x00"], pa.large_string()).dictionary_encode(), ["ü", "\x00"]),
        ("rate", pa.array([1, 0], pa.int8()), [1.0, 0.0]),
        ("rate", pa.array([0.5, 0.25], pa.float32()), [0.5, 0.25]),
        ("rate", pa.array([Decimal("0.0625"), None], pa.decimal128(6, 4)), [0.0625, None]),
        ("made_at", pa.array([date(2026, 10, 1), None]), [datetime(2026, 10, 1), None]),
        ("made_at", pa.array([date(2026, 10, 1), None], pa.date64()), [datetime(2026, 10, 1), None]),
        ("made_at", pa.array([NOON, None], pa.timestamp("s")), [NOON, None]),
        ("made_at", pa.array([NOON, None], pa.timestamp("ms")), [NOON, None]),
        ("made_at", pa.array([NOON, None], pa.timestamp("ns")), [NOON, None]),
        ("made_at", pa.array([NOON, NOON], pa.timestamp("us")).dictionary_encode(), [NOON, NOON]),
    ],
    ids=lambda value: str(value.type) if isinstance(value, pa.Array) else None,
)
def test_a_type_that_means_the_same_is_taken_without_loss(arrive, column, served, means):
    assert arrive({**GOOD, column: served})[column].to_pylist() == means


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "+05:30"])
@pytest.mark.parametrize("unit", ["ms", "us", "ns"])
def test_a_time_in_any_zone_arrives_as_the_same_instant_in_utc(arrive, zone, unit):
    instant = datetime(2026, 10, 1, 14, 30, tzinfo=timezone(timedelta(hours=2)))
    served = pa.array([instant.astimezone(UTC), None], pa.timestamp(unit, zone))
    assert arrive({**GOOD, "made_at": served})["made_at"].to_pylist() == [NOON, None]
    assert arrive({**GOOD, "made_at": served.dictionary_encode()})["made_at"].to_pylist() == [NOON, None]


# ---- refused


@pytest.mark.parametrize(
    ("column", "served", "found"),
    [
        ("price", pa.array([1.5, 2.0]), "double that does not convert.*1.5"),
        ("price", pa.array([float("nan"), 2.0]), "double that does not convert"),
        ("price", pa.array([1e300, 2.0]), "double that does not convert"),
        ("price", pa.array([Decimal("1.50"), None], pa.decimal128(6, 2)), "decimal.*does not convert"),
        ("price", pa.array([2**64 - 1, 0], pa.uint64()), "uint64 that does not convert"),
        ("price", pa.array(["11.00", "5"]), "string"),
        ("price", pa.array(["11", "5"]).dictionary_encode(), "dictionary.*string"),
        ("price", pa.array([True, False]), "bool"),
        ("id", pa.array([1.0, 2.0]), "double"),
        ("id", pa.array([b"a", b"b"]), "binary"),
        ("made_at", pa.array(["2026-10-01", "2026-10-02"]), "string"),
        ("made_at", pa.array([1, 2]), "int64"),
        ("made_at", pa.array([1_001, 2_000], pa.timestamp("ns")), "timestamp.*does not convert"),
        ("rate", pa.array([2**53 + 1, 0]), "int64 that does not convert"),
    ],
    ids=lambda value: str(value.type) if isinstance(value, pa.Array) else None,
)
def test_a_value_that_would_change_is_refused_by_table_and_column(arrive, column, served, found):
    expected = THING.columns[column]
    with pytest.raises(ContractError) as raised:
        arrive({**GOOD, column: served})
    assert str(raised.value).startswith(f"things.{column}: expected {expected}")
    raised.match(f"found {found}")


def test_a_bad_value_in_the_last_row_is_refused_too(arrive):
    many = 130_000
    served = {name: pa.nulls(many) for name in RAW_SUPPLIES.columns}
    with pytest.raises(ContractError, match=r"raw_supplies\.cost: expected int64, found double.*0\.5"):
        arrive({**served, "cost": pa.array([1.0] * (many - 1) + [0.5])}, RAW_SUPPLIES)


def test_every_missing_and_mistyped_column_is_told_at_once(arrive):
    with pytest.raises(ContractError) as raised:
        arrive({"id": pa.array(["1"]), "Name": pa.array(["x"]), "opened_at": pa.array(["soon"])}, RAW_STORES)
    assert str(raised.value) == (
        "raw_stores.name: expected string, found no column 'name'; the file has id, Name, opened_at; "
        "raw_stores.opened_at: expected timestamp[us], found string; "
        "raw_stores.tax_rate: expected double, found no column 'tax_rate'; the file has id, Name, opened_at."
    )


def test_a_column_that_comes_twice_is_refused(staged, tmp_path):
    served = pa.table([*GOOD.values(), GOOD["price"]], names=[*GOOD, "price"])
    pq.write_table(served, tmp_path / "source.parquet")
    with pytest.raises(ContractError, match=r"things\.price: expected"):
        staged(tmp_path / "source.parquet")


# ---- bounds of values


def times(*values: int | datetime, unit: str = "us") -> pa.Array:
    return pa.array(values).cast(pa.timestamp(unit))


@pytest.mark.parametrize(
    ("column", "served", "expected", "found"),
    [
        ("made_at", times(NOON, datetime(9999, 12, 31)), "times from 1900-01-01", "9999-12-31 00:00:00"),
        ("made_at", times(NOON, datetime(1, 1, 1)), "up to 2200-01-01", "0001-01-01 00:00:00"),
        ("made_at", times(datetime(2200, 1, 1), NOON), "times from", "2200-01-01 00:00:00"),
        ("made_at", times(0, 2**62), "times from", "148108-07-06"),
        ("made_at", times(0, -(2**55), unit="ms").cast(pa.timestamp("ms", "Asia/Tokyo")), "t", "out of"),
        ("made_at", pa.array([0, 2**30], pa.int32()).cast(pa.date32()), "timestamp", "out of bounds"),
        ("price", pa.array([1, 2**63 - 1]), "numbers from -1,000,000", "9223372036854775807"),
        ("price", pa.array([-(10**15) - 1, 1]), "to 1,000,000,000,000,000", "-1000000000000001"),
        ("rate", pa.array([0.1, float("nan")]), "finite numbers", "nan"),
        ("rate", pa.array([float("-inf"), None]), "finite numbers", "-inf"),
        ("name", pa.array(["x" * (LONGEST_TEXT_BYTES + 1), None]), "at most 4,096 bytes", "one of 4,097 by"),
        ("name", pa.array(["é" * LONGEST_TEXT_BYTES, None], pa.large_string()), "4,096 bytes", "8,192 bytes"),
    ],
    ids=lambda value: str(value.type) if isinstance(value, pa.Array) else None,
)
def test_a_value_beyond_the_bounds_of_its_type_is_refused_by_table_and_column(
    arrive, column, served, expected, found
):
    with pytest.raises(ContractError) as raised:
        arrive({**GOOD, column: served})
    allowed, _, value = str(raised.value).removeprefix(f"things.{column}: expected ").partition(", found ")
    assert expected in allowed
    assert found in value
    assert len(str(raised.value)) < 300


def test_values_at_the_bounds_and_negative_amounts_are_taken(arrive):
    edge = {
        "made_at": times(datetime(1900, 1, 1), datetime(2199, 12, 31, 23, 59, 59, 999_999)),
        "price": pa.array([-LARGEST_INTEGER, LARGEST_INTEGER]),
        "name": pa.array(["x" * LONGEST_TEXT_BYTES, ""]),
    }
    arrived = arrive({**GOOD, **edge})
    assert {name: arrived[name].to_pylist() for name in edge} == {n: v.to_pylist() for n, v in edge.items()}


def test_a_column_may_be_allowed_longer_texts_than_others(arrive):
    served = {name: pa.array(["x"], kind) if kind == pa.string() else pa.array([1], kind)
              for name, kind in RAW_PRODUCTS.columns.items()}  # fmt: skip
    assert arrive({**served, "description": pa.array(["x" * 64 * 1024])}, RAW_PRODUCTS).num_rows == 1
    with pytest.raises(
        ContractError, match=r"raw_products\.description: .* 65,536 bytes, found one of 65,537"
    ):
        arrive({**served, "description": pa.array(["x" * (64 * 1024 + 1)])}, RAW_PRODUCTS)


def test_a_small_file_that_repeats_a_large_text_on_each_row_is_refused_without_unfolding_it(arrive):
    rows = 3_000
    repeated = pa.DictionaryArray.from_arrays(pa.array([0] * rows, pa.int32()), pa.array(["x" * 1_000_000]))
    served = {name: pa.array([values[0].as_py()] * rows, values.type) for name, values in GOOD.items()}
    with pytest.raises(ContractError, match=r"things\.name: .* found one of 1,000,000 bytes"):
        arrive({**served, "name": repeated})


def test_a_text_larger_than_the_memory_to_read_it_in_is_refused(arrive):
    with pytest.raises(
        ContractError, match=r"^things: expected texts of at most 4,096 bytes, .* 20 MiB of memory"
    ):
        arrive({**GOOD, "name": pa.array(["x" * 40_000_000, "y"])}, memory_mib=20, use_dictionary=False)


def test_a_file_that_is_much_smaller_than_its_rows_gets_all_the_memory_that_there_may_be(arrive, monkeypatch):
    # So that a few rows are enough.
    monkeypatch.setattr(staging, "MIB_PER_THREAD", 4)
    table = replace(THING, longest_text={"name": 100_000})
    served = {name: pa.array([values[0].as_py()] * 300, values.type) for name, values in GOOD.items()}
    served = {**served, "name": pa.array(["x" * 100_000] * 300)}
    assert arrive(served, table).num_rows == 300


def test_an_error_is_short_whatever_the_source_calls_its_columns(arrive):
    with pytest.raises(ContractError) as raised:
        arrive({"x" * 100_000: pa.array([1])}, RAW_STORES)
    assert len(str(raised.value)) < 4_000


# ---- damaged files


@pytest.fixture
def intact(tmp_path: Path) -> Path:
    path = tmp_path / "source.parquet"
    served = pa.table(
        {name: pa.array([values[0].as_py()] * 5_000, values.type) for name, values in GOOD.items()}
    )
    served = served.set_column(0, "id", pa.array([str(n * 7919) for n in range(5_000)]))
    pq.write_table(served, path, compression="zstd", row_group_size=1_000)
    return path


@pytest.mark.parametrize("kept", [0, 4, 12, 0.5, 0.99])
def test_a_truncated_file_is_refused(intact, staged, kept):
    content = intact.read_bytes()
    intact.write_bytes(content[: kept if isinstance(kept, int) else int(len(content) * kept)])
    with pytest.raises(ContractError, match="things: the file cannot be read as parquet"):
        staged(intact)


def test_a_file_with_a_hole_between_a_good_start_and_a_good_end_is_refused(intact, staged):
    content = intact.read_bytes()
    intact.write_bytes(content[:1000] + bytes(3000) + content[4000:])
    with pytest.raises(ContractError, match="things: the file"):
        staged(intact)


def test_a_file_with_its_middle_missing_is_refused(intact, staged):
    content = intact.read_bytes()
    intact.write_bytes(content[:1000] + content[4000:])
    with pytest.raises(ContractError, match="things: the file"):
        staged(intact)


@pytest.mark.parametrize("footer", [b"", b"garbage" * 20, bytes(200)])
def test_a_file_whose_footer_is_garbage_is_refused(staged, tmp_path, footer):
    path = tmp_path / "source.parquet"
    path.write_bytes(b"PAR1" + footer + len(footer).to_bytes(4, "little") + b"PAR1")
    with pytest.raises(ContractError, match="things: the file cannot be read as parquet"):
        staged(path)


def test_text_that_is_no_text_is_refused(arrive):
    no_utf8 = pa.StringArray.from_buffers(
        2, pa.py_buffer(b"\x00\x00\x00\x00\x01\x00\x00\x00\x02\x00\x00\x00"), pa.py_buffer(b"\xff\xfe")
    )
    with pytest.raises(ContractError, match=r"things\.name: expected string"):
        arrive({**GOOD, "name": no_utf8})
