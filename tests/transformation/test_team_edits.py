"""Random edits of a team's data and of every kind of file: each run ends as a build from scratch would.

And as the plan said before it. Set TEAM_EDITS_SEED to try another seed.
"""

import os
import random
import re
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path

import dagster as dg
import pytest

from serverless_assets.transformation.decide_models import decide_models
from tests.transformation.team import BASE, Team
from tests.transformation.test_materializations import PROJECT

pytestmark = pytest.mark.slow

STEPS = 4
SEEDS = [int(os.environ["TEAM_EDITS_SEED"])] if "TEAM_EDITS_SEED" in os.environ else [1]
# Their rows follow from all runs, or from when those were.
HISTORIES = {"history", "keeps"}
TABLE = "{{ config(materialized='table') }} "
FILES = {
    **BASE,
    **PROJECT,
    "dbt_project.yml": BASE["dbt_project.yml"] + "vars: {k: 1}\n"
    "on-run-start: ['create or replace macro {{ target.schema }}.moved(x) as x + 11']\n",
    "snapshots/history.yml": PROJECT["snapshots/history.yml"].replace(
        "all}", "all, hard_deletes: invalidate}"
    ),
    "macros/add.sql": "{% macro add(column) %}{{ column }} + 1{% endmacro %}",
    "models/outer.sql": TABLE
    + "select id, {{ add('total') }} + {{ var('k') }} + (select sum(n) from {{ ref('kept') }}) as total "
    "from {{ ref('inner') }}",
    "models/wide.sql": TABLE + "select id, 1 * total as total from {{ ref('orders') }}",
    "models/narrow.sql": TABLE + "select sum(total) as total, max(id) as last_id from {{ ref('wide') }}",
    "models/all_of_it.sql": "select * from {{ ref('wide') }}",
    "models/nested.sql": "{{ config(materialized='ephemeral') }} select id, total, 1 * total as more "
    "from {{ ref('wide') }}",
    "models/chained.sql": "{{ config(materialized='ephemeral') }} select * from {{ ref('nested') }}",
    "models/end.sql": TABLE + "select total from {{ ref('chained') }}",
    "models/below.sql": TABLE + "select last_id from {{ ref('narrow') }}",
    "models/moved.sql": TABLE
    + "select id, {{ target.schema }}.moved(total) as total from {{ ref('orders') }}",
    "models/hooked.sql": "{{ config(materialized='table', "
    "post_hook='update {{ this }} set total = 1 * total') }} select id, total from {{ ref('orders') }}",
    "models/aliased.sql": "{{ config(materialized='table', alias='alias_1') }} "
    "select id, total from {{ ref('hooked') }}",
    "models/placed.sql": "{{ config(materialized='table', schema='mart_1') }} "
    "select id, total from {{ ref('hooked') }}",
    "models/far.sql": "{{ config(materialized='table', database='far_1') }} "
    "select id, total from {{ ref('hooked') }}",
    "models/both.sql": TABLE + "select sum(a.total + b.total + c.total) as total from {{ ref('aliased') }} a "
    "join {{ ref('placed') }} as b using (id) join {{ ref('far') }} as c using (id)",
    "tests/few.sql": "{{ config(severity='warn') }} "
    "select * from {{ ref('narrow') }}, {{ ref('hooked') }} where last_id > 1",
    "models/narrow.yml": "models: [{name: narrow, columns: [{name: last_id, data_tests: [{accepted_values: "
    "{name: few_ids, arguments: {values: [1], quote: false}, config: {severity: warn}}}]}]}]\n",
}
# What a model may select: its readers read `id` and `total`.
COLUMNS = [
    "id", "1 * total as total", "2 * total as twice", "cast(ordered_at as date) as day", "'x' as x",
    "row_number() over (order by total, id) as place",
]  # fmt: skip
EDITED = [
    ("dbt_project.yml", "vars: {k: 1}"),
    ("dbt_project.yml", "x + 1"),
    ("macros/add.sql", "column }} + 1"),
    ("models/appended.sql", "1 * total"),
    ("models/incremental.sql", "1 * total"),
    ("models/replaced.sql", "1 * total"),
    ("models/merged.sql", "1 * total"),
    ("models/batches.sql", "1 * total"),
    ("models/inner.sql", "1 * total"),
    ("models/nested.sql", "1 * total"),
    ("models/narrow.sql", "max(id)"),
    ("models/python.py", "k = 1"),
    ("seeds/kept.csv", "1,1"),
    ("models/outer.sql", "materialized='table'"),
    ("models/hooked.sql", "1 * total"),
    ("models/aliased.sql", "alias_1"),
    ("models/placed.sql", "mart_1"),
    ("models/far.sql", "far_1"),
    ("tests/few.sql", "id > 1"),
    ("models/narrow.yml", "[1]"),
]
Rows = list[tuple[int, datetime, int]]


def edit_a_file(team: Team, chance: random.Random, name: str, old: str) -> str:
    if "materialized" in old:
        new = old.replace("table", chance.choice(["table", "view"]))
    else:
        new = re.sub(r"1(?=\D*$)", str(chance.randrange(2, 99)), old)
    assert FILES[name].count(old) == 1, (name, old)
    (team.directory / name).write_text(FILES[name].replace(old, new))
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
    relations = team.rows("select table_schema, table_name from information_schema.tables order by all")
    rows = {
        f"{schema}.{name}": sorted(map(repr, team.rows(f"select * from {schema}.{name}")))
        for schema, name in relations
        if name not in HISTORIES
    }
    # The rows that a snapshot has last seen are those that there are now.
    now = team.rows("select id, ordered_at, total from dwh.history where dbt_valid_to is null order by all")
    return {**rows, "history": now}


def claims(team: Team) -> dict[str, object]:
    """What each relation is said to hold, and which tests have passed or warned of it."""
    return {
        f"{schema}.{name}": [state["version"], state.get("tests"), state.get("warnings")]
        for (schema,) in team.rows("select distinct table_schema from information_schema.tables")
        for name, state in team.warehouse.in_schema("warehouse", schema).read_states().items()
        if name not in HISTORIES
    }


def plan(team: Team) -> dict[str, str]:
    """The reason of each model, as the plan has it."""
    manifest = team.project.read_manifest()
    decisions = decide_models(team.project, manifest, team.warehouse, team.artifacts)
    return {decision.node.id.split(".")[-1]: decision.reason for decision in decisions}


@pytest.mark.parametrize("seed", SEEDS)
def test_each_run_ends_as_a_build_from_scratch(seed: int, team: Team, tmp_path: Path):
    chance = random.Random(seed)
    rows: Rows = [
        (n, datetime(2024, 1, 1) + timedelta(days=chance.randrange(1000)), chance.randrange(99))
        for n in range(20)
    ]
    team.write(FILES).load(rows, tmp_path)
    team.run()
    edits: list[Callable[[], str]] = [
        *(partial(edit_a_file, team, chance, *edited) for edited in EDITED),
        *[lambda: edit_columns(team, chance)] * 5,
        *[lambda: change_rows(rows, chance)] * 5,
        lambda: drop_a_relation(team, chance),
    ]
    chance.shuffle(edits)
    for step in range(STEPS):
        # Each kind has its turn in one of the steps, some of which have many edits and some have few.
        done = [edit() for edit in edits[step::STEPS]]
        team.load(rows, tmp_path)
        story = f"seed {seed}, step {step}: {done}"
        planned = plan(team)
        outcomes = team.run(deleted="drop")
        assert {one["status"] for one in outcomes.values()} <= {"built", "reused"}, (story, outcomes)
        assert {name.split("/")[-1]: one["reason"] for name, one in outcomes.items()} == planned, story
        with dg.DagsterInstance.ephemeral() as instance:
            scratch = Team(team.directory, tmp_path / f"scratch-{step}", instance)
            scratch.load(rows, tmp_path)
            scratch.run()
            assert contents(team) == contents(scratch), (story, outcomes)
            assert claims(team) == claims(scratch), (story, outcomes)
    assert {one["reason"] for one in team.run().values()} == {"unchanged"}
