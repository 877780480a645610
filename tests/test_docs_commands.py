"""Every block of code in README and docs is run: by a test here, by one that is named for it, or by CI."""

import os
import re
import subprocess
import sys
import textwrap
from datetime import date, datetime, timedelta
from functools import partial
from http.server import SimpleHTTPRequestHandler
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from serverless_assets.cli.init import start_project
from serverless_assets.ingestion.catalog import read_catalogue
from serverless_assets.project_root import PROJECT_ROOT
from serverless_assets.run_inputs import RunInputs
from tests.services.listening import listening

BIN = Path(sys.executable).parent
# Indented by four, or by six within a list.
BLOCK = re.compile(r"^( {4,6})\S.*\n(?:\1.*\n|\n(?=\1))*", re.MULTILINE)
CI, OUTPUT = "each line is in .ci/run", "no code: what is printed or stored, or a formula"
JAFFLE_SHOP = (
    "transformation/test_jaffle_shop.py::"
    "test_the_commands_of_the_docs_plug_it_in_and_drop_what_a_deleted_model_left"
)
DECLARED = "forecasting/test_declared.py::test_another_forecast_is_scaffolded_checked_and_run_as_the_docs_say"
INIT = "cli/test_init.py::test_a_project_of_ones_own_is_tested_and_runs_as_the_docs_say"
DEPLOY = "test_docs_commands.py::test_the_commands_that_deploy_run_against_servers_of_the_cloud"
RUN_CONFIG = "resources:\n  run_inputs:\n    config:\n      "
RUN_CONFIG_IS_TAKEN = "test_docs.py::test_the_examples_of_a_run_config_have_every_choice_and_are_taken"
# By page and its beginning, what runs each block; or what runs all of a page in order.
BLOCKS: dict[str, dict[str, str] | str] = {
    "README.md": {
        "make run": CI,
        "Succeeded in": OUTPUT,
        "$ serverless plan": "test_tutorial.py::"
        "test_the_readme_shows_what_plan_and_why_print_of_an_edited_model",
        ".venv/bin/serverless init": INIT,
        "gcloud auth": DEPLOY,
    },
    "CONTRIBUTING.md": {"make run": CI},
    "docs/ARCHITECTURE.md": {"source -->": OUTPUT},
    "docs/cloud.md": {
        "export SERVERLESS_ENV": DEPLOY,
        "modal run": "forecasting/test_modal_compute.py::test_a_file_is_forecast_on_modal_without_a_deploy",
        "select run_id": "backends/test_rollback.py::"
        "test_readers_see_whole_tables_always_and_two_releases_only_within_a_burst",
        "declare release": "backends/test_live.py::"
        "test_tables_of_one_release_are_read_as_of_its_time_as_the_documentation_shows",
        "import json": "backends/test_release.py::"
        "test_exactly_one_release_is_read_as_the_documentation_shows",
        "create or replace table": "backends/test_release.py::"
        "test_what_people_set_and_the_emulator_does_not_keep_is_in_the_statements",
    },
    "docs/command-line.md": {
        "eval": "test_docs_commands.py::test_a_shell_takes_the_completion",
        "python -m modal_forecast": "test_docs_commands.py::test_csv_files_are_forecast_without_dagster",
    },
    "docs/dagster.md": {
        "customers = dg.AssetSpec": "test_key_prefix.py::"
        "test_a_prefix_is_in_all_of_dagster_and_nowhere_else_and_builds_nothing",
        f"{RUN_CONFIG}forecast:": RUN_CONFIG_IS_TAKEN,
        f"{RUN_CONFIG}rebuild:": RUN_CONFIG_IS_TAKEN,
    },
    "docs/dbt-project.md": {
        "export SERVERLESS_DBT_PROJECT": JAFFLE_SHOP,
        "serverless run --drop-deleted": JAFFLE_SHOP,
        "import duckdb": "transformation/test_databases.py::"
        "test_models_in_two_databases_are_built_reused_published_and_taken_back_together",
    },
    "docs/dbt.md": {"make slim-ci": CI},
    "docs/declare-forecasts.md": {
        ".venv/bin/dg scaffold": DECLARED,
        "type: serverless_assets.Forecast": DECLARED,
        ".venv/bin/dg check": DECLARED,
    },
    "docs/faq.md": {"warehouse.duckdb": "test_docs_commands.py::test_the_home_holds_what_the_page_lists"},
    "docs/many-series.md": {"a     cpu": OUTPUT, "100 series": OUTPUT, "read the": OUTPUT},
    "docs/python-assets.md": {"import dagster": DECLARED},
    "docs/raw-tables.md": {
        "sources:": "test_docs_commands.py::test_a_raw_table_is_declared_and_loaded",
        "export SERVERLESS_DATASET_URL": "test_docs_commands.py::test_a_raw_table_is_declared_and_loaded",
        "meta: {key": "test_docs_commands.py::test_a_raw_table_is_declared_and_loaded",
    },
    "docs/releases.md": {"$ serverless": "test_docs_commands.py::test_a_release_is_left_and_returned_to"},
    "docs/reliability.md": {
        "import duckdb": "test_docs_commands.py::test_one_release_is_read_from_its_folder",
        "make test-faults": "test_docs_commands.py::test_make_takes_the_options_of_the_fault_tests",
    },
    "docs/rest-api.md": {
        "sources:": "ingestion/test_rest.py::test_the_example_of_the_docs_loads_an_api",
        "serverless add-table": "ingestion/test_add_table.py::"
        "test_the_entry_of_an_api_is_guessed_from_its_first_page_and_can_be_loaded",
    },
    "docs/tutorial.md": "test_tutorial.py::test_the_tutorial_prints_what_it_shows",
    "docs/your-own.md": {".venv/bin/serverless init": INIT, "cd ../guest-visits": INIT},
}


def blocks(page: str) -> list[str]:
    """Return the blocks of code of a page, without their indent."""
    text = (PROJECT_ROOT / page).read_text()
    return [textwrap.dedent(match[0]).strip() for match in BLOCK.finditer(text)]


def block(page: str, beginning: str) -> str:
    [found] = [text for text in blocks(page) if text.startswith(beginning)]
    return found


def without_comments(commands: str) -> list[str]:
    return [re.sub(r" +#.*", "", line) for line in commands.splitlines()]


def shell(commands: str, folder: Path, **variables: str) -> str:
    """Run commands as a user types them, with the tools of this environment, and return what they print."""
    outside = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    environ = {**outside, "PATH": f"{BIN}:{os.environ['PATH']}", "DAGSTER_HOME": "", **variables}
    done = subprocess.run(
        ["bash", "-ec", commands], cwd=folder, env=environ, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{commands}\n{done.stdout}{done.stderr}"
    return done.stdout


def test_every_block_of_code_is_run_by_something():
    pages = ["README.md", "CONTRIBUTING.md"]
    pages += [f"docs/{path.name}" for path in (PROJECT_ROOT / "docs").glob("*.md")]
    ci = (PROJECT_ROOT / ".ci" / "run").read_text().splitlines()
    for page in pages:
        unknown, run_by = {*blocks(page)}, BLOCKS.get(page, {})
        if isinstance(run_by, str):
            unknown, run_by = set(), {"": run_by}
        for beginning, runs in run_by.items():
            text = block(page, beginning) if beginning else ""
            unknown -= {text}
            if runs == CI:
                assert {*without_comments(text)} <= {*ci}
            elif runs != OUTPUT:
                file, test = runs.split("::")
                assert f"def {test}(" in (PROJECT_ROOT / "tests" / file).read_text(), runs
        assert unknown == set(), f"{page}: name in BLOCKS what runs this"


def test_a_shell_takes_the_completion(tmp_path):
    line = block("docs/command-line.md", "eval")
    assert "_serverless_completion" in shell(f"{line}\ncomplete -p serverless", tmp_path)


def test_make_takes_the_options_of_the_fault_tests():
    commands = block("docs/reliability.md", "make test-faults").replace("make ", "make -n ")
    rounds = re.findall(r"FAULT_ROUNDS=(\d+) ", shell(commands, PROJECT_ROOT))
    assert rounds == ["1", "5", "20", "1"]


def test_the_home_holds_what_the_page_lists(green):
    for line in block("docs/faq.md", "warehouse.duckdb").splitlines():
        assert (green.home / line.split()[0]).exists(), line


def test_one_release_is_read_from_its_folder(green):
    scope: dict[str, Any] = {}
    exec(block("docs/reliability.md", "import duckdb").replace(".serverless", str(green.home)), scope)
    assert scope["forecast"].num_rows == 180
    assert scope["report"] == (green.home / "artifacts" / "forecast.html").read_text()


@pytest.mark.slow
def test_a_release_is_left_and_returned_to(pipeline, serverless):
    assert pipeline.run(RunInputs(rebuild="all")).success
    shown = block("docs/releases.md", "$ serverless").splitlines()
    listed, rolled_back = (
        serverless(pipeline, *re.sub(" #.*", "", line).split()[2:]) for line in shown if line.startswith("$")
    )
    assert (listed.exit_code, rolled_back.exit_code) == (0, 0), rolled_back.output
    assert listed.output.splitlines()[0] == shown[1]
    assert "  read now  " in listed.output.splitlines()[1]
    assert re.match(r"Rolled back from the release of run \w{8}, published ", rolled_back.output)
    # As a plan: what the next run continues from is not what was built last.
    assert serverless(pipeline, "why", "orders").output.startswith("The next run starts from the published ")


@pytest.mark.slow
def test_csv_files_are_forecast_without_dagster(tmp_path):
    days = [date(2024, 1, 1) + timedelta(days=n) for n in range(400)]
    months = [day for day in days if day.day == 1]
    for name, periods in {"history.csv": days, "months.csv": months}.items():
        lines = [f"{day},{100 + n % 7}" for n, day in enumerate(periods)]
        (tmp_path / name).write_text("\n".join(["ds,y", *lines]))
    assert "180 days forecast" in shell(block("docs/command-line.md", "python -m"), tmp_path)
    assert "<h1>" in (tmp_path / "report.html").read_text()


class Files(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.mark.slow
def test_a_raw_table_is_declared_and_loaded(tmp_path):
    now = datetime.now()
    visits = [now - timedelta(hours=hour) for hour in range(2000)]
    ids = pa.array([f"v{number}" for number in range(2000)])
    pq.write_table(
        pa.table({"id": ids, "visited_at": pa.array(visits, pa.timestamp("us"))}),
        tmp_path / "raw_visits.parquet",
    )
    project = tmp_path / "guest-visits"
    list(start_project(project))
    with listening(partial(Files, directory=str(tmp_path))) as server:
        commands = block("docs/raw-tables.md", "export SERVERLESS_DATASET_URL").replace(
            "https://example.com/data", f"http://127.0.0.1:{server.server_port}"
        )
        shell(commands, project)
    with duckdb.connect(str(project / ".serverless" / "warehouse.duckdb"), read_only=True) as warehouse:
        assert warehouse.sql("select count(*) from dwh.stg_visits").fetchall() == [(2000,)]
    written = (project / "dbt_project" / "models" / "staging" / "raw.yml").read_text()
    shown = block("docs/raw-tables.md", "sources:")
    documented, added = (yaml.safe_load(text)["sources"][0]["tables"][0] for text in (shown, written))
    assert added["config"] == documented["config"]
    types = [{column["name"]: column["data_type"] for column in t["columns"]} for t in (documented, added)]
    assert types[0] == types[1]
    # With changes alone, which are columns more.
    columns = {name: {"data_type": type} for name, type in types[0].items()}
    columns |= {name: {"data_type": "timestamp"} for name in ("updated_at", "deleted_at")}
    config = yaml.safe_load(block("docs/raw-tables.md", "meta: {key"))
    source = {**documented, "identifier": "raw_visits", "columns": columns, "config": config}
    [table] = read_catalogue({"sources": {"raw_visits": {**source, "source_name": "raw"}}})
    assert (table.updated_at, table.deleted) == ("updated_at", "deleted_at")


@pytest.mark.gcp
@pytest.mark.slow
def test_the_commands_that_deploy_run_against_servers_of_the_cloud(tmp_path):
    readme, page = block("README.md", "gcloud"), block("docs/cloud.md", "export SERVERLESS_ENV")
    login, *commands = without_comments(readme)
    assert commands == without_comments(page)
    assert login == "gcloud auth application-default login && .venv/bin/modal token new"
    script = tmp_path / "deploy.sh"
    make = f"make BIN={BIN} -o .venv/run "
    script.write_text("\n".join(commands).replace("make ", make))
    printed = shell(
        f"python -m tests.services bash -e {script}", PROJECT_ROOT, SERVERLESS_HOME=str(tmp_path / "home")
    )
    assert "Succeeded in" in printed
