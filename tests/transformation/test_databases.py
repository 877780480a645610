"""Models in several databases: built, reused, published, taken back and dropped as those of one are."""

import json
import logging
from contextlib import closing
from typing import Any

import duckdb
import pytest

from serverless_assets.transformation.slim_ci import slim_ci
from tests.test_docs_commands import block
from tests.transformation.conftest import ROWS
from tests.transformation.team import BASE, Team

pytestmark = pytest.mark.slow

LOG = logging.getLogger("run")
IN_FINANCE = "database='Finance'"
FILES = {
    # A pull request reads production's raw tables.
    "models/raw.yml": BASE["models/raw.yml"].replace(
        "target.schema", "env_var('SERVERLESS_SOURCE_SCHEMA', target.schema)"
    ),
    "models/orders.sql": "select id, total from {{ source('raw', 'raw_orders') }}",
    "models/totals.sql": f"{{{{ config({IN_FINANCE}, materialized='table', schema='mart', alias='sums') }}}} "
    "select sum(total) as total, 1 as factor from {{ ref('orders') }}",
    "models/shown.sql": f"{{{{ config({IN_FINANCE}) }}}} "
    "select total * factor as total from {{ ref('totals') }}",
    "models/top.sql": "{{ config(materialized='table') }} select max(total) as total from {{ ref('shown') }}",
    "models/top.yml": "models: [{name: top, columns: [{name: total, data_tests: [not_null]}]}]\n",
    "seeds/rates.csv": "id,rate\n1,2\n",
    "seeds/rates.yml": "seeds: [{name: rates, config: {database: Finance}}]\n",
    "snapshots/history.yml": "snapshots: [{name: history, relation: ref('totals'), "
    "config: {database: Finance, strategy: check, unique_key: factor, check_cols: all}}]\n",
    "models/grown.sql": f"{{{{ config({IN_FINANCE}, materialized='incremental') }}}} "
    "select total from {{ ref('totals') }}",
}
ASSETS = {"orders", "mart/totals", "shown", "top", "rates", "history", "grown"}


def published(team: Team) -> tuple[int, ...]:
    """The totals that people read, in both databases, as docs/dbt-project.md says to open them."""
    example = block("docs/dbt-project.md", "import duckdb").replace(".serverless", str(team.home))
    scope: dict[str, Any] = {}
    exec(example.replace("finance.duckdb", "Finance.duckdb"), scope)
    with closing(scope["connection"]) as connection:
        relations = ("finance.dwh_mart.sums", "finance.dwh.shown", "finance.dwh.grown", "warehouse.dwh.top")
        rows = [connection.execute(f"select total from {name}").fetchall() for name in relations]
    product = team.publisher.published.warehouse.query('select total from "Finance".dwh.shown')
    return (*(int(total) for ((total,),) in rows), int(product["total"][0].as_py()))


def reasons(outcomes: dict[str, dict[str, object]]) -> dict[str, object]:
    return {name: one["reason"] for name, one in outcomes.items() if one["status"] != "reused"}


def test_models_in_two_databases_are_built_reused_published_and_taken_back_together(team: Team, tmp_path):
    first = team.write(FILES).run()
    assert {name: one["status"] for name, one in first.items()} == dict.fromkeys(ASSETS, "built")
    assert first["mart/totals"]["rows"] == 1
    assert published(team) == (60, 60, 60, 60, 60)
    assert {one["status"] for one in team.run().values()} == {"reused"}
    release = team.publisher.releases()[0].name
    # What they read changed, and what their code is; each with all below.
    team.load([*ROWS[:2], (*ROWS[2][:2], 40)], tmp_path)
    outcomes = team.run()
    assert reasons(outcomes)["mart/totals"] == "upstream rebuilt (orders)"
    assert reasons(outcomes)["top"] == "upstream rebuilt (Finance.dwh.shown)"
    assert published(team) == (70, 70, 70, 70, 70)
    assert set(team.publisher.releases()[0].changed) >= {"sums", "shown", "grown", "history", "top"}
    team.write({"models/totals.sql": FILES["models/totals.sql"].replace("1 as", "2 as")})
    assert reasons(team.run())["mart/totals"] == "SQL changed"
    assert published(team) == (70, 140, 70, 140, 140)
    # A pull request builds in neither, and finds a database that is not there yet.
    edited = {
        "models/new.sql": "{{ config(database='other') }} select total from {{ ref('totals') }}",
        "models/shown.sql": FILES["models/shown.sql"].replace("total * factor", "1 + total * factor"),
    }
    checked = slim_ci(team.write(edited).project, team.publisher)
    assert (checked.failure, checked.deferred) == (None, ["totals"])
    assert sorted(checked.built) == ["new", "shown", "top"]
    assert published(team) == (70, 140, 70, 140, 140)
    (team.directory / "models" / "new.sql").unlink()
    team.write({"models/shown.sql": FILES["models/shown.sql"]})
    assert not (team.home / "work" / "databases" / "other.duckdb").exists()
    # A test that fails in one database keeps the other as it was, too.
    broken = FILES["models/top.sql"].replace("max(total)", "cast(null as int)")
    team.write(
        {"models/top.sql": broken, "models/totals.sql": FILES["models/totals.sql"].replace("1 as", "3 as")}
    )
    assert team.run()["top"]["status"] == "failed"
    assert published(team) == (70, 140, 70, 140, 140)
    by_name = {one.name: one for one in team.publisher.releases()}
    team.publisher.rollback(by_name[release].run_id, team.instance, LOG)
    assert published(team) == (60, 60, 60, 60, 60)
    # The next run goes on from there, with the older rows.
    team.write({**FILES, "models/totals.sql": FILES["models/totals.sql"].replace("1 as", "2 as")})
    assert reasons(team.run())["mart/totals"] == "SQL changed"
    assert published(team) == (60, 120, 60, 120, 120)


def test_a_relation_dropped_by_hand_and_a_model_that_moves_to_another_database(team: Team):
    team.write(FILES).run()
    with closing(duckdb.connect(str(team.home / "work" / "databases" / "Finance.duckdb"))) as connection:
        connection.execute("drop table finance.dwh_mart.sums")
    assert reasons(team.run()) == {"mart/totals": "relation missing"}
    moved = FILES["models/totals.sql"].replace("database='Finance', ", "")
    team.write({"models/totals.sql": moved})
    assert reasons(team.run())["mart/totals"]
    states = team.warehouse.in_schema("Finance", "dwh_mart").read_states()
    assert states.keys() == {"sums"}
    team.run(deleted="drop")
    assert team.warehouse.in_schema("Finance", "dwh_mart").tables() == set()
    assert team.warehouse.in_schema("", "dwh_mart").tables() == {"sums"}
    assert {one["status"] for one in team.run().values()} == {"reused"}


def test_a_file_that_the_profile_attaches_is_not_written_to_where_a_model_is_built_in_its_database(
    team: Team,
):
    with closing(duckdb.connect(str(team.home / "finance.duckdb"))) as own:
        own.execute("create table visits as select 7 as guests")
    before = (team.home / "finance.duckdb").read_bytes()
    attached = f"threads: 1\n      attach: [{{path: '{team.home}/finance.duckdb'}}]"
    profile = {"profiles.yml": BASE["profiles.yml"].replace("threads: 1", attached)}
    team.write({**FILES, **profile}).run()
    assert {one["status"] for one in team.run().values()} == {"reused"}
    assert published(team) == (60, 60, 60, 60, 60)
    assert (team.home / "finance.duckdb").read_bytes() == before
    source = {"name": "far", "database": "finance", "schema": "main", "tables": [{"name": "visits"}]}
    team.write({"models/far.yml": json.dumps({"sources": [source]})})
    with pytest.raises(
        Exception, match=r"the source far.visits is in the database 'finance', which profiles.yml"
    ):
        team.project.manifest()
