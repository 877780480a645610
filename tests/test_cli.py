import os
import re
import shutil
import socket
import subprocess
import sys
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import click
import dagster as dg
import pytest
from click.testing import CliRunner

from serverless_assets.artifacts.local import LocalArtifacts
from serverless_assets.cli import main
from serverless_assets.cli.production import UI_ADDRESS
from serverless_assets.cli.progress import Progress
from serverless_assets.project_root import PROJECT_ROOT
from serverless_assets.publishing.outcome import PendingAssets
from serverless_assets.transformation.dbt_process import Event
from serverless_assets.transformation.invocation import Results
from serverless_assets.transformation.relation_states import State

SERVERLESS = str(Path(sys.executable).with_name("serverless"))


def test_an_unknown_environment_is_refused_with_those_that_are_known(empty, serverless):
    staging = replace(empty, variables={**empty.variables, "SERVERLESS_ENV": "staging"})
    refused = serverless(staging, "run")
    assert refused.exit_code == 1
    assert "Unknown SERVERLESS_ENV 'staging'" in refused.stderr
    assert "expected one of gcp, local" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_an_unknown_job_is_refused_with_those_that_there_are(empty, serverless):
    refused = serverless(empty, "run", "everything")
    assert refused.exit_code == 1
    assert "Jobs: serverless_pipeline, ingest, transform, " in refused.stderr


@pytest.mark.parametrize("command", ["run", "plan"])
def test_full_rebuild_is_refused_with_an_option_that_leaves_part_of_it_out(empty, serverless, command):
    refused = serverless(empty, command, "full_rebuild", "--reuse")
    assert refused.exit_code == 1
    assert "loads, builds and forecasts everything, and --reuse would leave part of it out" in refused.stderr


@pytest.mark.parametrize(
    ("job", "option"),
    [("forecast", "--skip-forecast"), ("ingest", "--reuse")],
)
def test_an_option_that_leaves_a_job_nothing_to_do_is_refused(empty, serverless, job, option):
    refused = serverless(empty, "run", job, option)
    assert refused.exit_code == 1
    assert refused.stderr == f"Error: {option} leaves nothing of the job {job!r} to do: leave it out.\n"


def test_a_run_config_that_makes_no_sense_is_refused_before_the_run(empty, serverless, tmp_path):
    config = tmp_path / "config.yaml"
    config.write_text('resources: {run_inputs: {config: {forecast: {run: {cpu: "3.0"}}}}}')
    refused = serverless(empty, "run", "--config", str(config))
    assert refused.exit_code == 1
    assert "cpu" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_a_run_ends_with_a_summary_and_a_failed_one_is_gone_on_with(empty, serverless):
    nowhere = {"SERVERLESS_DATASET_URL": f"{empty.variables['SERVERLESS_DATASET_URL']}/nowhere"}
    failed = serverless(replace(empty, variables={**empty.variables, **nowhere}), "run", "ingest")
    assert failed.exit_code == 1
    assert "Failed in" in failed.stdout
    assert "--resume" in failed.stdout
    resumed = serverless(empty, "run", "--resume")
    assert resumed.exit_code == 0, resumed.output
    assert "Succeeded in" in resumed.stdout
    assert "6 built" in resumed.stdout
    assert "nothing to resume" in serverless(empty, "run", "--resume").stderr


def stop_at_the_first_test(monkeypatch):
    see = Results.see

    def stopped(results: Results, event: Event) -> None:
        if event["data"].get("node_info", {}).get("resource_type") == "test":
            # What a signal makes of the step.
            raise dg.DagsterExecutionInterruptedError
        see(results, event)

    monkeypatch.setattr(Results, "see", stopped)


def stop_as_dagster_stores_a_model(monkeypatch):
    call = Progress.__call__

    def stopped(progress: Progress, entry: dg.EventLogEntry) -> None:
        call(progress, entry)
        event = entry.dagster_event
        if event and event.event_type == dg.DagsterEventType.ASSET_MATERIALIZATION:
            raise dg.DagsterExecutionInterruptedError

    monkeypatch.setattr(Progress, "__call__", stopped)


@pytest.mark.parametrize(
    "stop", [pytest.param(stop_at_the_first_test, marks=pytest.mark.slow), stop_as_dagster_stores_a_model]
)
def test_a_model_that_was_built_before_a_stop_and_not_tested_is_resumed(
    pipeline, serverless, monkeypatch, stop
):
    def unfinished() -> set[str]:
        states = pipeline.warehouse.read_states().items()
        return {name for name, state in states if not State.from_json(state).version}

    with monkeypatch.context() as stopped:
        stop(stopped)
        assert serverless(pipeline, "run", "transform", "--rebuild").exit_code == 1
    assert unfinished() and unfinished() <= PendingAssets(pipeline.home).read()
    resumed = serverless(pipeline, "run", "transform", "--resume")
    assert resumed.exit_code == 0, resumed.output
    assert unfinished() == set()
    assert "s: 0 built, " in serverless(pipeline, "run", "transform").output


@pytest.mark.parametrize("command", ["ui", "sample-api"])
def test_a_port_that_is_taken_is_refused_at_once(empty, serverless, command):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        refused = serverless(empty, command, "--port", str(port))
    assert refused.exit_code == 1
    assert refused.stderr == (
        f"Error: Port {port} on 127.0.0.1 cannot be used: Address already in use. "
        "Choose another one with --port.\n"
    )


@pytest.mark.parametrize("port", ["0", "-1", "65536", "http"])
@pytest.mark.parametrize("command", ["ui", "sample-api"])
def test_a_port_that_there_is_not_is_refused(command, port):
    refused = CliRunner().invoke(main, [command, "--port", port])
    assert refused.exit_code == 2
    assert f"'{port}' is no port: expected a number from 1 to 65535." in refused.output


def test_a_run_of_months_names_each_table_once(pipeline, serverless):
    ingested = serverless(pipeline, "run", "ingest", "--months", "2024-11..2024-12")
    assert ingested.exit_code == 0, ingested.output
    for table in ("raw_orders", "raw_items", "raw_stores"):
        lines = [line for line in ingested.output.splitlines() if re.search(rf"\b{table}\b", line)]
        [line] = [line for line in lines if not line.startswith(("  Tables ", "  Warning "))]
        assert "reused: " in line


def test_months_that_are_refused_leave_no_run_and_publish_nothing(empty, serverless):
    refused = serverless(empty, "run", "ingest", "--months", "2031-01")
    assert refused.exit_code == 1
    assert "--months is '2031-01': expected months from " in refused.stderr
    assert "Traceback" not in refused.stderr
    assert not list(empty.home.glob("runs/*"))
    assert not (empty.home / "warehouse.duckdb").exists()


def test_a_run_that_cannot_begin_for_an_unexpected_reason_says_so_and_where_the_traceback_is(
    empty, serverless
):
    (empty.home / "work" / "lock").mkdir(parents=True)
    failed = serverless(empty, "run", "ingest")
    assert failed.exit_code == 1
    assert "work/lock cannot be used: Is a directory." in failed.stdout
    assert "The full traceback is in " in failed.stdout
    (file,) = (empty.home / "logs").iterdir()
    assert "IsADirectoryError" in file.read_text()
    assert '"success": false' in (empty.home / "runs" / "latest.json").read_text()


def test_clean_leaves_a_folder_alone_that_it_did_not_make(tmp_path):
    (tmp_path / "precious.txt").write_text("mine")
    refused = CliRunner().invoke(main, ["clean", "--yes"], env={"SERVERLESS_HOME": str(tmp_path)})
    assert refused.exit_code == 1
    assert (tmp_path / "precious.txt").exists()


@pytest.mark.slow
def test_a_model_that_failed_and_was_deleted_keeps_nothing_from_being_published(
    pipeline, serverless, tmp_path
):
    project = tmp_path / "dbt_project"
    shutil.copytree(PROJECT_ROOT / "dbt_project", project, ignore=shutil.ignore_patterns("target", "logs"))
    pipeline = replace(pipeline, variables={**pipeline.variables, "SERVERLESS_DBT_PROJECT": str(project)})
    model = project / "models" / "marts" / "broken.sql"
    model.write_text("select no_such_column from {{ ref('orders') }}")
    failed = serverless(pipeline, "run", "transform")
    model.unlink()
    assert failed.exit_code == 1, failed.output
    assert "broken did not succeed" in failed.output
    resumed = serverless(pipeline, "run", "transform", "--resume")
    assert resumed.exit_code == 1
    assert "There is nothing to resume" in resumed.output
    published = serverless(pipeline, "run", "transform")
    assert published.exit_code == 0, published.output
    assert "Succeeded in" in published.output


def test_the_help_lists_every_command_with_a_whole_sentence():
    lines = CliRunner().invoke(main, ["--help"]).stdout.partition("Commands:")[2].strip().splitlines()
    assert len(lines) == len(main.commands)
    assert [line for line in lines if not line.endswith(".") or line.endswith("...")] == []


@pytest.mark.parametrize("name", main.commands)
def test_the_help_of_a_command_has_an_example_and_says_what_each_option_does(name):
    text = CliRunner().invoke(main, [name, "-h"]).stdout
    assert re.search(rf"\n  Examples?:\n    (\w+=\w+ )?serverless {name}\b", text)
    options = [option for option in main.commands[name].params if isinstance(option, click.Option)]
    assert all(option.help and option.help.endswith((".", "]")) for option in options)


def test_the_words_of_a_command_are_completed():
    environ = {"_SERVERLESS_COMPLETE": "bash_complete", "COMP_WORDS": "serverless sl", "COMP_CWORD": "1"}
    completed = subprocess.run([SERVERLESS], env={**os.environ, **environ}, capture_output=True, text=True)
    assert completed.stdout == "plain,slim-ci\n"


def test_a_command_in_a_folder_that_was_deleted_says_so(tmp_path):
    command = 'cd "$0" && rmdir "$0" && exec "$1" plan'
    words = ["sh", "-c", command, str(tmp_path), SERVERLESS]
    completed = subprocess.run(words, capture_output=True, text=True)
    assert (completed.returncode, completed.stdout) == (1, "")
    assert completed.stderr == "Error: The current folder was deleted. Change to another one first.\n"


def test_why_compares_what_a_model_was_built_from_with_what_it_is(pipeline, serverless):
    unchanged = serverless(pipeline, "why", "orders").stdout
    assert "orders is reused: unchanged" in unchanged
    assert " changed\n" not in unchanged
    assert re.search(r"^  Unchanged: SQL, config, content of ", unchanged, re.MULTILINE)
    warehouse = pipeline.parts.publisher.warehouse
    state = dict(warehouse.read_state("orders"))
    warehouse.write_states(
        {"orders": {**state, "version": "old", "data_hashes": {**state["data_hashes"], "SQL": "0ld"}}}
    )
    changed = serverless(pipeline, "why", "orders").stdout
    assert "orders would be built: SQL changed" in changed
    assert re.findall(r"^  (.*\S) +changed$", changed, re.MULTILINE) == ["SQL"]


def test_why_compares_what_raw_tables_and_forecasts_were_made_from(pipeline, serverless):
    def differing(asset: str) -> list[list[str]]:
        lines = serverless(pipeline, "why", asset).stdout.splitlines()
        return [line.split(maxsplit=1) for line in lines if re.match(r"  (?!Unchanged: )", line)]

    assert differing("raw_stores") == differing("order_forecast") == []
    warehouse = pipeline.parts.publisher.warehouse
    warehouse.write_states(
        {
            "raw_stores": {**warehouse.read_state("raw_stores"), "definition": "0ld"},
            "order_forecast": {
                **warehouse.read_state("order_forecast"), "forecast_key": "0ld", "horizon_days": 30,
            },
        }
    )  # fmt: skip
    assert differing("raw_stores") == [["definition", "changed"]]
    assert differing("order_forecast") == [["horizon", "was 30, is 180"]]
    said = serverless(pipeline, "why", "order_forecast").stdout
    assert "order_forecast would be built: horizon changed (30 to 180 days)" in said
    assert f"Last built by run {pipeline.summary['run_id']}." in said
    report = serverless(pipeline, "why", "forecast_report").stdout
    assert report == "forecast_report would be written: upstream rebuilt (order_forecast)\n"


def test_why_of_an_unknown_asset_names_those_that_are_like_it(empty, serverless):
    refused = serverless(empty, "why", "stg_order")
    assert refused.exit_code == 1
    assert "Did you mean stg_orders?" in refused.stderr
    early = serverless(empty, "why", "order_forecast")
    assert "There is no daily_revenue yet" in early.stderr


@pytest.fixture
def opened(monkeypatch) -> list[str]:
    """The addresses that a command has opened. No browser of a person is opened by a test."""
    addresses: list[str] = []
    monkeypatch.setattr("webbrowser.open", lambda address: addresses.append(address) or True)
    return addresses


def test_the_published_report_is_opened(green, empty, serverless, opened, monkeypatch):
    assert serverless(green, "open").exit_code == 0
    assert [Path(address).name for address in opened] == ["forecast.html"]
    assert "No report was published yet" in serverless(empty, "open").stderr
    monkeypatch.setattr("webbrowser.open", lambda address: False)
    monkeypatch.setattr(LocalArtifacts, "names", lambda *_: ["weekly.html", "forecast.html"])
    without_browser = serverless(green, "open")
    assert "weekly.html\n" in without_browser.stdout
    assert without_browser.exit_code == 1
    assert without_browser.stdout.endswith("forecast.html\n")
    assert "No browser could be opened here" in without_browser.stderr


def test_the_ui_that_was_started_is_opened_and_one_that_does_not_answer_is_refused(empty, serverless, opened):
    with socket.create_server(("127.0.0.1", 0)) as ui:
        address = f"http://127.0.0.1:{ui.getsockname()[1]}"
        (empty.home / UI_ADDRESS).write_text(address)
        assert serverless(empty, "open", "ui").output == f"{address}\n"
    refused = serverless(empty, "open", "ui")
    assert refused.exit_code == 1
    assert refused.stderr == f"Error: No UI is served at {address}: `serverless ui` starts one.\n"
    elsewhere = replace(empty, variables={**empty.variables, "SERVERLESS_UI_URL": "https://dagster.test"})
    assert serverless(elsewhere, "open", "ui").exit_code == 0
    assert opened == [address, "https://dagster.test"]


def test_the_doctor_checks_every_part_also_after_one_that_is_not_well(green, serverless, monkeypatch):
    well = serverless(green, "doctor")
    assert well.exit_code == 0, well.output
    assert re.search(r"Dagster \d+\.\d+.*, dbt \d+.*, Python 3\.", well.output)
    assert re.findall(r"^  (ok|NOT OK) +(\w+)", well.output, re.MULTILINE) == [
        ("ok", part) for part in ("source", "warehouse", "models", "compute", "artifacts")
    ]
    monkeypatch.setitem(green.variables, "SERVERLESS_DATASET_URL", "http://127.0.0.1:9/nothing")
    ill = serverless(green, "doctor")
    assert ill.exit_code == 1
    assert re.findall(r"^  (ok|NOT OK) ", ill.output, re.MULTILINE) == [
        "NOT OK",
        *["ok"] * 4,
    ]
    assert "Fix what is NOT OK" in ill.output


def test_version_is_that_of_the_package():
    result = CliRunner().invoke(main, ["--version"])
    assert result.output == f"serverless, version {version('serverless-assets')}\n"
