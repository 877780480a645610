"""Many series in one call: each gets its answer."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import psutil
import pyarrow as pa
import pytest

from modal_forecast import batch as batch_module
from modal_forecast.batch import SeriesFailed, forecast_batch, processes_for
from modal_forecast.handler import handle
from modal_forecast.messages import BatchAnswer, ForecastBatch, ForecastRefused, ForecastRequest
from modal_forecast.model import forecast
from modal_forecast.resources import FORKED
from modal_forecast.wire import MessageError
from serverless_assets.forecasting.local_compute import resident_mib

WORKER = [sys.executable, "-m", "modal_forecast.worker"]
LAST = np.datetime64("2026-10-31")
LEVELS = {"All": 1300.0, "Brooklyn": 300.0, "Chicago": 100.0, "Philadelphia": 900.0}


def sales(level, days=120, seed=0):
    """Noisy sales with a weekly pattern."""
    noise = np.random.default_rng([seed, int(level)]).normal(0, 0.1, days)
    return np.maximum(level * (1 + 0.2 * np.sin(2 * np.pi * np.arange(days) / 7) + noise), 0)


def history(values):
    """Values of days that end on LAST."""
    return pa.table({"ds": LAST - np.arange(len(values))[::-1], "y": values})


def shop(**others):
    return ForecastBatch({**{name: history(sales(level)) for name, level in LEVELS.items()}, **others}, 30)


def column(answer):
    return answer.forecast["yhat"].to_numpy()


@pytest.fixture(scope="module")
def batch():
    return shop()


@pytest.fixture(scope="module")
def answers(batch):
    return forecast_batch(batch).answers


# Messages


def test_a_batch_survives_the_wire(batch):
    sent = ForecastBatch(batch.histories, 30, "US", "prophet")
    assert ForecastBatch.from_bytes(sent.to_bytes()) == sent


def test_the_answers_to_a_batch_survive_the_wire(batch):
    made = forecast(batch.requests["Chicago"])
    sent = BatchAnswer({"b": made, "a": ForecastRefused("Too short.")}, {"seconds": 1.5})
    read = BatchAnswer.from_bytes(sent.to_bytes())
    assert list(read.answers) == ["a", "b"]
    assert str(read.answers["a"]) == "Too short."
    assert read.answers["b"] == made
    assert read.diagnostics == {"seconds": 1.5}


def test_equal_batches_have_equal_bytes_in_any_order(batch):
    backwards = dict(reversed(list(batch.histories.items())))
    assert ForecastBatch(backwards, 30).to_bytes() == batch.to_bytes()


def test_an_empty_batch_is_refused_in_words():
    with pytest.raises(MessageError, match="empty"):
        ForecastBatch({})


def test_a_series_without_any_row_survives_the_wire():
    batch = ForecastBatch({"a": history(sales(1)), "empty": history([]), "z": history(sales(2))})
    assert ForecastBatch.from_bytes(batch.to_bytes()) == batch


def test_a_series_that_is_sent_alone_is_a_batch_of_one(batch):
    request = batch.requests["Chicago"]
    assert list(ForecastBatch.from_bytes(request.to_bytes()).requests.values()) == [request]
    with pytest.raises(MessageError, match="has 4 series, where one was expected"):
        ForecastRequest.from_bytes(batch.to_bytes())


def test_a_batch_cut_off_anywhere_is_refused_in_words(batch):
    raw = ForecastBatch({"a": history(sales(1, 14))}).to_bytes()
    for length in range(len(raw) - 8):
        with pytest.raises(MessageError):
            ForecastBatch.from_bytes(raw[:length])


def test_a_caller_that_expects_a_batch_gets_its_refusal_raised():
    with pytest.raises(ForecastRefused, match="no message"):
        BatchAnswer.from_bytes(handle(b"garbage", lambda line: None))


# Each series


def test_each_series_gets_the_forecast_that_it_gets_alone(batch, answers):
    assert answers == {name: forecast(one) for name, one in batch.requests.items()}


def test_the_number_of_processes_changes_no_byte(batch, answers):
    two, more = (forecast_batch(batch, processes=count).to_bytes() for count in (2, 9))
    assert BatchAnswer(answers).to_bytes() == two == more


def test_a_series_that_is_refused_leaves_the_others():
    batch = shop(Tiny=history(sales(5, 3)))
    answers = forecast_batch(batch, processes=2).answers
    assert "3 days with a value" in str(answers.pop("Tiny"))
    assert answers == {name: forecast(batch.requests[name]) for name in LEVELS}


def test_a_handful_is_logged_step_by_step_and_more_by_progress(batch):
    steps, progress = [], []
    forecast_batch(batch, steps.append, processes=2)
    assert any(line.startswith("  Chicago: history: 120 days") for line in steps)
    many = ForecastBatch({f"{n:02}": history(np.full(20, n)) for n in range(45)}, 1)
    forecast_batch(many, progress.append, processes=2)
    assert len(progress) < 25
    assert progress[0] == "45 series on 2 processes"
    assert progress[-1].startswith("45 of 45 series, ")


@pytest.mark.parametrize("processes", [1, 2])
def test_a_forecast_that_breaks_is_an_error_that_names_its_series(batch, monkeypatch, processes):
    broken(monkeypatch, lambda: 1 / 0)
    with pytest.raises(SeriesFailed, match=r"(?s)'Chicago' broke.*ZeroDivisionError"):
        forecast_batch(batch, processes=processes)


def test_a_process_that_dies_is_an_error_that_names_its_series(batch, monkeypatch):
    broken(monkeypatch, lambda: os.kill(os.getpid(), 9))
    # Other tests in this process may have started some that still run.
    before = set(psutil.Process().children())
    with pytest.raises(SeriesFailed, match=r"forecast 'Chicago' died by signal 9.*memory"):
        forecast_batch(batch, processes=2)
    assert not FORKED
    assert set(psutil.Process().children()) <= before


def test_processes_that_are_terminated_print_nothing_whatever_handler_this_process_has(
    batch, monkeypatch, capfd
):
    def break_the_first(request, log):
        if request.history.equals(first):
            # Give the other process the time to begin its own forecast.
            time.sleep(0.3)
            raise ZeroDivisionError
        time.sleep(30)

    first = next(iter(batch.requests.values())).history
    monkeypatch.setattr(batch_module, "forecast", break_the_first)
    monkeypatch.setattr(batch_module, "_warm_up", lambda country: None)
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with pytest.raises(SeriesFailed, match="ZeroDivisionError"):
            forecast_batch(ForecastBatch(batch.histories, 30), processes=2)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert capfd.readouterr().err == ""


def broken(monkeypatch, how):
    chicago = sales(LEVELS["Chicago"])[-1]

    def breaks(request, log):
        if request.history["y"][-1].as_py() == chicago:
            how()
        return forecast(request, log)

    monkeypatch.setattr(batch_module, "forecast", breaks)
    monkeypatch.setattr(batch_module, "_warm_up", lambda country: None)


def test_the_order_in_which_series_are_done_changes_no_byte(batch, answers, monkeypatch):
    work_on = batch_module.work_on
    monkeypatch.setattr(batch_module, "work_on", lambda *given: reversed(list(work_on(*given))))
    assert forecast_batch(batch).to_bytes() == BatchAnswer(answers).to_bytes()


# Processes and memory


def test_there_are_no_more_processes_than_cpus_series_and_memory_admit(batch, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)))

    def processes(series=100, cores=None, memory_mib=None):
        monkeypatch.setattr(batch_module, "_memory_limit_mib", lambda: memory_mib)
        return processes_for(ForecastBatch({str(n): history(sales(1)) for n in range(series)}), cores)

    assert processes() == 16
    assert processes(cores=2) == 2
    assert processes(series=2) == 2
    assert processes(memory_mib=192) == 1
    assert processes(series=7, memory_mib=256) == 2
    assert 2 < processes(memory_mib=512) < 16
    assert processes(memory_mib=64) == 1


def test_a_worker_process_answers_a_batch(batch, answers):
    done = subprocess.run(WORKER, input=batch.to_bytes(), capture_output=True, timeout=120)
    assert done.returncode == 0, done.stderr.decode()
    answer = BatchAnswer.from_bytes(done.stdout)
    assert {name: column(one).tolist() for name, one in answer.answers.items()} == {
        name: pytest.approx(column(one).tolist()) for name, one in answers.items()
    }
    assert answer.diagnostics["seconds"] > 0
    assert answer.diagnostics["processes"] >= 1
    assert b"4 series on " in done.stderr


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="shared memory is told apart on Linux alone")
def test_seven_series_on_two_processes_take_less_than_256_mib(tmp_path):
    parts = {str(n): history(sales(100 + n, 1100, seed=n)) for n in range(6)}
    total = history(sum(sales(100 + n, 1100, seed=n) for n in range(6)))
    batch = ForecastBatch({**parts, "all": total}, 180)
    (tmp_path / "batch").write_bytes(batch.to_bytes())
    with (tmp_path / "batch").open("rb") as asked, (tmp_path / "answer").open("wb") as answered:
        worker = psutil.Popen(WORKER, stdin=asked, stdout=answered)
    worker.cpu_affinity(sorted(os.sched_getaffinity(0))[:2])
    seen = 0.0
    while worker.poll() is None:
        seen = max(seen, resident_mib(worker.pid))
        time.sleep(0.1)
    answer = BatchAnswer.from_bytes((tmp_path / "answer").read_bytes())
    print(f"seen {seen:.0f} MiB, said {answer.diagnostics}")
    assert 60 < seen < 256
    # What it says is an upper bound; between two looks a little may be missed.
    assert seen - 15 < answer.diagnostics["peak_memory_mib"] < 256


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="shared memory is told apart on Linux alone")
def test_a_process_that_collects_garbage_still_shares_what_was_loaded_before_it():
    script = """
import gc
import psutil
from modal_forecast.batch import _warm_up, work_on

def grown(name, log):
    before = psutil.Process().memory_full_info().uss
    gc.collect()
    return (psutil.Process().memory_full_info().uss - before) / 1024**2

_warm_up(None)
print(max(mib for _, mib in work_on(["one", "two"], grown, 2, print)))
"""
    grown = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert float(grown.stdout) < 5
