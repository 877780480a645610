"""What a DuckDB file adds to a warehouse's promises: one process has it open at a time."""

import logging
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
import duckdb
import pandas as pd
import pyarrow as pa
import pytest

from serverless_assets.python_assets.pandas_tables import read_frame
from serverless_assets.warehouse import TableShape, WarehouseError
from serverless_assets.warehouse import duckdb_file as module
from serverless_assets.warehouse.duckdb import DuckDBWarehouse

OPEN = "import duckdb, sys; duckdb.connect(sys.argv[1]).close()"
OPEN_UNTIL_EOF = """
import duckdb, sys
connection = duckdb.connect(sys.argv[1])
print("open", flush=True)
sys.stdin.read()
connection.close()
"""


@pytest.fixture
def warehouse(tmp_path: Path) -> DuckDBWarehouse:
    path = tmp_path / "warehouse.duckdb"
    duckdb.connect(str(path)).execute("create schema dwh; create table dwh.days as select 1 as day").close()
    return DuckDBWarehouse(path, "dwh")


def others_can_open(warehouse: DuckDBWarehouse) -> bool:
    done = subprocess.run([sys.executable, "-c", OPEN, str(warehouse.path)], capture_output=True, text=True)
    assert done.returncode == 0 or "Conflicting lock" in done.stderr, done.stderr
    return done.returncode == 0


def test_questions_in_a_row_keep_others_out_until_the_last_is_answered(warehouse):
    with warehouse.connected():
        assert warehouse.row_count("days") == 1
        assert not others_can_open(warehouse)
        assert warehouse.tables() == {"days"}
    assert others_can_open(warehouse)


def test_an_error_between_two_questions_lets_others_in(warehouse):
    with pytest.raises(ZeroDivisionError), warehouse.connected():
        _ = 1 / 0
    assert others_can_open(warehouse)


def test_to_ask_makes_no_file(tmp_path):
    nothing = DuckDBWarehouse(tmp_path / "warehouse.duckdb", "dwh")
    with nothing.connected():
        assert nothing.read_states() == {}
    assert not nothing.path.exists()


@contextmanager
def opened_by_another_process(path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that has the file open until its standard input is closed."""
    with subprocess.Popen(
        [sys.executable, "-c", OPEN_UNTIL_EOF, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout and process.stdout.readline() == "open\n"
        yield process


class ClosesTheFile(logging.Handler):
    """Ends another process as soon as a message is logged."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        super().__init__()
        self.process = process
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())
        assert self.process.stdin
        self.process.stdin.close()


def test_a_file_that_is_open_elsewhere_is_waited_for_and_the_process_is_named_at_once(warehouse):
    with opened_by_another_process(warehouse.path) as process:
        handler = ClosesTheFile(process)
        module.log.addHandler(handler)
        try:
            assert warehouse.row_count("days") == 1
        finally:
            module.log.removeHandler(handler)
        [message] = handler.messages
        assert f"{warehouse.path} is open in process {process.pid} (python" in message


def test_a_file_that_stays_open_elsewhere_is_waited_for_no_longer_than_the_bound(warehouse, monkeypatch):
    monkeypatch.setattr(module, "SECONDS_TO_WAIT_FOR_FILE", 0.0)
    with (
        opened_by_another_process(warehouse.path) as process,
        pytest.raises(WarehouseError, match=f"still open in process {process.pid} .* Close it there"),
    ):
        warehouse.row_count("days")


def test_what_is_not_a_warehouse_is_refused_without_waiting(tmp_path, monkeypatch):
    monkeypatch.setattr(module.time, "sleep", lambda seconds: pytest.fail("it waited"))
    path = tmp_path / "warehouse.duckdb"
    path.write_bytes(b"x" * 10_000)
    with pytest.raises(WarehouseError, match="not a valid DuckDB database file"):
        DuckDBWarehouse(path, "dwh").tables()


def test_relations_of_two_databases_are_read_as_frames_and_as_each_others_views(warehouse, tmp_path):
    warehouse.prepare_schemas([("warehouse", "dwh"), ("Other", "mart")])
    there = warehouse.in_schema("other", "mart")
    shape = TableShape("days", pa.schema({"day": pa.int64()}))
    there.replace_rows(shape, pa.table({"day": [2]}), {"version": "1"})
    with duckdb.connect(str(warehouse.path)) as connection:
        connection.execute(f"attach '{tmp_path}/databases/Other.duckdb'")
        connection.execute("create view dwh.both_days as from dwh.days union all from other.mart.days")
    assert (there.tables(), warehouse.tables()) == ({"days"}, {"days", "both_days"})
    assert there.read_states() == {"days": {"version": "1"}}
    anything = dg.DagsterType(lambda context, value: True, typing_type=pd.DataFrame, name="frame")
    for place, table, days in ((there, "days", [2]), (warehouse, "both_days", [1, 2])):
        assert sorted(read_frame(place, table, {}, anything)["day"]) == days
