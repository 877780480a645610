"""Forecast many series in one call, on several processes, and make parts add up to their total.

Measured with 1,100 days and 180 ahead: the first process holds 76 MiB, a forked one 24 MiB that it does not
share (16 of its own and 8 of Stan), and a series 0.1 MiB as request and answer.
"""

import os
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import numpy as np
import pyarrow as pa

from modal_forecast.adding_up import add_up, for_the_same_days
from modal_forecast.batch_messages import BatchAnswer, ForecastBatch, answer_or_refusal
from modal_forecast.forked import SeriesFailed, work_on
from modal_forecast.messages import ForecastAnswer, ForecastRefused, ForecastRequest
from modal_forecast.model import Log, forecast
from modal_forecast.validation import check

__all__ = ["SeriesFailed", "forecast_batch", "processes_for"]

# With room for longer histories.
ONE_PROCESS_MIB, FURTHER_PROCESS_MIB, SERIES_MIB = 128, 40, 0.1
MEMORY_LIMITS = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)
# More series than this are logged by progress and not step by step, 20 lines for all of them.
HANDFUL, LINES = 5, 20


def _ignore(_line: str) -> None:
    pass


def forecast_batch(batch: ForecastBatch, log: Log = _ignore, processes: int = 1) -> BatchAnswer:
    """Forecast each series of the batch. The answers are the same for any number of processes.

    log: called with the steps of each series if they are a handful, else with how many are done.

    A series that cannot be forecast is answered with its refusal. If the batch has a total that can be
    forecast, such a series gets its share of it, and yhat of all parts adds up to the total's on every day;
    see adding_up.py for what the diagnostics say of it. If the total is refused, the parts stay as they are.

    Raises SeriesFailed, with the name of the series, if a forecast breaks or its process dies.
    """
    requests, said = batch.requests, dict[str, str]()
    adds_up = batch.total is not None and _can_be_forecast(batch.requests[batch.total])
    if adds_up:
        requests, said = for_the_same_days(batch.requests, str(batch.total))
    elif batch.total is not None:
        log(f"{batch.total} is refused, so that nothing is made to add up to it")
    answers: Mapping[str, ForecastAnswer | ForecastRefused] = _forecast_each(requests, log, processes)
    if adds_up:
        answers = add_up(requests, answers, str(batch.total), said)
        log(f"{len(answers) - 1} series add up to {batch.total}")
    return BatchAnswer(answers)


def processes_for(batch: ForecastBatch) -> int:
    """One for each cpu that this process may use and series that there is, as far as memory goes."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    processes = min(cpus, batch.cpus or cpus, len(batch.requests))
    memory = batch.memory_mib or _memory_limit_mib()
    if memory is not None:
        left = memory - ONE_PROCESS_MIB - SERIES_MIB * len(batch.requests)
        processes = min(processes, 1 + int(left // FURTHER_PROCESS_MIB))
    return max(processes, 1)


def _memory_limit_mib() -> float | None:
    """What the container may use, or None if nothing says so."""
    for file in MEMORY_LIMITS:
        with suppress(OSError, ValueError):
            return int(file.read_text()) / 1024**2
    return None


def _forecast_each(
    requests: Mapping[str, ForecastRequest], log: Log, processes: int
) -> dict[str, ForecastAnswer | ForecastRefused]:
    handful = len(requests) <= HANDFUL

    def work(name: str, log_line: Log) -> bytes:
        try:
            return forecast(requests[name], log_line if handful else _ignore).to_bytes()
        except ForecastRefused as refusal:
            return refusal.to_bytes()

    started = time.perf_counter()
    processes = min(processes, len(requests))
    log(f"{len(requests)} series on {processes} process{'es' if processes > 1 else ''}")
    if processes > 1:
        _load(next(iter(requests.values())).country)
    every = -(-len(requests) // LINES)
    answers: dict[str, ForecastAnswer | ForecastRefused] = {}
    for name, raw in work_on(list(requests), work, processes, lambda name, line: log(f"{name}: {line}")):
        answers[name] = answer = answer_or_refusal(raw)
        if isinstance(answer, ForecastRefused):
            log(f"{name}: refused: {answer}")
        if not handful and (len(answers) % every == 0 or len(answers) == len(requests)):
            log(f"{len(answers)} of {len(requests)} series, {time.perf_counter() - started:.0f} s")
    # In which order they were done must not show, not even in the last digit of a sum.
    return {name: answers[name] for name in requests}


def _load(country: str | None) -> None:
    """Forecast something, so that what this loads is there before the first fork, once for all."""
    days = np.arange(np.datetime64("2024-01-01"), np.datetime64("2024-03-01"))
    values = 100.0 + np.arange(len(days)) % 7
    with suppress(ForecastRefused):
        forecast(ForecastRequest(pa.table({"ds": days, "y": values}), 7, country))


def _can_be_forecast(request: ForecastRequest) -> bool:
    try:
        check(request)
    except ForecastRefused:
        return False
    return True
