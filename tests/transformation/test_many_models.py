"""What a run asks of the warehouse and of Dagster's event log does not grow with the number of models."""

from collections.abc import Iterator
from contextlib import contextmanager

import duckdb
import pytest

from serverless_assets.dagster_storage import SqliteEventLogStorage
from serverless_assets.instance import open_instance, prepare_dagster_home
from serverless_assets.warehouse.duckdb import DuckDBWarehouse
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

    connect = DuckDBWarehouse._connect
    monkeypatch.setattr(DuckDBWarehouse, "_connect", lambda warehouse: Connection(connect(warehouse)))
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
