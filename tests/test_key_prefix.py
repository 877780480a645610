"""A project whose asset keys have a prefix, from the command line: what Dagster has, and what people read."""

import json
import os
import re
import shutil
import subprocess
import sys
from datetime import datetime, timedelta
from functools import partial
from http.server import SimpleHTTPRequestHandler
from pathlib import Path

import dagster as dg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from serverless_assets.asset_keys import set_key_prefix
from serverless_assets.project_root import PROJECT_ROOT
from tests.conftest import Pipeline
from tests.services.listening import listening

FILES = {
    "dbt_project/dbt_project.yml": "name: team\nprofile: team\n",
    "dbt_project/models/daily_guests.sql": """
{{ config(materialized='table') }}
select
    cast(visited_at as date) as day,
    region,
    'Region ' || region as region_name,
    count(*) as guests
from {{ source('raw', 'raw_visits') }} group by 1, 2, 3
""",
    "dbt_project/models/models.yml": """
sources:
  - name: raw
    schema: "{{ target.schema }}"
    tables:
      - name: raw_visits
        config: {meta: {key: [id]}}
        columns:
          - {name: id, data_type: bigint}
          - {name: visited_at, data_type: timestamp}
          - {name: region, data_type: string}
      - name: raw_regions
        config: {meta: {key: [id]}}
        columns:
          - {name: id, data_type: string}
models:
  - name: daily_guests
    columns:
      - {name: guests, data_tests: [not_null]}
""",
    "serverless_assets/defs/guests/defs.yaml": """
type: serverless_assets.Forecast
attributes: {name: guests, title: Daily guests, relation: daily_guests, date: day, value: guests,
  horizon: 60, parts: {id: region, name: region_name, noun: region}}
""",
    "serverless_assets/defs/weekly/defs.yaml": """
type: serverless_assets.Forecast
attributes: {name: weekly, title: By week, relation: daily_guests, date: day, value: guests, grain: week}
""",
    "serverless_assets/defs/staff_plan.py": """
import dagster as dg
import pandas as pd
from serverless_assets.asset_keys import asset_key

customers = dg.AssetSpec(["crm", "customers"], metadata={"key_prefix": False})

@dg.asset(io_manager_key="pandas")
def staff_plan(guests: pd.DataFrame) -> pd.DataFrame:
    return guests[["ds", "yhat"]]

@dg.asset_check(asset="staff_plan")
def staff_plan_is_made() -> dg.AssetCheckResult:
    return dg.AssetCheckResult(passed=True)

staff = dg.define_asset_job("staff", [asset_key("staff_plan")])
""",
}
NAMES = {
    *("raw_visits", "raw_regions", "daily_guests", "pipeline_runs", "staff_plan"),
    *("guests", "guests_by_region", "guests_accuracy", "guests_accuracy_by_region", "guests_report"),
    *("weekly", "weekly_accuracy", "weekly_report"),
}
REPORTS = {"guests_report", "weekly_report"}
TEAL = """
resources: {run_inputs: {config: {forecast: {run: {style: {customised: {color_history: teal}}}}}}}
"""
# What Dagster has on record, and a tick of two sensors.
LOOK = """
import json, sys
import dagster as dg
from serverless_assets.definitions import defs

repository = defs().get_repository_def()
with dg.DagsterInstance.get() as instance:
    [run, *_] = instance.get_runs(limit=1)
    logs = instance.all_logs(run.run_id, of_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION)
    checks = [log.dagster_event.asset_check_evaluation_data for log in logs]
    tick = repository.get_sensor_def("source_updated").evaluate_tick(
        dg.build_sensor_context(instance, sys.argv[1] or None, repository_def=repository)
    )
    stale = repository.get_sensor_def("guests_stale").evaluate_tick(dg.build_sensor_context(instance))
    print(json.dumps({
        "keys": [key.to_user_string() for key in instance.all_asset_keys()],
        "checks": {f"{one.asset_key.to_user_string()} {one.check_name}": one.passed for one in checks},
        "cursor": tick.cursor,
        "skipped": tick.skip_message,
        "asked": [[key.to_user_string() for key in one.asset_selection or ()] for one in tick.run_requests],
        "stale": stale.skip_message,
    }))
"""


class Files(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


def write_visits(path: Path, days: int) -> None:
    """Write visits of so many days, with the day after as the file's time, by which a change is noticed."""
    visits = [
        (datetime(2025, 1, 1) + timedelta(day), str(region))
        for day in range(days)
        for region in (1, 2)
        for _ in range(3 + day % 7 + region)
    ]
    days_of_visits, regions = zip(*visits, strict=True)
    columns = {"id": range(len(visits)), "visited_at": days_of_visits, "region": regions}
    pq.write_table(pa.table(columns), path)
    written = (datetime(2025, 1, 1) + timedelta(days)).timestamp()
    os.utime(path, (written, written))


@pytest.mark.slow
def test_a_prefix_is_in_all_of_dagster_and_nowhere_else_and_builds_nothing(tmp_path: Path):
    project, files = tmp_path / "project", tmp_path / "files"
    files.mkdir()
    for folder in ("serverless_assets", "modal_forecast"):
        ignored = shutil.ignore_patterns("__pycache__", "supply_plan.py")
        shutil.copytree(PROJECT_ROOT / folder, project / folder, ignore=ignored)
    shutil.copy(PROJECT_ROOT / "pyproject.toml", project)
    for name, text in FILES.items():
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).write_text(text)
    write_visits(files / "raw_visits.parquet", days=400)
    pq.write_table(pa.table({"id": ["1", "2"]}), files / "raw_regions.parquet")
    commands = Path(sys.executable).parent

    with listening(partial(Files, directory=str(files))) as server:
        environ = {
            **os.environ,
            "PYTHONPATH": str(project),
            "SERVERLESS_HOME": str(tmp_path / "home"),
            "SERVERLESS_DATASET_URL": f"http://127.0.0.1:{server.server_port}",
            "DAGSTER_HOME": "",
            "PATH": f"{commands}:{os.environ['PATH']}",
        }

        def run(*words: str) -> str:
            done = subprocess.run(
                words, cwd=project, env=environ, capture_output=True, text=True, check=False
            )
            assert done.returncode == 0, f"{words}\n{done.stdout}{done.stderr}"
            return done.stdout

        assert re.search(r"\d+ built, 0 reused, 0 failed, 0 skipped", run("serverless", "run"))
        environ["SERVERLESS_KEY_PREFIX"] = "acme/guests"
        reused = run("serverless", "run")
        assert re.search(r" 0 built, \d+ reused, 0 failed, 0 skipped", reused), reused
        assert re.search(r"^  Tables .*raw_visits [\d,]+$", reused, re.MULTILINE), reused
        assert re.search("^  Forecast +60 days ahead .*guests", reused, re.MULTILINE), reused
        assert "acme" not in reused
        # Colours alone are for both forecasts, and leave each as far ahead as it is declared.
        (project / "teal.yaml").write_text(TEAL)
        teal = run("serverless", "run", "--config", "teal.yaml")
        assert re.search("guests +60 rows .*reused", teal) and re.search("weekly +26 rows .*reused", teal), (
            teal
        )
        assert " 2 built," in teal and {*re.findall(r"(\w+_report) .* built:", teal)} == REPORTS, teal
        run("serverless", "run")

        plan = run("serverless", "plan")
        assert NAMES - {"pipeline_runs"} == {line.split()[0] for line in plan.splitlines()[1:-2]}
        assert {line.split()[1] for line in plan.splitlines()[1:-2]} == {"reuse"}
        assert "content of guests" in run("serverless", "why", "staff_plan")
        assert "daily_guests" in run("serverless", "why", "daily_guests")

        environ["DAGSTER_HOME"] = str(tmp_path / "home" / "dagster")
        seen = json.loads(run(sys.executable, "-c", LOOK, "").splitlines()[-1])
        assert {*seen["keys"]} == NAMES | {f"acme/guests/{name}" for name in NAMES}
        below = {key: passed for key, passed in seen["checks"].items() if key.startswith("acme/guests/")}
        assert below == seen["checks"]
        for check in (
            "raw_visits raw_visits_volume",
            "daily_guests not_null_daily_guests_guests",
            "guests forecast_is_complete",
            "guests_by_region forecasts_add_up",
            "weekly forecast_is_complete",
            "staff_plan staff_plan_is_made",
        ):
            assert below[f"acme/guests/{check}"], check
        assert seen["stale"].startswith("The forecast is fresh")
        assert seen["asked"] == []

        write_visits(files / "raw_visits.parquet", days=401)
        seen = json.loads(run(sys.executable, "-c", LOOK, seen["cursor"]).splitlines()[-1])
        assert len(seen["asked"]) == 1, seen
        [asked] = seen["asked"]
        reads = NAMES - {"raw_regions", "pipeline_runs"}
        assert {*asked} == {f"acme/guests/{name}" for name in reads}
        assert "staff_plan" in run("serverless", "run", "staff")
        run("dg", "launch", "--assets", ",".join(asked))
        plan = run("serverless", "plan")
        assert {line.split()[1] for line in plan.splitlines()[1:-2]} == {"reuse"}
        listed = json.loads(run("dg", "list", "defs", "--json"))
        assert "crm/customers" in {asset["asset_key"] for asset in listed["assets"]}


@pytest.mark.slow
def test_a_forecast_may_read_a_source_that_another_code_location_writes(tmp_path: Path):
    meta = {"dagster": {"asset_key": ["crm", "revenue"], "key_prefix": False}}
    table = {"name": "daily_revenue", "config": {"meta": meta}}
    files = {
        "dbt_project.yml": "name: team\nprofile: team\n",
        "models/crm.yml": json.dumps({"sources": [{"name": "crm", "tables": [table]}]}),
        "models/one.sql": "select 1 as one",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    variables = {"SERVERLESS_DBT_PROJECT": str(tmp_path), "SERVERLESS_KEY_PREFIX": "acme"}
    with dg.DagsterInstance.ephemeral() as instance:
        definitions = Pipeline(tmp_path / "home", instance, variables).definitions
        forecast = dg.AssetKey(["acme", "order_forecast"])
        graph = definitions.get_repository_def().asset_graph
        set_key_prefix("")
    assert graph.get(forecast).parent_keys == {dg.AssetKey(["crm", "revenue"])}
