"""The types that a source may serve: each is loaded alike by both warehouses, or refused in words."""

from datetime import date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from uuid import UUID

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from serverless_assets.ingestion.content import content_of
from serverless_assets.ingestion.contract import ContractError, declared_type
from serverless_assets.ingestion.raw_table import TYPES, RawTable
from serverless_assets.ingestion.stage import stage
from serverless_assets.warehouse.duckdb import DuckDBWarehouse
from serverless_assets.warehouse.staging import StagingArea

SOME_ID = UUID("0f8fad5b-d9cb-469f-a165-70867728950e")
LARGE = Decimal(10**37 + 1)
DAY = datetime(2026, 10, 1)

LOADED = [
    (pa.uuid(), SOME_ID.bytes, "string", str(SOME_ID)),
    (pa.decimal128(38, 0), LARGE, "string", str(LARGE)),
    (pa.decimal128(9, 0), Decimal(7), "bigint", 7),
    (pa.decimal128(12, 2), Decimal("1.25"), "double", 1.25),
    (pa.time64("us"), time(23, 59, 1), "string", "23:59:01.000000"),
    (pa.time32("ms"), time(7, 0), "string", "07:00:00.000"),
    (pa.int32(), 7, "bigint", 7),
    (pa.float32(), 0.5, "double", 0.5),
    (pa.date32(), date(2026, 10, 1), "timestamp", DAY),
    (pa.timestamp("ms", "Europe/Berlin"), datetime(2026, 10, 1, 0), "timestamp", DAY),
    (pa.large_string(), "x", "string", "x"),
    (pa.dictionary(pa.int8(), pa.string()), "x", "string", "x"),
    (pa.bool_(), True, "boolean", True),
    (pa.binary(), b"x\xff", "binary", b"x\xff"),
    (pa.binary(2), b"x\x00", "binary", b"x\x00"),
    (pa.list_(pa.string()), ["x", None], "string", '["x",null]'),
    (pa.struct({"a": pa.int64(), "b": pa.list_(pa.bool_())}), {"a": 1, "b": []}, "string", '{"a":1,"b":[]}'),
    (pa.map_(pa.string(), pa.string()), [("a", "b")], "string", '{"a":"b"}'),
]
REFUSED = [
    (pa.decimal256(50, 0), LARGE),
    (pa.duration("s"), timedelta(hours=1)),
]


def table_of(data_type: str) -> RawTable:
    return RawTable("raw", "A table.", {"id": pa.string(), "value": TYPES[data_type]})


def serve(path: Path, kind: pa.DataType, value: object) -> Path:
    pq.write_table(pa.table({"id": ["a", "b"], "value": pa.array([value, None], kind)}), path)
    return path


@pytest.mark.parametrize(("kind", "value", "data_type", "loaded"), LOADED, ids=lambda item: str(item)[:20])
def test_a_type_is_loaded_as_what_both_warehouses_hold(tmp_path, kind, value, data_type, loaded):
    source = serve(tmp_path / "source.parquet", kind, value)
    assert declared_type(pq.read_schema(source).field("value").type) == data_type
    table, warehouse = table_of(data_type), DuckDBWarehouse(tmp_path / "warehouse.duckdb", "dwh")
    with warehouse.staging(tmp_path, 512) as area:
        staged = area.rows("raw", for_warehouse=True)
        again = area.rows("again")
        for rows in (staged, again):
            stage(rows, table, source)
        assert content_of(staged, table).hash == content_of(again, table).hash
        warehouse.replace_rows(table.shape, staged, {})
    answer = warehouse.query(f"select value from {warehouse.quoted_name('raw')} order by id")
    assert answer["value"].to_pylist() == [loaded, None]


@pytest.mark.parametrize(("kind", "value"), REFUSED, ids=lambda item: str(item)[:20])
def test_another_type_is_refused_with_its_column_and_what_to_do(tmp_path, kind, value):
    assert declared_type(kind) is None
    source = serve(tmp_path / "source.parquet", kind, value)
    with duckdb.connect() as connection, pytest.raises(ContractError) as refused:
        stage(StagingArea(connection, tmp_path, 512).rows("raw"), table_of("string"), source)
    served = pq.read_schema(source).field("value").type
    assert str(refused.value) == (
        f"raw.value: expected string, found {served}, which cannot be loaded (serve it as text, or leave the "
        "column out of the entry)."
    )


@pytest.mark.parametrize(
    ("kind", "value", "data_type", "problem"),
    [
        (pa.binary(), b"x" * 5000, "binary", "values of at most 4,096 bytes, found one of 5,000 bytes"),
        (pa.list_(pa.string()), ["x" * 5000], "string", "texts of at most 4,096 bytes, found one of 5,004 b"),
        (pa.string(), "x", "binary", "binary, found string"),
    ],
)
def test_bytes_and_json_have_the_bounds_of_text(tmp_path, kind, value, data_type, problem):
    source = serve(tmp_path / "source.parquet", kind, value)
    with duckdb.connect() as connection, pytest.raises(ContractError, match=f"raw.value: expected {problem}"):
        stage(StagingArea(connection, tmp_path, 512).rows("raw"), table_of(data_type), source)
