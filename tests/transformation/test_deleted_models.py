"""The table of a model that was deleted from the project is reported, and dropped when that is asked for."""

import pytest

from serverless_assets.transformation.green_build import find_deleted
from tests.transformation.team import Team

pytestmark = pytest.mark.slow

TABLE = "{{ config(materialized='table') }} select 1 as one"
MODELS = {
    "models/stays.sql": TABLE,
    "models/renamed.sql": TABLE,
    "models/replaced.sql": TABLE,
    "models/gone.sql": TABLE,
    "models/moved.sql": "{{ config(materialized='table', schema='old') }} select 1 as one",
    "models/seen.sql": "select * from {{ ref('gone') }}",
    "models/elsewhere.sql": "{{ config(materialized='table', schema='other', alias='paid') }} select 1",
}


def relations(team: Team) -> set[str]:
    rows = team.rows("select table_schema || '.' || table_name from information_schema.tables")
    return {name for (name,) in rows} - {"dwh.raw_orders"}


def warnings(team: Team) -> list[str]:
    run = team.instance.get_runs(limit=1)[0]
    said = [entry.user_message for entry in team.instance.all_logs(run.run_id)]
    return sorted(one for one in said if "no longer in the dbt project" in one)


def test_deleted_models_are_reported_in_every_run_and_dropped_on_request(team: Team):
    team.write(MODELS).run()
    assert warnings(team) == []
    for name in ("renamed", "replaced", "gone", "seen", "elsewhere"):
        (team.directory / "models" / f"{name}.sql").unlink()
    team.write({"models/moved.sql": TABLE})
    # Another model's now, and somebody's own.
    team.write({"models/new_name.sql": "{{ config(materialized='table', alias='renamed') }} select 2 as one"})
    team.execute("create or replace table dwh.replaced as select 3 as one")
    before = {*relations(team), "dwh.moved"}
    planned = find_deleted(team.project.read_manifest(), team.artifacts, team.warehouse)
    assert {model.name for model in planned} == {"gone", "seen", "elsewhere", "moved"}
    # Also when the last green build had them no more.
    for _ in range(2):
        assert {one["status"] for one in team.run().values()} <= {"built", "reused"}
        assert relations(team) == before
        gone, seen, moved, paid = warnings(team)
        assert gone.startswith("warehouse.dwh.gone is left as it is, but its model gone is no longer")
        assert "serverless run --drop-deleted" in seen
        assert moved.startswith("warehouse.dwh_old.moved is left as it is, but its model moved is no longer")
        assert "warehouse.dwh_other.paid" in paid
    team.run(deleted="drop")
    assert relations(team) == {"dwh.stays", "dwh.renamed", "dwh.replaced", "dwh.moved"}
    assert team.rows("select one from dwh.replaced") == [(3,)]
    team.run()
    assert warnings(team) == []
