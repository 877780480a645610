"""Forecast many series in one call, on several processes.

Measured with 1,100 days and 180 ahead: the first process holds 167 MiB, a forked one 38 MiB that it does not
share (30 of its own and 8 of Stan), and a series 0.1 MiB as request and answer.
"""

import gc
import os
import signal
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from modal_forecast.messages import (
    BatchAnswer,
    ForecastBatch,
    ForecastRefused,
    ForecastRequest,
    SeriesAnswer,
)
from modal_forecast.model import DETAIL, Log, forecast, ignore
from modal_forecast.resources import FORKED

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

Work = Callable[[str, Log], SeriesAnswer]

# With room for longer histories.
ONE_PROCESS_MIB, FURTHER_PROCESS_MIB, SERIES_MIB = 192, 56, 0.1
MEMORY_LIMITS = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)
# Up to so many series are logged step by step, more of them by progress, in 20 lines.
MAX_LOGGED_IN_STEPS, PROGRESS_LINES = 5, 20


class SeriesFailed(RuntimeError):
    """The forecast of a series raised an error, or its process died; the text names the series and why."""


def forecast_batch(batch: ForecastBatch, log: Log = ignore, processes: int = 1) -> BatchAnswer:
    """Forecast each series of the batch. The answers are the same for any number of processes.

    log: called with the steps of each series if they are few, else with how many are done.

    A series that cannot be forecast is answered with its refusal.

    Raises SeriesFailed if a forecast of several raises an error or its process dies.
    """
    requests = batch.requests
    if len(requests) == 1:
        [(name, request)] = requests.items()
        answer = _forecast_or_refusal(request, log)
        if isinstance(answer, ForecastRefused):
            log(f"refused: {answer}")
        return BatchAnswer({name: answer})
    return BatchAnswer(_forecast_each(requests, log, processes))


def processes_for(batch: ForecastBatch, cores: int | None = None) -> int:
    """Return one for each cpu that this process may use and series of the batch, as far as memory goes.

    cores: the most to use; None for all that this process may run on.
    """
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    processes = min(cpus, cores or cpus, len(batch.histories))
    memory = _memory_limit_mib()
    if memory is not None:
        left = memory - ONE_PROCESS_MIB - SERIES_MIB * len(batch.histories)
        processes = min(processes, 1 + int(left // FURTHER_PROCESS_MIB))
    return max(processes, 1)


def _memory_limit_mib() -> float | None:
    """The limit of the container; None if the system has none."""
    for file in MEMORY_LIMITS:
        with suppress(OSError, ValueError):
            return int(file.read_text()) / 1024**2
    return None


def _forecast_or_refusal(request: ForecastRequest, log: Log) -> SeriesAnswer:
    try:
        return forecast(request, log)
    except ForecastRefused as refusal:
        return refusal


def _forecast_each(
    requests: Mapping[str, ForecastRequest], log: Log, processes: int
) -> dict[str, SeriesAnswer]:
    in_steps = len(requests) <= MAX_LOGGED_IN_STEPS

    def work(name: str, log_line: Log) -> SeriesAnswer:
        return _forecast_or_refusal(requests[name], log_line if in_steps else ignore)

    def tell(name: str, line: str) -> None:
        log(f"{DETAIL}{name}: {line.strip()}")

    started = time.perf_counter()
    processes = min(processes, len(requests))
    log(f"{len(requests)} series on {processes} process{'es' if processes > 1 else ''}")
    if processes > 1:
        _warm_up(next(iter(requests.values())).country)
    every = -(-len(requests) // PROGRESS_LINES)
    answers: dict[str, SeriesAnswer] = {}
    for name, answer in work_on(list(requests), work, processes, tell):
        answers[name] = answer
        if isinstance(answer, ForecastRefused):
            log(f"{name}: refused: {answer}")
        if not in_steps and (len(answers) % every == 0 or len(answers) == len(requests)):
            log(f"{len(answers)} of {len(requests)} series, {time.perf_counter() - started:.0f} s")
    # In which order they were done must not show, not even in the last digit of a sum.
    return {name: answers[name] for name in requests}


def _warm_up(country: str | None) -> None:
    """Forecast something, so that the libraries are loaded once, before the first fork, and then shared."""
    # Long and noisy enough for Prophet, which loads pandas.
    days = np.arange(np.datetime64("2023-01-01"), np.datetime64("2024-03-01"))
    values = np.random.default_rng(0).normal(100, 10, len(days))
    with suppress(ForecastRefused):
        forecast(ForecastRequest(pa.table({"ds": days, "y": values}), 7, country))
    # A collection of garbage in a forked process would write to every object, and so copy what it shares: it
    # would hold 58 MiB of its own instead of 30.
    gc.collect()
    gc.freeze()


def work_on(
    names: Sequence[str], work: Work, processes: int, log: Callable[[str, str], None]
) -> Iterator[tuple[str, SeriesAnswer]]:
    """Yield each name with the result of `work`, in the order in which they are done.

    work: gets a name and where to log. It runs in a process forked from this one if there is more than one
        process: what it needs should be loaded before.
    log: called in this process with a name and a line.

    Raises SeriesFailed, and ends the other processes.
    """
    if processes > 1:
        yield from _work_in_forks(names, work, processes, log)
        return
    for name in names:
        try:
            answer = work(name, partial(log, name))
        except Exception as error:
            raise SeriesFailed(f"The forecast of {name!r} broke: {error!r}") from error
        yield name, answer


def _work_in_forks(
    names: Sequence[str], work: Work, processes: int, log: Callable[[str, str], None]
) -> Iterator[tuple[str, SeriesAnswer]]:
    # A worker for one series does without these.
    from multiprocessing import get_context
    from multiprocessing.connection import Connection, wait
    from multiprocessing.context import ForkProcess

    fork = get_context("fork")
    children: dict[Connection, ForkProcess] = {}
    busy: dict[Connection, str] = {}
    waiting = iter(names)
    try:
        for _ in range(processes):
            our_end, their_end = fork.Pipe()
            child = fork.Process(target=_serve, args=(their_end, [*children, our_end], work), daemon=True)
            child.start()
            children[our_end] = child
            FORKED.add(child.pid or 0)
            their_end.close()
            busy[our_end] = next(waiting)
            our_end.send(busy[our_end])
        while busy:
            for pipe in wait(list(busy)):
                assert isinstance(pipe, Connection)
                name = busy[pipe]
                try:
                    kind, content = pipe.recv()
                except (EOFError, ConnectionError) as error:
                    children[pipe].join()
                    code = children[pipe].exitcode or 0
                    end = f"by signal {-code}" if code < 0 else f"with exit code {code}"
                    raise SeriesFailed(
                        f"The process that forecast {name!r} died {end}. If that is 9, memory ran out: ask "
                        "for more of it."
                    ) from error
                if kind == "line":
                    log(name, content)
                    continue
                if kind == "error":
                    raise SeriesFailed(f"The forecast of {name!r} broke: {content}")
                following = next(waiting, None)
                if following is None:
                    del busy[pipe]
                else:
                    busy[pipe] = following
                    pipe.send(following)
                yield name, content
    finally:
        for pipe, child in children.items():
            pipe.close()
            if busy:
                child.terminate()
            child.join()
            FORKED.discard(child.pid or 0)


def _serve(pipe: "Connection", inherited: "list[Connection]", work: Work) -> None:
    """Work on the names that the parent sends until it closes its end, or ends."""
    # While a copy of a parent's end is open here, another process would not notice that the parent ended.
    for other in inherited:
        other.close()
    FORKED.clear()
    # A handler of the parent's, such as one that raises KeyboardInterrupt, would print a traceback when the
    # parent terminates this process.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        while True:
            name = pipe.recv()
            try:
                result: tuple[str, SeriesAnswer | str] = (
                    "answer",
                    work(name, lambda line: pipe.send(("line", line))),
                )
            except Exception:
                result = ("error", traceback.format_exc())
            pipe.send(result)
    except (EOFError, ConnectionError):
        return
