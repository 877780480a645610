"""After each run, the relations of every materialization hold what a build from scratch gives."""

from datetime import datetime

import pytest

from tests.transformation.conftest import ROWS
from tests.transformation.team import Team

pytestmark = pytest.mark.slow

SOURCE = "from {{ source('raw', 'raw_orders') }}"
INCREMENTAL = (
    "{% if is_incremental() %} where ordered_at > (select max(ordered_at) from {{ this }}) {% endif %}"
)
PROJECT = {
    "models/staging/orders.sql": f"{{{{ config(materialized='view') }}}} select * {SOURCE}",
    "models/staging/orders.yml": """
models:
  - name: orders
    config: {event_time: ordered_at, meta: {follows_months: true}}
""",
    # Without a filter: what is run twice would be there twice.
    "models/appended.sql": "{{ config(materialized='incremental', incremental_strategy='append') }} "
    "select id, 1 * total as total from {{ ref('orders') }}",
    "models/incremental.sql": "{{ config(materialized='incremental') }} "
    "select id, 1 * total as total, ordered_at from {{ ref('orders') }} " + INCREMENTAL,
    "models/replaced.sql": "{{ config(materialized='incremental', incremental_strategy='delete+insert', "
    "unique_key='id') }} select id, 1 * total as total, ordered_at from {{ ref('orders') }} " + INCREMENTAL,
    "models/merged.sql": "{{ config(materialized='incremental', incremental_strategy='merge', "
    "unique_key='id') }} select id, 1 * total as total, ordered_at from {{ ref('orders') }} " + INCREMENTAL,
    "models/batches.sql": "{{ config(materialized='incremental', incremental_strategy='microbatch', "
    "event_time='ordered_at', begin='2024-01-01', batch_size='month') }} "
    "select id, 1 * total as total, ordered_at from {{ ref('orders') }}",
    "models/inner.sql": "{{ config(materialized='ephemeral') }} "
    "select id, 1 * total as total from {{ ref('orders') }}",
    "models/outer.sql": "{{ config(materialized='table') }} select * from {{ ref('inner') }}",
    "models/python.py": "def model(dbt, session):\n    dbt.config(materialized='table')\n    k = 1\n"
    "    dbt.ref('orders')\n    return session.sql(f'select {k} as k')\n",
    "seeds/kept.csv": "id,n\n1,1\n",
    "snapshots/history.yml": """
snapshots:
  - name: history
    relation: ref('orders')
    config: {strategy: check, unique_key: id, check_cols: all}
""",
    "models/keeps.sql": "{{ config(materialized='incremental', full_refresh=false) }} "
    "select id, total, ordered_at from {{ ref('orders') }} " + INCREMENTAL,
}
TABLES = ("appended", "incremental", "replaced", "merged", "batches", "outer")


@pytest.fixture
def built(team: Team) -> Team:
    assert {one["status"] for one in team.write(PROJECT).run().values()} == {"built"}
    return team


def totals(team: Team) -> dict[str, list[int]]:
    return {
        name: [total for (total,) in team.rows(f"select total from dwh.{name} order by id")]
        for name in TABLES
    }


def test_nothing_is_built_twice(built: Team):
    assert {name: one["reason"] for name, one in built.run().items()} == dict.fromkeys(
        ["orders", *TABLES, "python", "kept", "history", "keeps"], "unchanged"
    )


def test_a_correction_of_an_old_row_and_a_later_one_reach_every_materialization(built: Team, tmp_path):
    built.load([(1, datetime(2024, 11, 5), 1010), *ROWS[1:], (4, datetime(2026, 11, 2), 40)], tmp_path)
    outcomes = built.run()
    assert {one["status"] for name, one in outcomes.items() if name not in ("kept",)} == {"built"}
    assert totals(built) == {name: [1010, 20, 30, 40] for name in TABLES}
    # What has a state of its own goes on from it: the old row stays in the history and where it was appended.
    assert built.rows("select id, total from dwh.history where id = 1 order by dbt_valid_from") == [
        (1, 10),
        (1, 1010),
    ]
    assert built.rows("select id, total from dwh.keeps order by id") == [(1, 10), (2, 20), (3, 30), (4, 40)]
    assert {one["reason"] for one in built.run().values()} == {"unchanged"}


def test_a_corrected_month_rebuilds_its_batches_alone(built: Team, tmp_path):
    # A mark by hand in another month shows which rows were written again.
    built.execute("update dwh.batches set total = -1 where id = 3")
    built.load([(1, datetime(2024, 11, 5), 1010), *ROWS[1:]], tmp_path)
    built.run("batches", "orders")
    assert built.rows("select id, total from dwh.batches order by id") == [(1, 1010), (2, 20), (3, -1)]


def test_an_edit_of_the_code_reaches_rows_that_are_there_already(built: Team):
    def doubled(name: str, old: str = "1 * total", new: str = "2 * total") -> dict[str, str]:
        return {name: PROJECT[name].replace(old, new)}

    for name in (*TABLES[:-1], "inner"):
        built.write(doubled(f"models/{name}.sql"))
    built.write(doubled("models/python.py", "k = 1", "k = 2"))
    built.write({"seeds/kept.csv": "id,n,more\n1,2,3\n"})
    reasons = {name: one["reason"] for name, one in built.run().items() if one["status"] == "built"}
    assert reasons == {
        **dict.fromkeys((*TABLES[:-1], "kept"), "SQL changed"),
        "python": "Python changed",
        "outer": "ephemeral changed (inner)",
    }
    assert totals(built) == {name: [20, 40, 60] for name in TABLES}
    assert built.rows("select k from dwh.python") == [(2,)]
    assert built.rows("select * from dwh.kept") == [(1, 2, 3)]


def test_a_rebuild_of_all_ends_as_a_build_from_scratch_and_loses_no_history(built: Team, tmp_path):
    built.load([(1, datetime(2024, 11, 5), 11), *ROWS[1:]], tmp_path)
    built.run("orders", "history")
    built.execute("insert into dwh.appended values (9, 9)")
    built.run(rebuild="all")
    assert totals(built) == {name: [11, 20, 30] for name in TABLES}
    assert built.rows("select count(*) from dwh.history where id = 1") == [(2,)]
