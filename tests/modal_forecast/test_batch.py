"""Many series in one call: each gets its answer, and parts add up to their total."""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress

import numpy as np
import psutil
import pyarrow as pa
import pytest

from modal_forecast import batch as batch_module
from modal_forecast.batch import SeriesFailed, forecast_batch, processes_for
from modal_forecast.handler import handle
from modal_forecast.messages import (
    BatchAnswer,
    ForecastBatch,
    ForecastRefused,
    ForecastRequest,
    MessageError,
)
from modal_forecast.model import forecast
from modal_forecast.resources import FORKED

WORKER = [sys.executable, "-m", "modal_forecast.worker"]
LAST = np.datetime64("2026-10-31")
LEVELS = {"Brooklyn": 300.0, "Chicago": 100.0, "Philadelphia": 900.0}
BOUNDS = ["yhat_lower_95", "yhat_lower_80", "yhat", "yhat_upper_80", "yhat_upper_95"]


def sales(level, days=120, seed=0, closed_on=None):
    """Noisy sales with a weekly pattern that end on LAST."""
    index = np.arange(days)
    noise = np.random.default_rng([seed, int(level)]).normal(0, 0.1, days)
    values = level * (1 + 0.2 * np.sin(2 * np.pi * index / 7) + noise)
    if closed_on is not None:
        values[(LAST - index[::-1]).astype(int) % 7 == closed_on] = 0
    return np.maximum(values, 0)


def history(values, last=LAST):
    days = last - np.arange(len(values))[::-1]
    return pa.table({"ds": days, "y": values})


def shop(total="all", days=120, horizon=30, closed_on=None, **others):
    parts = {name: sales(level, days, closed_on=closed_on) for name, level in LEVELS.items()}
    histories = {name: history(values) for name, values in parts.items()}
    if total:
        histories[total] = history(sum(parts.values()))
    return ForecastBatch({**histories, **others}, horizon, "US", total)


def column(answer, name="yhat"):
    return answer.forecast[name].to_numpy()


def gap(answers, total="all"):
    """The largest difference between the total and the sum of its parts, as a share of the total."""
    whole = column(answers[total])
    parts = sum(column(answer) for name, answer in answers.items() if name != total)
    return np.max(np.abs(parts - whole) / np.maximum(np.abs(whole), 1e-9))


@pytest.fixture(scope="module")
def batch():
    return shop()


@pytest.fixture(scope="module")
def answers(batch):
    return forecast_batch(batch).answers


# Messages


def test_a_batch_survives_the_wire(batch):
    sent = ForecastBatch(batch.histories, 30, "US", "all", "prophet")
    assert ForecastBatch.from_bytes(sent.to_bytes()) == sent


def test_the_answers_to_a_batch_survive_the_wire(batch):
    made = forecast(batch.requests["Chicago"])
    sent = BatchAnswer({"b": made, "a": ForecastRefused("Too short.")}, {"seconds": 1.5})
    read = BatchAnswer.from_bytes(sent.to_bytes())
    assert list(read.answers) == ["a", "b"]
    assert read.answers["a"].reason == "Too short."
    assert read.answers["b"] == made
    assert read.diagnostics == {"seconds": 1.5}


def test_equal_batches_have_equal_bytes_in_any_order(batch):
    backwards = dict(reversed(list(batch.histories.items())))
    assert ForecastBatch(backwards, 30, "US", "all").to_bytes() == batch.to_bytes()


@pytest.mark.parametrize(
    ("histories", "total", "words"),
    [
        ({}, None, "empty"),
        ({"a": history(sales(1))}, "b", "must be one of the 1 series"),
        ({"a": history(sales(1))}, "a", "not the only one"),
    ],
)
def test_a_batch_that_makes_no_sense_is_refused_in_words(histories, total, words):
    with pytest.raises(MessageError, match=words):
        ForecastBatch(histories, total=total)


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


def test_without_a_total_each_series_gets_the_forecast_that_it_gets_alone():
    batch = shop(total=None)
    assert forecast_batch(batch).answers == {name: forecast(one) for name, one in batch.requests.items()}


@pytest.mark.parametrize("total", ["all", None])
def test_the_number_of_processes_changes_no_byte(total):
    batch = shop(total)
    one, two, more = (forecast_batch(batch, processes=count).to_bytes() for count in (1, 2, 9))
    assert one == two == more


def test_a_series_that_is_refused_leaves_the_others():
    batch = shop(total=None, Tiny=history(sales(5, 3)))
    answers = forecast_batch(batch, processes=2).answers
    assert "3 days with a value" in answers.pop("Tiny").reason
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


# The total


@pytest.mark.parametrize("closed_on", [None, 2])
def test_parts_add_up_to_their_total_on_every_day(closed_on):
    batch = shop(closed_on=closed_on)
    alone = {name: forecast(one) for name, one in batch.requests.items()}
    assert gap(alone) > 1e-3
    assert gap(forecast_batch(batch).answers) < 1e-9


def test_the_answers_say_how_far_they_were_changed(batch, answers):
    for name, one in batch.requests.items():
        before, after = column(forecast(one)), column(answers[name])
        about = answers[name].diagnostics
        assert about["reconciled"] is True
        expected = 100 * np.abs(after - before).sum() / before.sum()
        assert about["reconciled_change"] == pytest.approx(expected, rel=1e-3)
    assert any(answer.diagnostics["reconciled_change"] > 0 for answer in answers.values())


def test_bounds_move_as_far_as_the_forecast_and_stay_nested(batch, answers):
    for name, one in batch.requests.items():
        before, after = forecast(one), answers[name]
        moved = column(after) - column(before)
        ordered = np.array([column(after, bound) for bound in BOUNDS])
        assert (np.diff(ordered, axis=0) >= 0).all()
        assert (ordered >= 0).all()
        expected = np.maximum([column(before, bound) + moved for bound in BOUNDS], 0)
        assert ordered == pytest.approx(expected)


def test_closed_days_stay_closed():
    histories = dict(shop().histories)
    closed = sales(500, closed_on=2)
    histories["Closed on a weekday"] = history(closed)
    # More than its parts, so that all are raised.
    histories["all"] = history(1.5 * histories["all"]["y"].to_numpy() + closed)
    batch = ForecastBatch(histories, 30, "US", "all")
    alone = column(forecast(batch.requests["Closed on a weekday"])) == 0
    answers = forecast_batch(batch).answers
    assert 3 < alone.sum() < 6
    assert ((column(answers["Closed on a weekday"]) == 0) == alone).all()
    assert gap(answers) < 1e-9


def test_a_new_part_is_forecast_as_its_share_of_the_total():
    new = np.full(10, 120.0)
    answers = forecast_batch(shop(New=history(new))).answers
    about = answers["New"].diagnostics
    total = sum(sales(level) for level in LEVELS.values())
    assert about["share"] == pytest.approx(1200 / total[-10:].sum())
    assert "share of the total in the last 28 days, 9" in about["fallbacks"][0]
    assert "10 days with a value" in about["fallbacks"][0]
    assert column(answers["New"]).mean() == pytest.approx(120, rel=0.2)
    assert gap(answers) < 1e-9


def test_a_part_without_any_usable_day_is_forecast_as_nothing():
    wild = history(np.full(50, np.inf))
    answers = forecast_batch(shop(Wild=wild)).answers
    assert (column(answers["Wild"]) == 0).all()
    assert "finite" in answers["Wild"].diagnostics["fallbacks"][0]
    assert gap(answers) < 1e-9


def test_if_the_total_is_refused_the_parts_stay_as_they_are():
    batch = shop(all=history(sales(1300, 5)))
    logged = []
    answers = forecast_batch(batch, logged.append).answers
    assert isinstance(answers.pop("all"), ForecastRefused)
    assert answers == {name: forecast(batch.requests[name]) for name in LEVELS}
    assert "all is refused, so that nothing is made to add up to it" in logged


def test_histories_that_end_on_other_days_are_forecast_for_the_days_of_the_total():
    early, late = history(sales(50), last=LAST - 9), history(sales(60), last=LAST + 9)
    answers = forecast_batch(shop(Early=early, Late=late)).answers
    assert {str(answer.forecast["ds"][0]) for answer in answers.values()} == {"2026-11-01"}
    assert "ends on 2026-10-22" in answers["Early"].diagnostics["fallbacks"][-1]
    assert "9 days after the total's last one" in answers["Late"].diagnostics["fallbacks"][-1]
    assert gap(answers) < 1e-9


ROUGH = np.random.default_rng(5).lognormal(0, 2, 120)


@pytest.mark.parametrize(
    ("sold", "gone", "returned", "total"),
    [(sales(300), 30 * ROUGH, 20, sales(150)), (sales(100), sales(3), 280, 200 * ROUGH)],
    ids=["a part would fall below zero", "the total would"],
)
def test_only_a_series_that_was_negative_is_forecast_below_zero(sold, gone, returned, total):
    parts = {"sold": sold, "gone": gone, "returned": -sales(returned)}
    histories = {name: history(values) for name, values in {**parts, "all": total}.items()}
    answers = forecast_batch(ForecastBatch(histories, 30, "US", "all")).answers
    for name in ("sold", "gone", "all"):
        assert min(column(answers[name], bound).min() for bound in BOUNDS) >= 0
    assert column(answers["returned"]).min() < 0
    parts_sum = sum(column(answers[name]) for name in parts)
    assert parts_sum == pytest.approx(column(answers["all"]), abs=1e-9)


def test_the_order_in_which_series_are_done_changes_no_byte(batch, answers, monkeypatch):
    work_on = batch_module.work_on
    monkeypatch.setattr(batch_module, "work_on", lambda *given: reversed(list(work_on(*given))))
    assert forecast_batch(batch).to_bytes() == BatchAnswer(answers).to_bytes()


def test_series_without_anything_to_forecast_add_up_too():
    batch = ForecastBatch({name: history(np.zeros(40)) for name in ("a", "b", "all")}, 30, "US", "all")
    answers = forecast_batch(batch).answers
    assert all((column(answer) == 0).all() for answer in answers.values())
    assert answers["a"].diagnostics["reconciled_change"] is None


# Processes and memory


def test_there_are_no_more_processes_than_cpus_series_and_memory_admit(batch, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)))

    def processes(series=100, cores=None, memory_mib=None):
        monkeypatch.setattr(batch_module, "_memory_limit_mib", lambda: memory_mib)
        return processes_for(ForecastBatch({str(n): history(sales(1)) for n in range(series)}), cores)

    assert processes() == 16
    assert processes(cores=2) == 2
    assert processes(series=2) == 2
    assert processes(memory_mib=128) == 1
    assert 1 < processes(memory_mib=512) < 16
    assert processes(memory_mib=64) == 1


def test_a_worker_process_answers_a_batch(batch, answers):
    done = subprocess.run(WORKER, input=batch.to_bytes(), capture_output=True, timeout=120)
    assert done.returncode == 0, done.stderr.decode()
    answer = BatchAnswer.from_bytes(done.stdout)
    assert gap(answer.answers) < 1e-9
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
    batch = ForecastBatch({**parts, "all": total}, 180, "US", "all")
    (tmp_path / "batch").write_bytes(batch.to_bytes())
    with (tmp_path / "batch").open("rb") as asked, (tmp_path / "answer").open("wb") as answered:
        worker = psutil.Popen(WORKER, stdin=asked, stdout=answered)
    worker.cpu_affinity(sorted(os.sched_getaffinity(0))[:2])
    seen = 0.0
    while worker.poll() is None:
        seen = max(seen, held(worker))
        time.sleep(0.1)
    answer = BatchAnswer.from_bytes((tmp_path / "answer").read_bytes())
    print(f"seen {seen:.0f} MiB, said {answer.diagnostics}")
    assert 60 < seen < 256
    # What it says is an upper bound; between two looks a little may be missed.
    assert seen - 15 < answer.diagnostics["peak_memory_mib"] < 256


def held(process):
    """MiB of a process, and what its children do not share with it."""
    total = 0.0
    with suppress(psutil.Error):
        total += process.memory_info().rss
        for child in process.children(recursive=True):
            with suppress(psutil.Error):
                total += child.memory_full_info().uss
    return total / 1024**2
