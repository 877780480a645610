"""An edit of a model reaches the models that read what it changes, and no others."""

import pytest

from tests.transformation.team import Team

pytestmark = pytest.mark.slow

TABLE = "{{ config(materialized='table') }} "
PROJECT = {
    "models/staged.sql": "select id, ordered_at, 1 * total as total from {{ source('raw', 'raw_orders') }}",
    "models/wide.sql": TABLE + "with staged as (select * from {{ ref('staged') }}) "
    "select id, total, 2 * total as twice, row_number() over (order by ordered_at) as place from staged",
    "models/narrow.sql": TABLE + "with wide as (select * from {{ ref('wide') }}) "
    "select sum(total) as total from wide where id > 0",
    "models/counted.sql": "select count(*) as n from {{ ref('wide') }}",
    "models/placed.sql": TABLE + "select id, place from {{ ref('wide') }}",
    "models/everything.sql": TABLE + "select * from {{ ref('wide') }}",
    "models/inner.sql": "{{ config(materialized='ephemeral') }} "
    "select id, total, 3 * twice as more from {{ ref('wide') }}",
    "models/middle.sql": "{{ config(materialized='ephemeral') }} select * from {{ ref('inner') }}",
    "models/outer.sql": TABLE + "select id, total from {{ ref('middle') }}",
    "models/below.sql": TABLE + "select * from {{ ref('narrow') }}",
    "models/asking.sql": TABLE + "{% set columns = adapter.get_columns_in_relation(ref('wide')) %} "
    "select {{ columns | length }} as n, count(*) as nr_rows from {{ ref('wide') }}",
}
# These read all there is, or what may be another in every build, or ask for the columns when they are built.
ALWAYS = {"everything", "placed", "asking"}


def edited(team: Team, model: str, old: str, new: str) -> dict[str, str]:
    """The models that are built after an edit, with the reason of each."""
    path = team.directory / f"models/{model}.sql"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    return {name: one["reason"] for name, one in team.run().items() if one["status"] == "built"}


def test_an_edit_rebuilds_what_reads_it(team: Team):
    team.write(PROJECT).run()
    # A column is added, one is changed, and two change places.
    reasons = edited(
        team, "wide", "id, total, 2 * total as twice", "total, id, 4 * total as twice, 5 as added"
    )
    assert reasons == {"wide": "SQL changed", **dict.fromkeys(ALWAYS, "upstream rebuilt (wide)")}
    assert team.rows("select * from dwh.everything where id = 1") == [(10, 1, 40, 5, 1)]
    assert {one["reason"] for one in team.run().values()} == {"unchanged"}

    # Nearly all read the view's column `total`, the place alone its time.
    reasons = edited(team, "staged", "ordered_at,", "ordered_at + interval 1 day as ordered_at,")
    assert reasons.keys() == {"staged", "wide", *ALWAYS}
    reasons = edited(team, "staged", "raw_orders') }}", "raw_orders') }} where id > 1")
    assert reasons.keys() == {path.stem for path in team.directory.glob("models/*.sql")} - {"inner", "middle"}
    assert team.rows("select total from dwh.outer order by id") == [(20,), (30,)]

    assert edited(team, "inner", "3 * twice", "4 * twice") == {}
    assert edited(team, "inner", "id, total,", "id, -total as total,") == {
        "outer": "ephemeral changed (inner)"
    }
    assert team.rows("select total from dwh.outer order by id") == [(-20,), (-30,)]

    team.execute("drop table dwh.wide cascade")
    assert {name for name, one in team.run().items() if one["status"] == "built"} == {"wide"}
    assert {one["reason"] for one in team.run().values()} == {"unchanged"}
