import os
import subprocess
import sys
from datetime import date, timedelta

import numpy as np
import pyarrow as pa
import pytest

from modal_forecast.handler import handle
from modal_forecast.messages import ForecastAnswer, ForecastRefused, ForecastRequest
from modal_forecast.model import forecast

WORKER = [sys.executable, "-m", "modal_forecast.worker"]
DAYS = [date(2024, 1, 1) + timedelta(days=n) for n in range(120)]
REQUEST = ForecastRequest(
    pa.table({"ds": DAYS, "y": 100 + np.random.default_rng(0).normal(0, 10, 120)}), horizon=30, country="US"
)


def start(*command):
    pipe = subprocess.PIPE
    # Buffered as Python does by default, whatever this machine prefers.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    return subprocess.Popen(command or WORKER, stdin=pipe, stdout=pipe, stderr=pipe, env=environment)


@pytest.fixture(scope="module")
def run():
    """(exit code, answer, log lines, whether the first line came before the end) of one worker."""
    worker = start()
    worker.stdin.write(REQUEST.to_bytes())
    worker.stdin.close()
    first_line = worker.stderr.readline()
    early = worker.poll() is None
    log = first_line + worker.stderr.read()
    return worker.wait(), ForecastAnswer.from_bytes(worker.stdout.read()), log.decode().splitlines(), early


def test_a_worker_answers_what_the_model_answers_in_this_process(run):
    code, answer, *_ = run
    assert code == 0
    assert answer.forecast == forecast(REQUEST).forecast


def test_a_worker_logs_line_by_line_while_it_works(run):
    *_, lines, early = run
    assert early
    assert [line.split()[0] for line in lines] == ["history:", "back-test:", "combined:", "In"]


def test_a_worker_says_what_the_forecast_took(run):
    diagnostics = run[1].diagnostics
    assert 0 < diagnostics["seconds"] < 60
    # Stan's own process takes about 8 MiB, if there is a year to fit Prophet to.
    assert 0 <= diagnostics["peak_memory_children_mib"] < 50
    assert 50 < diagnostics["peak_memory_mib"] < 200


def test_a_worker_that_refuses_exits_with_0_and_says_why():
    too_short = ForecastRequest(REQUEST.history.slice(0, 5))
    out, log = (worker := start()).communicate(too_short.to_bytes())
    assert worker.returncode == 0
    with pytest.raises(ForecastRefused, match="5 days with a value") as refusal:
        ForecastAnswer.from_bytes(out)
    assert log.decode().splitlines() == [f"refused: {refusal.value}"]


def test_nothing_that_is_printed_reaches_the_answer():
    noisy = """
import os, sys, types
from modal_forecast import worker

def answer(raw, log):
    print("from Python")
    os.write(1, b"from C\\n")
    return b"the answer to " + raw

sys.modules["modal_forecast.handler"] = types.SimpleNamespace(handle=answer)
sys.exit(worker.main())
"""
    out, log = (worker := start(sys.executable, "-c", noisy)).communicate(b"the request")
    assert (worker.returncode, out) == (0, b"the answer to the request")
    assert {b"from Python", b"from C"} <= set(log.splitlines())


def test_a_worker_that_crashes_says_so_by_its_exit_code():
    crashing = """
import sys, types
from modal_forecast import worker

sys.modules["modal_forecast.handler"] = types.SimpleNamespace(handle=lambda raw, log: 1 / 0)
sys.exit(worker.main())
"""
    out, log = (worker := start(sys.executable, "-c", crashing)).communicate(b"")
    assert worker.returncode != 0
    assert out == b""
    assert b"ZeroDivisionError" in log


@pytest.mark.parametrize("raw", [b"", b"no message", REQUEST.to_bytes()[:-100]])
def test_a_request_that_cannot_be_read_is_refused_in_words(raw):
    logged = []
    refusal = ForecastRefused.from_bytes(handle(raw, logged.append))
    assert "Send" in str(refusal)
    assert logged == [f"refused: {refusal}"]


def test_a_bug_is_not_taken_for_a_refusal(monkeypatch):
    monkeypatch.setattr("modal_forecast.batch.forecast", lambda _request, _log: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        handle(REQUEST.to_bytes(), print)
