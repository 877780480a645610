"""dbt is run with the target and the flags that the product gives it, whatever the shell says."""

import pytest

from tests.transformation.team import Team

TOTALS = {"models/marts/totals.sql": "select count(*) as n from {{ source('raw', 'raw_orders') }}"}


@pytest.mark.parametrize(
    "variables",
    [
        {"DBT_TARGET": "dev"},
        {"DBT_ENGINE_TARGET": "dev", "DBT_PROFILE": "other", "DBT_PROFILES_DIR": "/nowhere"},
        {"DBT_EMPTY": "true", "DBT_ENGINE_EMPTY": "true", "DBT_RESOURCE_TYPES": "test", "DBT_QUIET": "1"},
        {"DBT_DEFER": "1", "DBT_STATE": "/nowhere", "DBT_SAMPLE": "1 day", "DBT_PROJECT_DIR": "/nowhere"},
    ],
)
def test_a_run_ignores_the_flags_of_dbt_in_the_shell(variables, team: Team, monkeypatch):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert team.write(TOTALS).run()["totals"]["status"] == "built"
    assert team.rows("select n from dwh.totals") == [(3,)]


def test_variables_of_the_projects_own_reach_it(team: Team, monkeypatch):
    monkeypatch.setenv("DBT_MINIMUM", "20")
    sql = TOTALS["models/marts/totals.sql"] + " where total >= {{ env_var('DBT_MINIMUM') }}"
    team.write({"models/marts/totals.sql": sql}).run()
    assert team.rows("select n from dwh.totals") == [(2,)]
