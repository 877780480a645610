"""A run that somebody stops in the UI is over soon, leaves no process, and publishes nothing."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.ui.client import NO_FORECAST, published, until
from tests.ui.serve import STOP_SECONDS, serve

TERMINATE = (
    "mutation ($id: String!) { terminateRun(runId: $id) { __typename ... on PythonError { message } } }"
)
MODEL = "models/aggregations/avg_order_value.sql"
# It tells that it has begun, and then takes hours.
HOOKS = """
{{ config(pre_hook=[
    "copy (select 1 as n) to '%s'",
    "select count(*) from range(3000000) as a(m), range(3000000) as b(n) where sin(m) * n = 2",
]) }}
"""
pytestmark = pytest.mark.usefixtures("nothing_pending")
REBUILD = {"rebuild": "all", "ingestion": {"reuse": {}}}


@pytest.fixture
def stop(ui):
    quiet = ui.children()
    before = published(ui.home)

    def stop(run_id):
        """Stop a run and wait until nothing of it is left."""
        assert ui.ask(TERMINATE, id=run_id)["terminateRun"]["__typename"] == "TerminateRunSuccess"
        assert ui.status_at_the_end(run_id) == "CANCELED"
        assert "The run was stopped, and nothing was published." in ui.said(run_id)
        until(lambda: ui.children().keys() <= quiet.keys(), "no process of the run is left", 90)
        assert published(ui.home) == before

    return stop


def test_a_run_is_stopped_while_dbt_builds(ui, dbt_project, stop, tmp_path):
    model, begun = dbt_project / MODEL, tmp_path / "begun.csv"
    sound = model.read_text()
    try:
        model.write_text(HOOKS % begun + sound)
        run_id = ui.launch("transform", {"ingestion": {"reuse": {}}, **NO_FORECAST})
        until(begun.exists, "the model is being built")
        stop(run_id)
    finally:
        model.write_text(sound)
    # Nothing of it is in the way of the next run.
    assert ui.status_at_the_end(ui.launch("transform", REBUILD)) == "SUCCESS"


def test_a_run_is_stopped_while_its_forecast_is_at_work(ui, stop):
    run_id = ui.launch("forecast", {**REBUILD, "forecast": {"run": {}}})
    worker = until(lambda: held_worker(ui), "the forecast's worker is at work", pause=0.02)
    stop(run_id)
    assert not worker.is_running()


def held_worker(ui):
    """The forecast's worker, held as one that does not come to an end by itself."""
    for child in ui.children().values():
        try:
            if "modal_forecast.worker" in child.cmdline():
                child.suspend()
                return child
        except psutil.NoSuchProcess:
            continue
    return None


def test_a_run_that_was_killed_in_a_terminal_fails_and_keeps_no_launch_waiting(ui, dbt_project):
    killed = subprocess.Popen(
        [Path(sys.executable).with_name("serverless"), "run", "transform"],
        env={**os.environ, "SERVERLESS_HOME": str(ui.home), "SERVERLESS_DBT_PROJECT": str(dbt_project)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert killed.stdout
    while "transformation ..." not in killed.stdout.readline():
        assert killed.poll() is None
    killed.kill()
    killed.communicate()
    # It is in the pool of the warehouse, which runs one at a time. Earlier runs were stopped in the
    # forecast: a run that leaves that unfinished would not be published, and fail.
    assert ui.status_at_the_end(ui.launch("serverless_pipeline", {"ingestion": {"reuse": {}}})) == "SUCCESS"
    failed = ui.ask(
        "query { runsOrError(filter: {statuses: [FAILURE]}) { ... on Runs { results { runId } } } }"
    )
    runs = [ui.said(run["runId"]) for run in failed["runsOrError"]["results"]]
    assert any(f"its process {killed.pid} on " in said for said in runs)


def test_a_ui_that_a_script_started_in_the_background_ends_when_it_is_told_to(tmp_path):
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with serve(tmp_path / "home", {}) as ui:
            process = psutil.Process(ui.pid)
            process.terminate()
            gone, _ = psutil.wait_procs([process], timeout=STOP_SECONDS)
            assert gone
    finally:
        signal.signal(signal.SIGINT, before)
