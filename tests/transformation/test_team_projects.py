"""Projects of other teams: schemas of their own, relations dropped by hand, failures and odd names."""

import json
import re
from contextlib import closing
from pathlib import Path

import dagster as dg
import duckdb
import pytest
import yaml

from serverless_assets.automation.jobs import JOBS
from serverless_assets.dagster_internals import ASSET_PARTITION_RANGE_END_TAG, ASSET_PARTITION_RANGE_START_TAG
from serverless_assets.transformation.assets import transformation_assets
from serverless_assets.transformation.green_build import last_green
from serverless_assets.warehouse.duckdb import DuckDBWarehouse
from tests.transformation.conftest import ROWS
from tests.transformation.team import BASE, FIRST_MONTH, Team

pytestmark = pytest.mark.slow

SOURCE = "from {{ source('raw', 'raw_orders') }}"
SCHEMAS = {
    "models/finance-eu/in_other.sql": "{{ config(materialized='table', schema='other', alias='paid') }} "
    f"select * {SOURCE}",
    "models/top.sql": "{{ config(materialized='table') }} select count(*) as n from {{ ref('in_other') }}",
}


def test_models_in_other_schemas_and_odd_folders_are_built_reused_and_missed(team: Team, tmp_path):
    team.write(SCHEMAS)
    definition = transformation_assets(team.project, FIRST_MONTH, "pool")
    assert JOBS["transform"].selection.resolve([definition]) == definition.keys
    first = team.run()
    assert {name: one["status"] for name, one in first.items()} == {"other/in_other": "built", "top": "built"}
    assert first["other/in_other"]["rows"] == 3
    assert {one["reason"] for one in team.run().values()} == {"unchanged"}
    assert last_green(team.artifacts) is not None
    team.write({"models/new.sql": "select 1 as one"}).run("top")
    assert "model.team.new" not in last_green(team.artifacts)["nodes"]
    team.run()
    assert "model.team.new" in last_green(team.artifacts)["nodes"]
    team.execute("drop table dwh_other.paid")
    again = team.run()
    assert (again["other/in_other"]["reason"], again["top"]["reason"]) == ("relation missing", "unchanged")
    team.load(ROWS[:2], tmp_path)
    assert {one["reason"] for one in team.run("other/in_other", "top").values()} == {
        "new data (raw_orders)",
        "upstream rebuilt (dwh_other.paid)",
    }
    assert team.rows("select n from dwh.top") == [(2,)]


@pytest.mark.parametrize("schema", ["warehouse", "main", "DWH"])
def test_a_schema_may_have_the_name_of_the_catalog_or_capitals(schema, team: Team, tmp_path):
    team.schema = schema
    team.load(ROWS, tmp_path)
    team.write(SCHEMAS)
    assert {one["status"] for one in team.run().values()} == {"built"}
    assert {one["reason"] for one in team.run().values()} == {"unchanged"}
    assert team.rows(f'select n from warehouse."{schema}".top') == [(3,)]


def test_an_edited_hook_of_the_project_rebuilds_what_may_call_what_it_creates(team: Team):
    macro = "{% macro create_add() %} create or replace macro dwh.add(n) as n + 1 {% endmacro %}"
    project = BASE["dbt_project.yml"] + "on-run-start: '{{ create_add() }}'\n"
    model = "{{ config(materialized='table') }} select dwh.add(1) as n"
    team.write({"dbt_project.yml": project, "macros/add.sql": macro, "models/two.sql": model}).run()
    assert team.run()["two"]["reason"] == "unchanged"
    team.write({"macros/add.sql": macro.replace("n + 1", "n + 2")})
    assert team.run()["two"]["reason"] == "hooks changed (on-run-start)"
    assert team.rows("select n from dwh.two") == [(3,)]


MONTHS = {
    "macros/incremental_by_month.sql": """
{%- macro months() -%}
    {%- for part in env_var("SERVERLESS_MONTHS", "").split(";") -%}
        {%- set name, _, days = part.partition("=") -%}
        {%- if name == model.unique_id -%} {{ return(days.split(",")) }} {%- endif -%}
    {%- endfor -%}
    {{ return([]) }}
{%- endmacro -%}
{%- macro incremental_by_month() -%}
    {{ return({"materialized": "incremental", "incremental_strategy": "delete+insert", "unique_key": "id",
        "full_refresh": not months()}) }}
{%- endmacro -%}
""",
    "models/view.sql": f"select * {SOURCE}",
    "models/view.yml": "models:\n  - name: view\n    config: {meta: {follows_months: true}}\n",
    "models/mart.sql": "{{ config(**incremental_by_month()) }} select * from {{ ref('view') }}",
    "models/mart.yml": """
models:
  - name: mart
    config: {meta: {restated_months: "select ordered_at from {mart} anti join {view} using (id)"}}
""",
}


def test_a_dropped_view_that_a_query_for_months_reads_is_a_missing_relation(team: Team, tmp_path):
    team.write(MONTHS).run()
    team.execute("drop view dwh.view")
    team.load([(1, ROWS[0][1], 1010), *ROWS[1:]], tmp_path)
    outcomes = team.run()
    assert outcomes["view"]["reason"] == "relation missing"
    assert {one["status"] for one in outcomes.values()} == {"built"}
    assert team.rows("select id, total from dwh.mart order by id") == [(1, 1010), (2, 20), (3, 30)]


def test_a_forced_run_for_months_builds_those_of_the_models_by_month_alone(team: Team):
    filtered = (
        "{% if months() %} where strftime(ordered_at, '%Y-%m-01') in ('{{ months() | join(\"', '\") }}')"
    )
    files = {**MONTHS, "models/mart.yml": "models: [{name: mart}]\n"}
    files["models/mart.sql"] += f" {filtered} {{% endif %}}"
    team.write(files).run()
    key = dg.AssetKey("mart")
    months = {"2024-11-01", "2026-09-01", "2026-10-01"}
    assert team.instance.get_materialized_partitions(key) == months
    team.execute("update dwh.mart set total = -1")
    of_september = {
        ASSET_PARTITION_RANGE_START_TAG: "2026-09-01",
        ASSET_PARTITION_RANGE_END_TAG: "2026-09-01",
    }
    # Nothing changed, so nothing is built again but by force.
    assert team.run("mart", tags=of_september)["mart"]["reason"] == "unchanged"
    assert team.run("mart", rebuild="all", tags=of_september)["mart"]["status"] == "built"
    assert team.rows("select id, total from dwh.mart order by id") == [(1, -1), (2, 20), (3, -1)]
    assert team.run()["mart"]["reason"] == "unchanged"
    # Dagster's history may be gone: what the relation holds is shown again.
    team.instance.wipe_assets([key])
    team.run()
    assert team.instance.get_materialized_partitions(key) == months


def test_a_model_beside_a_folder_of_its_name_is_edited_alone(team: Team):
    files = {
        "models/orders.sql": f"select * {SOURCE}",
        "models/orders/lines of it/lines.sql": "select 1 as one",
    }
    team.write(files).run()
    outcomes = team.write({"models/orders.sql": f"select id {SOURCE}"}).run()
    assert {name: one["reason"] for name, one in outcomes.items()} == {
        "orders": "SQL changed",
        "lines": "unchanged",
    }
    team.write({"models/orders/lines of it/lines.sql": "select 2 as one"}).run()
    assert team.rows("select one from dwh.lines") == [(2,)]


def test_models_by_month_of_one_alias_in_two_schemas_each_build_their_own_months(team: Team, tmp_path):
    condition = "strftime(ordered_at, '%Y-%m-01') in ('{{ months() | join(\"', '\") }}')"
    months = f"{{% if months() %}} and {condition} {{% endif %}}"
    files = {**MONTHS, "models/mart.yml": ""}
    del files["models/mart.sql"]
    for schema, ids in (("low", "id < 3"), ("high", "id >= 2")):
        config = f"config(schema='{schema}', alias='mart', **incremental_by_month())"
        query = f"select * from {{{{ ref('view') }}}} where {ids} {months}"
        files[f"models/{schema}.sql"] = f"{{{{ {config} }}}} {query}"
    team.write(files).run()
    # `low` has missed what changed in September.
    for first, second in ((10, 21), (11, 21)):
        rows = [(*ROWS[0][:2], first), (*ROWS[1][:2], second), ROWS[2]]
        team.load(rows, tmp_path)
        team.run("view", "high/high", *(["low/low"] if first == 11 else []))
    assert team.rows("select id, total from dwh_low.mart order by id") == [(1, 11), (2, 21)]
    assert team.rows("select id, total from dwh_high.mart order by id") == [(2, 21), (3, 30)]


FAILURES = {
    "models/good.sql": f"{{{{ config(materialized='table') }}}} select * {SOURCE}",
    "models/broken.sql": "{{ config(materialized='table') }} select at, nowhere",
    "models/after.sql": "{{ config(materialized='table') }} select * from {{ ref('broken') }}",
    "models/untested.sql": f"{{{{ config(materialized='table') }}}} select 1 as one {SOURCE}",
    "models/untested.yml": """
models:
  - name: untested
    columns: [{name: one, data_tests: [unique]}]
""",
    "models/later.sql": "{{ config(materialized='table') }} select * from {{ ref('untested') }}",
}


def test_each_model_has_its_own_error_and_a_skipped_one_names_what_failed(team: Team):
    outcomes = team.write(FAILURES).run()
    told = {name: (one["status"], one["reason"]) for name, one in outcomes.items()}
    assert told["good"] == ("built", "new")
    assert told["broken"][0] == "failed"
    assert re.search(r'syntax error at or near "," LINE \d+: +select at, nowhere', told["broken"][1])
    assert told["after"] == ("skipped", "skipped: upstream broken failed")
    assert told["untested"][0] == "failed"
    assert "unique_untested_one" in told["untested"][1]
    assert told["later"] == ("skipped", "skipped: tests of upstream untested failed")
    (run,) = team.instance.get_runs()
    said = [entry.user_message for entry in team.instance.all_logs(run.run_id) if not entry.is_dagster_event]
    for words, name in (("syntax error at", "broken"), ("failed: 1 row", "unique_untested_one")):
        (sentence,) = [one for one in said if words in one]
        assert name in sentence
    (query,) = [one.partition(": ")[2] for one in said if one.startswith("The query of the test unique_")]
    assert "group by one" in Path(query).read_text()


def test_the_target_has_the_name_of_the_projects_own_output_and_what_reads_it_is_built_for_another(
    team: Team,
):
    def profile(name: str) -> dict[str, str]:
        own = {"type": "duckdb", "path": "own.duckdb", "config_options": {"custom_user_agent": "dagster"}}
        return {"profiles.yml": yaml.safe_dump({"team": {"target": name, "outputs": {name: own}}})}

    team.write(
        {"models/reads.sql": "select '{{ target.name }}' as name", "models/other.sql": "select 1 as one"}
    )
    team.write(profile("prod")).run()
    assert team.rows("select name from dwh.reads") == [("prod",)]
    outcomes = team.write(profile("staging")).run()
    assert {name: one["reason"] for name, one in outcomes.items()} == {
        "reads": "target changed",
        "other": "unchanged",
    }
    assert team.rows("select name from dwh.reads") == [("staging",)]


def test_a_profile_with_which_dbt_cannot_work_is_told_once_and_without_a_traceback(team: Team):
    profile = BASE["profiles.yml"].replace(
        "threads: 1", "threads: 1\n      attach: [{path: nowhere/other.duckdb}]"
    )
    outcomes = team.write({"profiles.yml": profile, "models/good.sql": "select 1 as one"}).run()
    assert "nowhere/other.duckdb" in outcomes["good"]["reason"]
    (run,) = team.instance.get_runs()
    said = [entry.user_message for entry in team.instance.all_logs(run.run_id) if not entry.is_dagster_event]
    assert not any("Traceback" in one or "nowhere/other.duckdb" in one for one in said)
    # dbt has let go of the file, which is opened before what it attaches.
    duckdb.connect(team.warehouse.path).close()


def test_a_failed_test_of_several_models_fails_each_of_them(team: Team):
    team.write(
        {
            "models/one.sql": "{{ config(materialized='table') }} select 1 as n",
            "models/two.sql": "{{ config(materialized='table') }} select 2 as n",
            "tests/agree.sql": "select * from {{ ref('one') }} anti join {{ ref('two') }} using (n)",
        }
    )
    for _ in range(2):
        outcomes = team.run()
        assert {one["status"] for one in outcomes.values()} == {"failed"}
        assert {one["reason"] for one in outcomes.values()} == {"tests failed: agree"}
    assert not (team.home / "warehouse.duckdb").exists()


def test_a_source_in_a_database_that_the_profile_attaches_is_read(team: Team, monkeypatch):
    with closing(duckdb.connect(str(team.home / "far.duckdb"))) as far:
        far.execute("create table visits as select 7 as guests")
    attached = f"threads: 1\n      attach: [{{path: '{team.home}/far.duckdb'}}]"
    source = {"name": "far", "database": "far", "schema": "main", "tables": [{"name": "visits"}]}
    team.write(
        {
            "profiles.yml": BASE["profiles.yml"].replace("threads: 1", attached),
            "models/far.yml": json.dumps({"sources": [source]}),
            "models/guests.sql": "{{ config(materialized='table') }} "
            "select guests from {{ source('far', 'visits') }}",
        }
    )
    for _ in range(2):
        # What is there may have changed.
        assert team.run()["guests"]["status"] == "built"
    assert team.rows("select guests from dwh.guests") == [(7,)]

    # A warehouse that tells of a version, as BigQuery does.
    def write_by_others(version: str) -> None:
        monkeypatch.setattr(
            DuckDBWarehouse, "content_versions", lambda warehouse, tables: dict.fromkeys(tables, version)
        )

    for version in ("1", "2"):
        write_by_others(version)
        assert team.run()["guests"]["reason"] == "new data (far.main.visits)"
        assert team.run()["guests"]["reason"] == "unchanged"
    settings = BASE["dbt_project.yml"] + "on-run-start: 'select 1'\n"
    team.write({"dbt_project.yml": settings}).run()
    assert "its content is not known" in team.run()["guests"]["reason"]
