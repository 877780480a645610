"""Each of many models is built once, and what a run asks beside dbt does not grow with their number."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime

import duckdb
import pyarrow as pa
import pytest

from serverless_assets.dagster_storage import SqliteEventLogStorage
from serverless_assets.instance import open_instance, prepare_dagster_home
from serverless_assets.warehouse import TableShape
from serverless_assets.warehouse import duckdb as duckdb_warehouse
from tests.generated_project import LAYERS, write_project
from tests.transformation.team import Team


def models(number: int) -> dict[str, str]:
    """So many tables and so many views, each with a test."""
    tests = "models:\n" + "".join(
        f"  - name: {kind}_{n}\n    columns: [{{name: id, data_tests: [not_null]}}]\n"
        for kind in ("table", "view")
        for n in range(number)
    )
    source = "{{ config(materialized='table') }} select id from {{ source('raw', 'raw_orders') }}"
    return {
        "models/tests.yml": tests,
        **{f"models/table_{n}.sql": source for n in range(number)},
        **{f"models/view_{n}.sql": f"select id from {{{{ ref('table_{n}') }}}}" for n in range(number)},
    }


@pytest.fixture
def statements(monkeypatch) -> list[str]:
    """The statements that this process sends to DuckDB, dbt's not among them."""
    sent: list[str] = []

    class Connection:
        def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
            self._connection = connection

        def execute(self, statement: str, *parameters: object) -> duckdb.DuckDBPyConnection:
            sent.append(statement)
            return self._connection.execute(statement, *parameters)

        def __getattr__(self, name: str) -> object:
            return getattr(self._connection, name)

    open_file = duckdb_warehouse.open_file
    monkeypatch.setattr(duckdb_warehouse, "open_file", lambda *arguments: Connection(open_file(*arguments)))
    return sent


@pytest.mark.slow
def test_queries_and_transactions_of_a_run_do_not_grow_with_the_number_of_models(
    team: Team, statements: list[str], tmp_path, monkeypatch
):
    transactions: list[str] = []
    connect = SqliteEventLogStorage._connect

    @contextmanager
    def counted(storage: SqliteEventLogStorage, shard: str) -> Iterator[object]:
        transactions.append(shard)
        with connect(storage, shard) as connection:
            yield connection

    monkeypatch.setattr(SqliteEventLogStorage, "_connect", counted)
    monkeypatch.setenv("DAGSTER_HOME", "")
    monkeypatch.setenv("DAGSTER_EVENT_BATCH_SIZE", "")
    prepare_dagster_home(tmp_path, 60)
    monkeypatch.setenv("DAGSTER_EVENT_BATCH_SIZE", "1000")
    costs = []
    with open_instance() as team.instance:
        for number in (2, 8):
            outcomes = team.write(models(number)).run()
            assert len(outcomes) == 2 * number
            statements.clear()
            transactions.clear()
            outcomes = team.run()
            assert {one["status"] for one in outcomes.values()} == {"reused"}
            costs.append((len(statements), len(transactions)))
            assert not [statement for statement in statements if "count(" in statement]
    assert costs[0] == costs[1]
    # The rows are those that were counted when it was built.
    assert (outcomes["table_0"]["rows"], outcomes["view_0"]["rows"]) == (3, None)


@pytest.mark.slow
def test_a_thousand_models_are_built_once_and_an_edit_builds_what_depends_on_it(team: Team):
    write_project(team.directory, 1000, light=True)
    stores = pa.table(
        {"id": ["s1"], "name": ["Brooklyn"], "opened_at": [datetime(2024, 1, 1)], "tax_rate": [0.1]}
    )
    team.warehouse.replace_rows(TableShape("raw_stores", stores.schema), stores, {"version": "1"})
    assert Counter((one["status"], one["reason"]) for one in team.run().values()) == {("built", "new"): 1000}
    assert Counter(one["reason"] for one in team.run().values()) == {"unchanged": 1000}

    edited = team.directory / "models" / "layer_5" / "m0542.sql"
    edited.write_text(edited.read_text() + "where a.tax_rate < 9000\n")
    outcomes = team.run()
    # Each is read by two of the next layer: that at its place, and that at the place before.
    below = {f"m0{layer}{place}" for layer in range(5, LAYERS) for place in range(47 - layer, 43)}
    assert {name for name, one in outcomes.items() if one["status"] == "built"} == below
    assert Counter(one["status"] for one in outcomes.values()) == {"reused": 985, "built": 15}
