"""A project that dbt parses and that cannot be built is refused before anything is built, by plan as well."""

import json

import pytest

from serverless_assets.transformation.project import ManifestError
from serverless_assets.transformation.refusals import ProjectRefused, refuse_project
from tests.transformation.team import BASE, Team

TABLE = "{{ config(materialized='table') }} select 1 as id"


def refusal(team: Team, files: dict[str, str]) -> str:
    team.write(files)
    for _ in range(2):
        # What a run, a plan and the UI begin with. It is refused as long as it is as it is.
        with pytest.raises(ProjectRefused) as refused:
            team.project.manifest()
    return str(refused.value)


def test_what_cannot_be_built_is_refused_at_the_model_that_says_it(team: Team):
    files = {
        "models/größe.sql": TABLE,
        "models/my-model.sql": TABLE,
        "models/my_model.sql": TABLE,
        "models/elsewhere.sql": "{{ config(database='temp') }} select 1 as id",
        "models/summed.sql": "{{ config(materialized='materialized_view') }} select 1 as id",
        "models/raw.yml": BASE["models/raw.yml"].replace("meta: {", "meta: {key: [id], "),
        "models/RAW.sql": "{{ config(alias='RAW_orders', materialized='table') }} select 1 as id",
    }
    lines = refusal(team, files).splitlines()
    assert sorted(lines) == [
        "models/elsewhere.sql: the model elsewhere has the database 'temp', which cannot be the name of a "
        "DuckDB file. Give it another: letters of ASCII, digits, `_` and `-`, and not main, memory, system, "
        "temp, _staging.",
        "models/größe.sql: the model größe has the asset key 'größe', and Dagster takes letters of "
        "ASCII, digits, `_`, `-` and `.`. Rename it; `alias` keeps the name of its table.",
        "models/my_model.sql: the model my_model and the model my-model are both 'my_model' to Dagster. "
        "Rename one of them; `alias` keeps the name of its table.",
        "models/raw.yml: the raw table raw_orders has the name of the model RAW (models/RAW.sql). "
        "Rename the latter, or remove the `key` of the source, if something else loads it.",
        "models/summed.sql: the model summed is a materialized_view, which would go on to show what runs "
        "write and have not published. Make it a table or a view.",
    ]
    for name in ("größe.sql", "my-model.sql", "elsewhere.sql", "RAW.sql", "summed.sql"):
        (team.directory / "models" / name).unlink()
    assert team.project.manifest().exists()


BIGQUERY = {"SERVERLESS_DATABASE": "shop"}
DUCKDB = {"SERVERLESS_DATABASE": "warehouse", "SERVERLESS_DUCKDB_PATH": "warehouse.duckdb"}


def entry(kind: str, name: str, database: str, **config: object) -> dict[str, object]:
    return {
        "resource_type": kind, "name": name, "source_name": "far", "alias": name, "identifier": name,
        "database": database, "schema": "dwh", "original_file_path": f"models/{name}.sql",
        "config": config, "depends_on": {"nodes": []}, "package_name": "team", "fqn": ["team", name],
        "unique_id": f"{kind}.{name}",
    }  # fmt: skip


def test_names_that_dagster_reserves_or_does_not_tell_apart_are_refused_with_a_way_out():
    tests = [
        {**entry("test", "unique_id", "shop"), "unique_id": f"test.{name}", "attached_node": "model.orders"}
        for name in ("unique-id", "unique_id")
    ]
    models = [entry("model", name, "shop") for name in ("orders", "type")]
    manifest = {
        "nodes": {node["unique_id"]: node for node in (*models, *tests)},
        "sources": {"input": entry("source", "input", "shop", meta={"key": ["id"]})},
    }
    with pytest.raises(ProjectRefused) as refused:
        refuse_project(manifest, BIGQUERY, {})
    assert str(refused.value).splitlines() == [
        "models/type.sql: the model type has the asset key 'type', a word that Dagster or Python reserves. "
        "Give it another, such as `config: {meta: {dagster: {asset_key: [model, type]}}}`.",
        "models/unique_id.sql: the test unique_id and another test of the same model, test.unique-id, have "
        "one name to Dagster, which takes letters of ASCII, digits and `_`. Rename one of them.",
        "models/input.sql: the raw table input has a name that Dagster does not take. Name its table "
        "otherwise as `identifier`: letters of ASCII, digits and `_`, and no word that Dagster or Python "
        "reserves.",
    ]


def test_raw_tables_are_in_one_database_and_models_and_sources_may_be_in_others():
    manifest = {
        "nodes": {"here": entry("model", "here", "shop"), "there": entry("model", "there", "other")},
        "sources": {
            "orders": entry("source", "orders", "other"),
            "here": entry("source", "here", "other"),
            "items": entry("source", "items", "other", meta={"key": ["id"]}),
        },
    }
    with pytest.raises(ProjectRefused) as refused:
        refuse_project(manifest, BIGQUERY, {})
    assert str(refused.value) == (
        "models/items.sql: the source far.items has the database 'other', and raw tables are loaded into "
        "'shop'. Remove its `database`, or its `key` if another tool loads it."
    )


def test_models_on_duckdb_are_in_files_of_the_environment_and_sources_in_those_that_the_profile_attaches():
    manifest = {
        "nodes": {
            name: entry("model", name, name.title()) for name in ("warehouse", "other", "postgres", "far")
        },
        "sources": {
            "visits": entry("source", "visits", "far"),
            "far": entry("source", "far", "FAR"),
            "guests": entry("source", "guests", "theirs"),
        },
    }
    with pytest.raises(ProjectRefused) as refused:
        refuse_project(manifest, DUCKDB, {"postgres": "postgres", "far": "duckdb", "theirs": "sqlite"})
    assert str(refused.value).splitlines() == [
        "models/postgres.sql: the model postgres has the database 'Postgres', which profiles.yml attaches as "
        "postgres, and runs write to DuckDB files alone. Give it another database.",
        "models/visits.sql: the source far.visits is in the database 'far', which profiles.yml attaches and "
        "in which the model far is built: runs have a file of their own for it. Give the model another "
        "database, or the attached one another `alias`.",
    ]


def test_a_function_that_runs_do_not_create_is_refused_with_the_model_that_calls_it(team: Team):
    function = {
        "name": "plus",
        "arguments": [{"name": "n", "data_type": "int"}],
        "returns": {"data_type": "int"},
    }
    files = {
        "functions/plus.sql": "n + 1",
        "functions/plus.yml": json.dumps({"functions": [function]}),
        "models/two.sql": "{{ config(materialized='table') }} select {{ function('plus') }}(1) as id",
    }
    assert refusal(team, files).startswith(
        "models/two.sql: the model two calls the function plus (functions/plus.sql), and runs do "
        "not create functions."
    )


def test_the_vars_of_a_package_in_another_folder_are_those_that_models_read(team: Team):
    package = "name: helper\nversion: '1.0.0'\nvars: {helper: {least: 1}}\n"
    settings = BASE["dbt_project.yml"] + "packages-install-path: ../installed\n"
    team.write(
        {
            "dbt_project.yml": settings,
            "packages.yml": "packages: [{local: local_package}]",
            "local_package/dbt_project.yml": package,
            "local_package/models/small.sql": "select {{ var('least') }} as n",
        }
    )
    before = team.project.manifest().read_bytes()
    assert team.project.vars()["least"] == ["helper", 1]
    team.write({"local_package/models/small.sql": "select 2 + {{ var('least') }} as n"})
    assert team.project.manifest().read_bytes() != before


@pytest.mark.slow
def test_packages_that_cannot_be_downloaded_are_a_sentence_with_advice(team: Team, monkeypatch):
    # Nothing listens there.
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    team.write({"packages.yml": "packages: [{package: dbt-labs/dbt_utils, version: 1.3.0}]"})
    with pytest.raises(ManifestError) as refused:
        team.project.manifest()
    assert "cannot be reached from this machine. Set HTTPS_PROXY if there is a proxy." in str(refused.value)
    assert "Pool" not in str(refused.value)
    team.write({"dbt_packages/dbt_utils/dbt_project.yml": "name: dbt_utils\nversion: '1.3.0'\n"})
    assert team.project.manifest().exists()
