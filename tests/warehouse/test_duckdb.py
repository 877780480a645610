"""What a DuckDB file adds to a warehouse's promises: one process has it open at a time."""

import subprocess
import sys
from pathlib import Path

import duckdb
import pytest

from serverless_assets.warehouse.duckdb import DuckDBWarehouse

OPEN = "import duckdb, sys; duckdb.connect(sys.argv[1]).close()"


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
        assert nothing.notes() == {}
    assert not nothing.path.exists()
