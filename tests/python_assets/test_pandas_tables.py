"""A Python asset is a function that takes and returns small pandas frames."""

from datetime import date
from pathlib import Path

import dagster as dg
import pandas as pd
import pyarrow as pa
import pytest

from serverless_assets.metadata import ROWS, plain_values
from serverless_assets.publishing.local import LocalPublisher
from serverless_assets.python_assets.pandas_tables import pandas_tables, to_rows
from serverless_assets.warehouse import TableShape, WarehouseError


@pytest.fixture
def publisher(tmp_path: Path) -> LocalPublisher:
    publisher = LocalPublisher(tmp_path, "dwh")
    publisher.warehouse.path.parent.mkdir(parents=True)
    sales = pa.table({"Store": ["a", "b"], "sold": [1.5, 2.5], "day": [date(2026, 1, 1)] * 2})
    publisher.warehouse.replace_rows(TableShape("sales", sales.schema), sales, {})
    return publisher


def made(publisher: LocalPublisher, *assets: dg.AssetsDefinition) -> dict[str, object]:
    result = dg.materialize(
        [*assets, dg.AssetSpec("sales")],
        resources={"pandas": pandas_tables, "publisher": publisher},
        raise_on_error=False,
    )
    if not result.success:
        [failure] = result.get_step_failure_events()
        return {"failed": failure.step_failure_data.user_failure_data.description}
    [event] = result.get_asset_materialization_events()
    return plain_values(event.materialization.metadata)


def doubled(factor: float = 2.0, empty: bool = False) -> dg.AssetsDefinition:
    @dg.asset(
        io_manager_key="pandas",
        ins={"sales": dg.AssetIn(input_manager_key="pandas", metadata={"columns": ["Store", "sold"]})},
    )
    def plan(sales: pd.DataFrame) -> pd.DataFrame:
        assert list(sales.columns) == ["Store", "sold"]
        frame = sales.assign(needed=sales["sold"] * factor)
        return frame.head(0) if empty else frame

    return plan


def stored(publisher: LocalPublisher) -> list[dict[str, object]]:
    return publisher.warehouse.query('select * from dwh.plan order by "Store"').to_pylist()


def test_a_frame_is_read_changed_and_stored_with_its_own_column_names(publisher):
    facts = made(publisher, doubled())
    assert (facts["status"], facts["reason"], facts[ROWS]) == ("built", "first rows", 2)
    assert stored(publisher) == [
        {"Store": "a", "sold": 1.5, "needed": 3.0},
        {"Store": "b", "sold": 2.5, "needed": 5.0},
    ]


def test_the_same_rows_are_left_as_they_are_and_others_replace_them(publisher):
    made(publisher, doubled())
    facts = made(publisher, doubled())
    assert (facts["status"], facts["reason"]) == ("reused", "unchanged: same rows")
    assert made(publisher, doubled(3.0))["reason"] == "new rows"
    assert [row["needed"] for row in stored(publisher)] == [4.5, 7.5]


def test_an_empty_frame_is_an_empty_table_with_its_columns(publisher):
    made(publisher, doubled())
    assert made(publisher, doubled(empty=True))[ROWS] == 0
    assert stored(publisher) == []
    assert publisher.warehouse.query("select * from dwh.plan").column_names == ["Store", "sold", "needed"]


def test_what_cannot_be_stored_is_refused_and_the_last_rows_stay(publisher):
    made(publisher, doubled())

    @dg.asset(io_manager_key="pandas")
    def plan() -> object:
        return pd.DataFrame({"Store": ["c"], "sizes": [[1, 2]]})

    failed = str(made(publisher, plan)["failed"])
    assert "The column sizes of the asset plan has the type list<" in failed
    assert len(stored(publisher)) == 2


def test_a_table_that_is_not_there_is_said_in_a_sentence(publisher):
    @dg.asset(io_manager_key="pandas", ins={"stock": dg.AssetIn(input_manager_key="pandas")})
    def plan(stock: pd.DataFrame) -> pd.DataFrame:
        return stock

    assert "There is no table stock yet" in str(made(publisher, plan, dg.AssetSpec("stock"))["failed"])


def test_types_are_those_that_every_warehouse_has():
    frame = pd.DataFrame(
        {
            "text": ["a"],
            "small": pd.array([1], "int8"),
            "at": [pd.Timestamp("2026-01-02 03:04")],
            "yes": [True],
            "nothing": [None],
        }
    )
    assert to_rows(frame, "plan").schema == pa.schema(
        {
            "text": pa.string(),
            "small": pa.int64(),
            "at": pa.timestamp("us"),
            "yes": pa.bool_(),
            "nothing": pa.string(),
        }
    )
    with pytest.raises(WarehouseError, match="returns list: return a pandas DataFrame"):
        to_rows([1], "plan")
