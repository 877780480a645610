"""Random edits on BigQuery: each run ends as a build from scratch would, which is one of DuckDB.

As far as the emulator goes: it knows neither microbatch models nor insert_overwrite without named partitions,
which a build of all rows needs no more than BigQuery does. Set TEAM_EDITS_SEED to try another seed.
"""

import os
import random
import re
from datetime import timedelta
from pathlib import Path

import dagster as dg
import pytest

from serverless_assets.run_inputs import RunInputs, SkipForecast
from serverless_assets.sample_shop.api import serve
from serverless_assets.warehouse import Warehouse
from serverless_assets.warehouse.bigquery_release import RELEASES
from tests.backends.parity import compare
from tests.conftest import Pipeline, code_location
from tests.transformation.test_team_edits import SEEDS, TABLE
from tests.transformation.world import MONTHS, Source, cents

pytestmark = pytest.mark.gcp

STEPS = 2
INPUTS = RunInputs(forecast=SkipForecast(), deleted_models="drop")
INCREMENTAL = "{{ config(materialized='incremental', "
FILTER = "{% if is_incremental() %} where day > (select max(day) from {{ this }}) {% endif %}"
FILES = {
    "dbt_project.yml": "name: team\nversion: '1.0.0'\nprofile: team\nvars: {k: 1}\n",
    "models/raw.yml": """
sources:
  - name: raw
    schema: "{{ env_var('SERVERLESS_SOURCE_SCHEMA', target.schema) }}"
    tables:
      - name: raw_orders
        config: {meta: {key: [id], event_time: ordered_at}}
        columns:
          - {name: id, data_type: string}
          - {name: ordered_at, data_type: timestamp}
          - {name: order_total, data_type: bigint}
""",
    "models/orders.sql": "select id, cast(ordered_at as date) as day, order_total as total "
    "from {{ source('raw', 'raw_orders') }}",
    # DuckDB has no insert_overwrite.
    "models/overwritten.sql": INCREMENTAL + "incremental_strategy='insert_overwrite', "
    "partition_by={'field': 'day', 'data_type': 'date', 'granularity': 'month'}) "
    "if target.type == 'bigquery' else config(materialized='table') }} "
    "select id, day, 1 * total as total from {{ ref('orders') }} " + FILTER,
    "models/merged.sql": INCREMENTAL + "incremental_strategy='merge', unique_key='id') }} "
    "select id, day, 1 * total as total from {{ ref('orders') }} " + FILTER,
    "models/inner.sql": "{{ config(materialized='ephemeral') }} "
    "select id, 1 * total as total from {{ ref('orders') }}",
    "models/outer.sql": TABLE + "select i.id, i.total + {{ var('k') }} + k.n as total "
    "from {{ ref('inner') }} as i cross join {{ ref('kept') }} as k",
    "models/hooked.sql": "{{ config(materialized='table', "
    "post_hook='update {{ this }} set total = 1 * total where true') }} "
    "select id, total from {{ ref('orders') }}",
    "models/aliased.sql": "{{ config(materialized='table', alias='alias_1') }} "
    "select id, total from {{ ref('hooked') }}",
    "models/placed.sql": "{{ config(materialized='table', schema='mart_1') }} "
    "select id, total from {{ ref('hooked') }}",
    # A project, whose name has no underscore; on DuckDB a file.
    "models/far.sql": "{{ config(materialized='table', database='far-1') }} "
    "select id, total from {{ ref('hooked') }}",
    "models/both.sql": "select a.id, a.total + b.total + c.total as total from {{ ref('aliased') }} as a "
    "join {{ ref('placed') }} as b on a.id = b.id join {{ ref('far') }} as c on a.id = c.id",
    "seeds/kept.csv": "id,n\n1,1\n",
    "snapshots/history.yml": """
snapshots:
  - name: history
    relation: ref('orders')
    config: {strategy: check, unique_key: id, check_cols: [total], hard_deletes: invalidate}
""",
    "tests/few.sql": "{{ config(severity='warn') }} select * from {{ ref('merged') }} where total > 1",
}
EDITED = [
    ("dbt_project.yml", "k: 1"),
    ("models/overwritten.sql", "1 * total"),
    ("models/merged.sql", "1 * total"),
    ("models/inner.sql", "1 * total"),
    ("models/hooked.sql", "1 * total"),
    ("models/aliased.sql", "alias_1"),
    ("models/placed.sql", "mart_1"),
    ("models/far.sql", "far-1"),
    ("seeds/kept.csv", "1,1"),
    ("tests/few.sql", "> 1"),
]


def edit_a_file(project: Path, chance: random.Random, name: str, old: str) -> str:
    new = re.sub(r"1(?=\D*$)", str(chance.randrange(2, 99)), old)
    (project / name).write_text(FILES[name].replace(old, new))
    return f"{name}: {old} -> {new}"


def change_rows(source: Source, chance: random.Random) -> str:
    rows = source.rows["raw_orders"]
    number = chance.randrange(1, len(rows))
    kind = chance.choice(["add", "correct", "remove"])
    if kind == "add":
        rows.append(order(f"late{chance.randrange(10**6)}", chance))
    elif kind == "correct":
        rows[number] = (*rows[number][:4], *cents(chance))
    else:
        del rows[number]
    return f"{kind} row {number}"


def order(id: str, chance: random.Random) -> tuple:
    return (id, "c1", chance.choice(MONTHS) + timedelta(days=chance.randrange(27)), "s1", *cents(chance))


def run(pipeline: Pipeline) -> dict[str, str]:
    pipeline.__dict__.pop("definitions", None)
    code_location.cache_clear()
    succeeded = pipeline.run(INPUTS).success
    assert succeeded, {name: one["reason"] for name, one in pipeline.summary["assets"].items()}
    return {name: one["status"] for name, one in pipeline.summary["assets"].items()}


def last_seen(warehouse: Warehouse) -> list[dict[str, object]]:
    history = warehouse.quoted_name("history")
    return warehouse.query(
        f"select id, day, total from {history} where dbt_valid_to is null order by id"
    ).to_pylist()


@pytest.mark.parametrize("seed", SEEDS)
def test_each_run_on_bigquery_ends_as_a_build_from_scratch(seed: int, google, tmp_path: Path):
    chance = random.Random(seed)
    source = Source({"raw_orders": [order(f"o{n}", chance) for n in range(20)]})
    project = tmp_path / "project"
    for name, text in FILES.items():
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).write_text(text)
    edits = [
        *(lambda edited=edited: edit_a_file(project, chance, *edited) for edited in EDITED),
        *[lambda: change_rows(source, chance)] * 4,
    ]
    chance.shuffle(edits)
    with serve(source.app()) as url, dg.DagsterInstance.ephemeral() as instance:
        local = {
            **os.environ,
            "SERVERLESS_DATASET_URL": url,
            "SERVERLESS_FIRST_MONTH": "2026-01",
            "SERVERLESS_DBT_PROJECT": str(project),
            # The emulator is shared with other tests.
            "DBT_SCHEMA": "team_edits",
        }
        cloud = {
            "SERVERLESS_ENV": "gcp",
            "SERVERLESS_BUCKET": "team-edits",
            "SERVERLESS_COMPUTE": "subprocess",
        }
        here = Pipeline(tmp_path / "home", instance, {**local, **cloud})
        run(here)
        for step in range(STEPS):
            story = f"seed {seed}, step {step}: {[edit() for edit in edits[step::STEPS]]}"
            assert {*run(here).values()} <= {"built", "reused"}, (story, here.summary)
            with dg.DagsterInstance.ephemeral() as fresh:
                scratch = Pipeline(tmp_path / f"scratch-{step}", fresh, local)
                run(scratch)
            read = here.parts.publisher.published.warehouse
            compared = compare(read, scratch.warehouse, ignored={RELEASES, "history"})
            assert not [one for one in compared if one.differences], story
            assert last_seen(read) == last_seen(scratch.warehouse), story
        assert {*run(here).values()} == {"reused"}
