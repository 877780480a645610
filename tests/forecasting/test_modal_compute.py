"""The Modal compute against a server on loopback that runs each call in Modal's own container entrypoint.

What that leaves unproven: that Modal builds the image, and what its scheduler, its network and its bill do.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from datetime import date, timedelta
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pytest

from modal_forecast.code_version import code_version, versioned_app
from modal_forecast.messages import ForecastAnswer, ForecastRequest
from serverless_assets.forecasting.compute import Call, ComputeError, OutOfMemory, Size, WorkerFailed
from serverless_assets.forecasting.modal_compute import ModalCompute
from serverless_assets.forecasting.modal_errors import Crashed
from serverless_assets.project_root import PROJECT_ROOT
from tests.forecasting.calls_in_memory import CallsInMemory
from tests.services.modal.harness import Server, modal_server

pytestmark = pytest.mark.gcp

SMALL = Size(0.25, 256)
MIB = 1 << 20


def history(days: int) -> pa.Table:
    """A week that repeats itself."""
    first = date(2024, 1, 1)
    values = [100.0 + n % 7 for n in range(days)]
    return pa.table({"ds": [first + timedelta(days=n) for n in range(days)], "y": values})


@pytest.fixture(scope="module")
def server(modal: Server) -> Server:
    from tests.forecasting.misbehaving_worker import app

    app.deploy()
    return modal


@pytest.fixture
def lines() -> list[str]:
    return []


@pytest.fixture
def calls() -> CallsInMemory:
    return CallsInMemory()


@pytest.fixture
def compute(server, lines, calls):
    """Ask a worker, the misbehaving one unless told otherwise."""

    def compute(request, size=SMALL, app="misbehaving", environment=None, deadline=60.0, log=lines.append):
        return ModalCompute(app, environment, deadline).run(request, size, log, calls)

    return compute


# ---- what works


def test_the_real_worker_forecasts_with_the_size_that_was_asked_for(server, compute, lines):
    request = ForecastRequest(history(400), horizon=30)
    answered = compute(request.to_bytes(), Size(2.0, 1024), app=versioned_app("serverless-forecast"))
    answer = ForecastAnswer.from_bytes(answered.content)
    assert answer.forecast.num_rows == 30
    assert 50 < answer.diagnostics["peak_memory_mib"] < 1024
    seen = server.call(answered.call.id)
    assert (seen.cpu, seen.memory, seen.timeout) == ((2.0, 2.0), (1024, 1024), 60)
    assert answered.facts["modal_dashboard"].endswith(answered.call.id)
    assert any(line.startswith("  combined: ") for line in lines)


def test_a_file_is_forecast_on_modal_without_a_deploy(server, tmp_path):
    lines = [f"{day},{value}" for day, value in zip(*history(120).to_pydict().values(), strict=True)]
    (tmp_path / "history.csv").write_text("\n".join(["ds,y", *lines]))
    command = [Path(sys.executable).with_name("modal"), "run", "modal_forecast/app.py"]
    options = ["--history", tmp_path / "history.csv", "--out", tmp_path / "out.csv", "--horizon", "7"]
    done = subprocess.run(
        [*command, *options],
        env={**os.environ, **server.variables}, cwd=PROJECT_ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert "7 days forecast, 2024-04-30 to 2024-05-06" in done.stdout, done.stdout + done.stderr
    assert len((tmp_path / "out.csv").read_text().splitlines()) == 8
    assert server.calls()[-1].containers_started == 1


def test_the_worker_runs_where_the_setting_says(server, calls):
    compute = ModalCompute("misbehaving", None, 60.0, region="eu")
    answered = compute.run(b"echo", SMALL, lambda line: None, calls)
    assert server.call(answered.call.id).regions == ("eu",)


def test_a_fraction_of_a_core_may_use_a_whole_one(server, compute):
    assert server.call(compute(b"echo", Size(0.25, 256)).call.id).cpu == (0.25, 1.0)


def test_the_log_arrives_while_the_worker_is_at_work(compute, tmp_path):
    gate, heard = tmp_path / "gate", []

    def log(line):
        heard.append(line)
        if line == f"waiting for {gate}":
            # Nothing else opens the gate: without this line, the call would end at its deadline.
            gate.touch()

    compute(f"wait:{gate}".encode(), log=log)
    assert heard[-1] == "the wait is over"


@pytest.mark.parametrize("size", [1 * MIB, 20 * MIB])
def test_large_requests_and_answers_pass(compute, size):
    payload = os.urandom(size)
    assert compute(b"echo:" + payload).content == payload


# ---- taking up a call


def test_the_call_of_a_process_that_was_killed_is_taken_up(server, compute, calls, lines, tmp_path):
    gate = tmp_path / "gate"
    request = f"wait:{gate}"
    killed = _ask(server.variables, request, deadline=60.0)
    call = _read_until(killed, "started with").split()[1]
    killed.kill()
    killed.wait()

    key = ModalCompute("misbehaving", None, 60.0).key(request.encode(), SMALL)
    calls.started(Call(key, call))
    before = len(server.calls())
    gate.touch()
    assert compute(request.encode()).call.id == call
    assert len(server.calls()) == before
    assert lines[0].startswith(f"Taking up call {call}")


def test_a_call_for_another_size_or_request_is_not_taken_up(compute, calls):
    ids = {
        compute(*asked).call.id
        for asked in ((b"echo:a", SMALL), (b"echo:b", SMALL), (b"echo:a", Size(1, 512)))
    }
    assert len(ids) == 3


def test_a_finished_call_is_taken_up_until_its_answer_is_stored(compute, calls):
    first = compute(b"echo:once")
    assert compute(b"echo:once").call == first.call
    calls.ended(first.call)
    assert compute(b"echo:once").call != first.call


def test_a_call_that_failed_unseen_gives_way_to_a_new_one(compute, calls, lines, tmp_path):
    request = b"echo:again"
    first = compute(request)
    calls.started(Call(first.call.key, "fc-long-gone"))
    answered = compute(request)
    assert answered.content == b"again"
    assert any("A new call takes its place" in line for line in lines)


# ---- what fails, each in its own words, and over for good


def _refused(compute, calls, error=ComputeError, **asked):
    with pytest.raises(error) as raised:
        compute(**asked)
    assert type(raised.value) is error
    assert calls.over == calls.begun
    return str(raised.value)


def test_an_exception_of_the_worker_is_told(compute, calls):
    assert (
        _refused(compute, calls, WorkerFailed, request=b"raise:no such day")
        == "The worker failed with ValueError: no such day"
    )


def test_out_of_memory_names_the_next_size(server, compute, calls):
    said = _refused(compute, calls, OutOfMemory, request=b"eat:512")
    assert "256 MiB asked for. Choose memory 512." in said
    assert server.call(calls.begun[0].id).status == "oom"


def test_with_enough_memory_the_same_work_is_done(compute):
    assert compute(b"eat:512", Size(0.25, 1024)).content == b"32"


def test_a_call_that_takes_too_long_is_cancelled(server, compute, calls, tmp_path):
    said = _refused(compute, calls, WorkerFailed, request=f"wait:{tmp_path / 'never'}".encode(), deadline=2.0)
    assert "no answer within 2 s" in said
    assert server.wait_finished(calls.begun[0].id).status in ("timeout", "cancelled")


def test_a_crash_is_told(compute, calls):
    assert "crashed" in _refused(compute, calls, Crashed, request=b"crash")


def test_a_worker_that_ends_itself_is_told(compute, calls):
    assert "exit code 7" in _refused(compute, calls, WorkerFailed, request=b"exit:7")


def test_whoever_stops_waiting_stops_the_call(server, tmp_path):
    process = _ask(server.variables, f"wait:{tmp_path / 'never'}")
    _read_until(process, "waiting for")
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert server.wait_finished(server.calls()[-1].call_id).status == "cancelled"


def test_a_call_whose_start_is_interrupted_is_stopped_too(server, compute, tmp_path, monkeypatch):
    start, main_thread = ModalCompute._start, threading.main_thread()

    def interrupted(self, *arguments):
        call = start(self, *arguments)
        # Modal has the call, and the run not yet its id.
        signal.pthread_kill(main_thread.ident, signal.SIGINT)
        return call

    monkeypatch.setattr(ModalCompute, "_start", interrupted)
    with pytest.raises(KeyboardInterrupt):
        compute(f"wait:{tmp_path / 'never'}".encode(), Size(0.25, 256))
    assert server.wait_finished(server.calls()[-1].call_id).status == "cancelled"


def test_what_is_not_deployed_is_named_with_the_command_that_deploys_it(compute, calls):
    said = _refused(compute, calls, request=b"echo", app="elsewhere")
    assert "'elsewhere'" in said
    assert "make deploy-modal" in said


def test_environments_do_not_see_each_others_workers(compute, calls):
    said = _refused(compute, calls, request=b"echo", environment="staging")
    assert "environment 'staging'" in said


def test_an_environment_that_there_is_not_is_named(server):
    from serverless_assets.forecasting.modal_compute import deploy

    with pytest.raises(ComputeError, match="modal environment create moon"):
        deploy("serverless-forecast", "moon")


# ---- a worker of other code


def test_a_worker_of_other_code_is_named_with_the_command_that_mends_it(server, compute, calls, tmp_path):
    changed_copy(tmp_path)
    run_copy(tmp_path, "from modal_forecast.app import app; app.deploy(name='drifted')")
    with pytest.raises(ComputeError) as raised:
        compute(ForecastRequest(history(400)).to_bytes(), app="drifted")
    assert code_version() in str(raised.value)
    assert code_version(tmp_path / "modal_forecast") in str(raised.value)
    assert "make deploy-modal" in str(raised.value)
    assert calls.over == calls.begun


def test_a_deploy_from_a_branch_leaves_the_worker_that_production_calls(server, tmp_path):
    changed_copy(tmp_path)
    deploy = "from serverless_assets.cli import main; main(['deploy-modal'])"
    deployed = run_copy(tmp_path, deploy, SERVERLESS_BRANCH="pr-1", SERVERLESS_HOME=str(tmp_path / "home"))
    assert f"serverless-forecast-{code_version(tmp_path / 'modal_forecast')}" in deployed
    assert code_version() in ModalCompute(versioned_app("serverless-forecast"), None, 60.0).check()


def test_a_check_asks_the_worker_itself(server):
    assert code_version() in ModalCompute(versioned_app("serverless-forecast"), None, 60.0).check()


def changed_copy(folder):
    """A copy of the code whose worker is of another version."""
    for package in ("modal_forecast", "serverless_assets"):
        shutil.copytree(PROJECT_ROOT / package, folder / package)
    with (folder / "modal_forecast" / "model.py").open("a") as file:
        file.write("\nSEED = 2\n")


def run_copy(folder, script, **variables):
    return subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, **variables, "PYTHONPATH": str(folder)},
        cwd=folder, check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip


# ---- a server that refuses, is absent or goes away: in processes, as the client keeps its connection

SCRIPT = """
import json, sys
from serverless_assets.forecasting.compute import ComputeError, Size
from serverless_assets.forecasting.modal_compute import ModalCompute
from tests.forecasting.calls_in_memory import CallsInMemory

calls = CallsInMemory()
try:
    app, request, deadline = sys.argv[1:]
    compute = ModalCompute(app, None, float(deadline))
    compute.run(request.encode(), Size(0.25, 256), lambda line: print(line, flush=True), calls)
except ComputeError as error:
    print(json.dumps({"kind": type(error).__name__, "said": str(error), "over": calls.over == calls.begun}))
"""


def _ask(variables, request="echo", deadline=30.0):
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, "misbehaving", request, str(deadline)],
        env={**os.environ, **variables}, cwd=PROJECT_ROOT, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip


def _outcome(process):
    said, _ = process.communicate(timeout=120)
    return SimpleNamespace(**json.loads(said.splitlines()[-1]))


def test_a_token_that_modal_does_not_accept_is_told(server):
    found = _outcome(_ask({**server.variables, "MODAL_TOKEN_SECRET": "as-guessed"}))
    assert "does not accept the token" in found.said
    assert "modal token new" in found.said
    assert "as-guessed" not in found.said


def test_nobody_listening_is_told_before_the_client_has_tried_for_long(server):
    found = _outcome(_ask({**server.variables, "MODAL_SERVER_URL": "http://127.0.0.1:9"}))
    assert "cannot be reached" in found.said


def test_a_server_that_goes_away_leaves_the_call_to_be_taken_up(tmp_path):
    with modal_server(tmp_path / "state") as server:
        _deploy_misbehaving(server)
        process = _ask(server.variables, f"wait:{tmp_path / 'never'}", deadline=60.0)
        _read_until(process, "waiting for")
        os.kill(server.pid, 9)
        found = _outcome(process)
    assert found.kind == "Unreachable"
    assert "run again, and its answer is picked up" in found.said
    assert not found.over


def test_a_worker_that_is_started_again_without_end_meets_the_deadline(tmp_path):
    with modal_server(tmp_path / "state", reschedule_oom=True) as server:
        _deploy_misbehaving(server)
        found = _outcome(_ask(server.variables, "eat:512", deadline=4.0))
        (call,) = server.calls()
        assert server.wait_finished(call.call_id).status in ("cancelled", "timeout")
    assert "no answer within 4 s" in found.said
    assert call.containers_started > 1


def _deploy_misbehaving(server):
    script = "from tests.forecasting.misbehaving_worker import app; app.deploy()"
    variables = {**os.environ, **server.variables}
    subprocess.run([sys.executable, "-c", script], env=variables, cwd=PROJECT_ROOT, check=True)


def _read_until(process, text):
    for line in process.stdout:
        if text in line:
            return line
    raise AssertionError(f"{text!r} was never said")
