"""Random edits of a team's data and of every kind of file: each run ends as a build from scratch would.

Set TEAM_EDITS_SEED to try another seed.
"""

import os
import random
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest

from tests.transformation.team import BASE, Team
from tests.transformation.test_materializations import PROJECT

pytestmark = pytest.mark.slow

STEPS = 4
SEEDS = [int(os.environ["TEAM_EDITS_SEED"])] if "TEAM_EDITS_SEED" in os.environ else [1]
# Their rows follow from all runs, or from when those were.
HISTORIES = {"history", "keeps"}
FILES = {
    **BASE,
    **PROJECT,
    "dbt_project.yml": BASE["dbt_project.yml"] + "vars: {k: 1}\n",
    "macros/add.sql": "{% macro add(column) %}{{ column }} + 1{% endmacro %}",
    "models/outer.sql": "{{ config(materialized='table') }} "
    "select id, {{ add('total') }} + {{ var('k') }} + (select sum(n) from {{ ref('kept') }}) as total "
    "from {{ ref('inner') }}",
    "models/wide.sql": "{{ config(materialized='table') }} "
    "select id, 1 * total as total from {{ ref('orders') }}",
    "models/narrow.sql": "{{ config(materialized='table') }} "
    "select sum(total) as total, max(id) as last_id from {{ ref('wide') }}",
    "models/all_of_it.sql": "select * from {{ ref('wide') }}",
    "models/nested.sql": "{{ config(materialized='ephemeral') }} select id, total, 1 * total as more "
    "from {{ ref('wide') }}",
    "models/chained.sql": "{{ config(materialized='ephemeral') }} select * from {{ ref('nested') }}",
    "models/end.sql": "{{ config(materialized='table') }} select total from {{ ref('chained') }}",
    "models/below.sql": "{{ config(materialized='table') }} select last_id from {{ ref('narrow') }}",
}
# What a model may select: its readers read `id` and `total`.
COLUMNS = [
    "id", "1 * total as total", "2 * total as twice", "cast(ordered_at as date) as day", "'x' as x",
    "row_number() over (order by total, id) as place",
]  # fmt: skip
EDITED = {
    "dbt_project.yml": "vars: {k: 1}",
    "macros/add.sql": "column }} + 1",
    "models/appended.sql": "1 * total",
    "models/incremental.sql": "1 * total",
    "models/replaced.sql": "1 * total",
    "models/merged.sql": "1 * total",
    "models/batches.sql": "1 * total",
    "models/inner.sql": "1 * total",
    "models/nested.sql": "1 * total",
    "models/narrow.sql": "max(id)",
    "models/python.py": "k = 1",
    "seeds/kept.csv": "1,1",
    "models/outer.sql": "materialized='table'",
}
Rows = list[tuple[int, datetime, int]]


def edit_a_file(team: Team, chance: random.Random) -> str:
    name = chance.choice(sorted(EDITED))
    old = EDITED[name]
    new = old.replace("1", str(chance.randrange(2, 99)))[: len(old) + 1].replace("'table'", "'view'")
    path = team.directory / name
    path.write_text(
        FILES[name].replace(old, new if name != "seeds/kept.csv" else f"1,{chance.randrange(99)}")
    )
    return f"{name}: {old} -> {new}"


def edit_columns(team: Team, chance: random.Random) -> str:
    """Reorder, add, remove or change columns of a model that others read."""
    columns = [*COLUMNS[:2], *chance.sample(COLUMNS[2:], chance.randrange(4))]
    chance.shuffle(columns)
    filtered = chance.choice(["", "", " where id > 2"])
    sql = f"select {', '.join(columns)} from {{{{ ref('orders') }}}}{filtered}"
    (team.directory / "models/wide.sql").write_text("{{ config(materialized='table') }} " + sql)
    return f"wide: {sql}"


def change_rows(rows: Rows, chance: random.Random) -> str:
    at = datetime(2024, 1, 1) + timedelta(days=chance.randrange(1000), hours=chance.randrange(24))
    number = chance.randrange(len(rows))
    kind = chance.choice(["add", "correct", "redate", "remove"])
    if kind == "add":
        rows.append((max(row[0] for row in rows) + 1, at, chance.randrange(99)))
    elif kind == "correct":
        rows[number] = (*rows[number][:2], chance.randrange(99))
    elif kind == "redate":
        rows[number] = (rows[number][0], at, rows[number][2])
    elif len(rows) > 3:
        del rows[number]
    return f"{kind} row {number}"


def drop_a_relation(team: Team, chance: random.Random) -> str:
    name = chance.choice(["appended", "incremental", "replaced", "merged", "batches", "python", "wide"])
    team.execute(f"drop table dwh.{name}")
    return f"drop {name}"


def contents(team: Team) -> dict[str, list[object]]:
    names = [name for (name,) in team.rows("select table_name from information_schema.tables order by 1")]
    return {
        name: sorted(map(repr, team.rows(f"select * from dwh.{name}")))
        for name in names
        if name not in HISTORIES
    }


def versions(team: Team) -> dict[str, object]:
    """What each relation is said to hold."""
    return {
        name: state["version"]
        for name, state in team.warehouse.read_states().items()
        if name not in HISTORIES
    }


@pytest.mark.parametrize("seed", SEEDS)
def test_each_run_ends_as_a_build_from_scratch(seed: int, team: Team, tmp_path: Path):
    chance = random.Random(seed)
    rows: Rows = [
        (n, datetime(2024, 1, 1) + timedelta(days=chance.randrange(1000)), chance.randrange(99))
        for n in range(20)
    ]
    team.write(FILES).load(rows, tmp_path)
    team.run()
    for step in range(STEPS):
        edits: list[Callable[[], str]] = [
            lambda: edit_a_file(team, chance),
            lambda: edit_columns(team, chance),
            lambda: change_rows(rows, chance),
            lambda: drop_a_relation(team, chance),
        ]
        done = [edit() for edit in chance.choices(edits, weights=[4, 4, 4, 1], k=chance.randrange(1, 4))]
        team.load(rows, tmp_path)
        outcomes = team.run()
        story = f"seed {seed}, step {step}: {done}"
        assert {one["status"] for one in outcomes.values()} <= {"built", "reused"}, (story, outcomes)
        with dg.DagsterInstance.ephemeral() as instance:
            scratch = Team(team.directory, tmp_path / f"scratch-{step}", instance)
            scratch.load(rows, tmp_path)
            scratch.run()
            assert contents(team) == contents(scratch), (story, outcomes)
            assert versions(team) == versions(scratch), (story, outcomes)
    assert {one["reason"] for one in team.run().values()} == {"unchanged"}
