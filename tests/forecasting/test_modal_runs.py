"""Modal with the local warehouse, in processes of their own, so that they can be killed."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from serverless_assets.project_root import PROJECT_ROOT
from serverless_assets.publishing.summary import read_summary
from serverless_assets.run_inputs import CustomisedStyle, RunForecast, RunInputs
from tests.backends.conftest import environment
from tests.conftest import Pipeline
from tests.services.modal.harness import Server

pytestmark = pytest.mark.gcp

SERVERLESS = str(Path(sys.executable).with_name("serverless"))


@pytest.fixture
def mixed(pipeline: Pipeline, modal: Server) -> dict[str, str]:
    """The variables of a laptop that has models already, and computes on Modal."""
    return {
        **os.environ,
        **pipeline.variables,
        "SERVERLESS_HOME": str(pipeline.home),
        "SERVERLESS_COMPUTE": "modal",
    }


def started(variables: dict[str, str]) -> subprocess.Popen[str]:
    command = [SERVERLESS, "run", "forecast", "--rebuild"]
    return subprocess.Popen(command, env=variables, cwd=PROJECT_ROOT, stdout=subprocess.PIPE, text=True)


def until(process: subprocess.Popen[str], text: str) -> str:
    for line in process.stdout:
        if text in line:
            return line
    raise AssertionError(f"{text!r} was never said")


def test_a_run_killed_while_its_call_is_in_flight_is_gone_on_with_and_not_paid_twice(mixed, modal):
    home = Path(mixed["SERVERLESS_HOME"])
    killed = started(mixed)
    call = until(killed, "started with").split()[2]
    killed.kill()
    killed.wait()
    before = modal.forecast_calls()
    assert before[-1] == call
    # As in a fresh container: what is known of the call is in the warehouse.
    shutil.rmtree(home / "dagster")
    again = started(mixed)
    said, _ = again.communicate()
    assert again.returncode == 0, said
    assert f"Taking up call {call}" in said
    # The total and the stores are one call.
    assert modal.forecast_calls() == before
    assert modal.call(call).containers_started == 1
    summary = read_summary(home)
    assert summary["published"]
    assert summary["assets"]["order_forecast"]["rows"] == 180


def test_a_run_that_is_stopped_stops_its_call(mixed, modal):
    stopped = started(mixed)
    call = until(stopped, "started with").split()[2]
    stopped.send_signal(signal.SIGINT)
    said, _ = stopped.communicate()
    assert stopped.returncode == 128 + signal.SIGINT
    assert "Stopped by Ctrl-C" in said.splitlines()[-2]
    assert modal.wait_finished(call).status == "cancelled"
    # What was stopped on purpose is not taken up again.
    again = started(mixed)
    said, _ = again.communicate()
    assert again.returncode == 0, said
    assert "Taking up" not in said


def test_the_chosen_size_reaches_the_call(pipeline, modal):
    laptop = Pipeline(
        pipeline.home, pipeline.instance, {**os.environ, **pipeline.variables, "SERVERLESS_COMPUTE": "modal"}
    )
    inputs = RunInputs(forecast=RunForecast(cpu="1.5", memory="512", style=CustomisedStyle(nr_days_fcst=30)))
    assert laptop.run(inputs, job="forecast").success
    call = modal.call(laptop.facts("order_forecast")["modal_call"])
    assert (call.cpu, call.memory) == ((1.5, 2.0), (512, 512))


def test_no_token_is_named_before_anything_runs(mixed):
    without = {name: value for name, value in mixed.items() if not name.startswith("MODAL_TOKEN")}
    with environment({"MODAL_CONFIG_PATH": None}):
        told = subprocess.run(
            [SERVERLESS, "run"],
            env={**without, "MODAL_CONFIG_PATH": "/nowhere"},
            capture_output=True, text=True,
        )  # fmt: skip
    assert told.returncode == 1
    assert "MODAL_TOKEN_ID and MODAL_TOKEN_SECRET" in told.stderr
