"""A project like dbt-labs' jaffle-shop is plugged in by two settings, and changed by nothing."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import dagster as dg
import duckdb
import pytest

from serverless_assets.automation.plan import dry_run
from serverless_assets.definitions import build
from serverless_assets.environments import environment
from serverless_assets.names import MAIN_JOB
from serverless_assets.project_root import PROJECT_ROOT
from serverless_assets.publishing.summary import read_summary
from serverless_assets.run_inputs import RunInputs
from serverless_assets.settings import Settings
from tests.transformation.jaffle_shop import JAFFLE_SHOP
from tests.transformation.team import Team

pytestmark = pytest.mark.slow

RELATIONS = {
    *("raw/raw_customers", "raw/raw_orders", "raw/raw_supplies"),
    *("stg_customers", "stg_orders", "stg_supplies", "metricflow_time_spine"),
    *("orders", "customers", "supplies"),
}


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Team]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield Team(tmp_path / "jaffle-shop", tmp_path / "home", instance).write(JAFFLE_SHOP)


def settings(shop: Team) -> Settings:
    return Settings.from_environ(
        {"SERVERLESS_HOME": str(shop.home), "SERVERLESS_DBT_PROJECT": str(shop.directory)}
    )


def run(shop: Team, inputs: RunInputs | None = None) -> dict[str, dict[str, object]]:
    """Run the main job; what became of each asset by the run's summary."""
    job = build(settings(shop)).resolve_job_def(MAIN_JOB)
    run_config = dg.RunConfig(resources={"run_inputs": inputs or RunInputs()})
    assert job.execute_in_process(run_config=run_config, instance=shop.instance).success
    summary = read_summary(shop.home)
    assert summary["published"]
    return summary["assets"]


def test_it_runs_publishes_and_is_reused(shop: Team):
    outcomes = run(shop)
    assert {name: one["status"] for name, one in outcomes.items()} == dict.fromkeys(RELATIONS, "built")
    with closing(duckdb.connect(str(shop.home / "warehouse.duckdb"), read_only=True)) as published:
        counts = published.execute("select count_lifetime_orders from dwh.customers order by 1").fetchall()
    assert counts == [(0,), (2,)]
    # Its own profile has another file, and settings that stay.
    assert not list(shop.directory.rglob("*.duckdb"))
    assert "TimeZone" in (shop.home / "dbt" / "profiles.yml").read_text()
    planned = {(one.verdict, one.reason) for one in dry_run(environment(settings(shop)), RunInputs())}
    assert planned == {("reuse", "unchanged")}
    assert {one["reason"] for one in run(shop).values()} == {"unchanged"}


def test_the_commands_of_the_docs_plug_it_in_and_drop_what_a_deleted_model_left(tmp_path: Path):
    page = (PROJECT_ROOT / "docs" / "dbt-project.md").read_text()
    # The block between them is Python.
    first, *_, last = re.findall(r"(?:^    \S.*\n)+", page, re.MULTILINE)
    commands, [drop] = ([line.strip() for line in block.splitlines()] for block in (first, last))
    project, state = tmp_path / "jaffle-shop", tmp_path / "jaffle-shop-state"
    for name, text in JAFFLE_SHOP.items():
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).write_text(text)
    environ = {
        **os.environ,
        "HOME": str(tmp_path),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "DAGSTER_HOME": "",
    }

    def run(lines: list[str]) -> str:
        # `make ui` would not end.
        script = "\n".join(lines).replace("make ", "make -n ")
        done = subprocess.run(
            ["sh", "-ec", script], cwd=PROJECT_ROOT, env=environ, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert "subquery" not in done.stderr
        return done.stdout

    def tables() -> set[str]:
        with closing(duckdb.connect(str(state / "warehouse.duckdb"), read_only=True)) as published:
            rows = published.execute("select table_name from information_schema.tables").fetchall()
        return {name for (name,) in rows}

    said = run(commands)
    assert re.search(r"^supplies +build +new$", said, re.MULTILINE), said
    assert {one.rpartition("/")[2] for one in RELATIONS} <= tables()
    (project / "models" / "marts" / "supplies.sql").unlink()
    settings = [line for line in commands if line.startswith("export ")]
    assert "supplies is left as it is" in run([*settings, "serverless run"])
    assert "supplies is dropped" in run([*settings, drop])
    assert {one.rpartition("/")[2] for one in RELATIONS} - tables() == {"supplies"}


def test_packages_are_installed_again_when_packages_yml_changed(shop: Team):
    project = environment(settings(shop)).project
    assert "macro.dbt_utils.generate_surrogate_key" in project.read_manifest()["macros"]
    shop.write(
        {
            "packages.yml": JAFFLE_SHOP["packages.yml"] + "  - local: packages/helper\n",
            "packages/helper/dbt_project.yml": "name: helper\nversion: '1.0.0'\n",
            "packages/helper/models/helping.sql": "select 1 as one",
        }
    )
    assert "model.helper.helping" in project.read_manifest()["nodes"]
