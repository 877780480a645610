"""A compute on this machine: a subprocess held to the cpu and memory that were asked for.

Cores: the subprocess is pinned to `cpu` cores, rounded up and to what the machine has, and forecasts with a
process on each. A fraction of a core is a whole one here: as on Modal, it is what the work is sure to get,
not the most that it may use.
Memory: the process tree's resident memory, watched while it works. Going over ends it. What forked processes
share counts once, as in a container.
"""

import math
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import IO

import psutil

from modal_forecast.report.formats import counted
from modal_forecast.resources import child_pids, lists_children
from serverless_assets.forecasting.compute import (
    Answered,
    Calls,
    Log,
    OutOfMemory,
    Size,
    Usage,
    WorkerFailed,
)

MIB = 1 << 20
# A look takes 0.3 ms of cpu and 2 ms more for each child, and a forecast's memory grows over seconds.
SECONDS_BETWEEN_LOOKS = 0.05
WORKER = (sys.executable, "-m", "modal_forecast.worker")
# The worker needs no credentials: it gets what Python and the system need, and nothing else.
VARIABLES = (
    "PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "TZ", "SYSTEMROOT", "LD_LIBRARY_PATH", "VIRTUAL_ENV",
)  # fmt: skip
# Each process of a worker has one thread. More of OpenBLAS's wait for each other by using up their cores:
# seven series on two cores took 14 s of cpu instead of 1.8.
THREAD_COUNTS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "STAN_NUM_THREADS")


@dataclass(frozen=True)
class LocalCompute:
    """A `Compute` on this machine. A worker that has no answer after `deadline_seconds` is ended."""

    worker: tuple[str, ...] = WORKER
    deadline_seconds: float = 1800.0

    @property
    def name(self) -> str:
        return "a process on this machine"

    def run(self, request: bytes, size: Size, log: Log, calls: Calls) -> Answered:
        started = time.monotonic()
        cores = available_cores(size.cpu)
        # A process is kept to whole cores.
        asked = "" if len(cores) == size.cpu else f" ({size.cpu:g} asked for)"
        log(f"Starting a worker on {counted(len(cores), 'core')}{asked} with {size.memory} MiB.")
        passed = {name: os.environ[name] for name in VARIABLES if name in os.environ}
        process = subprocess.Popen(
            self.worker,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=passed | dict.fromkeys(THREAD_COUNTS, "1"),
            # A group of its own: Ctrl-C in a terminal reaches the run, and the run ends the worker.
            start_new_session=True,
        )
        try:
            # macOS has no affinity: there the worker takes the cores that there are.
            if hasattr(os, "sched_setaffinity"):
                with suppress(ProcessLookupError):
                    os.sched_setaffinity(process.pid, cores)
            pipes = _Pipes(process, request, log)
            peak = self._watch(process, size, started)
        finally:
            _end(process)
        pipes.finish()
        if (code := process.returncode) != 0:
            end = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
            lines = f" Its last log lines: {' / '.join(pipes.last_lines)}" if pipes.last_lines else ""
            raise WorkerFailed(f"The forecast's worker {end} without an answer.{lines}")
        return Answered(pipes.answer, time.monotonic() - started, peak)

    def price(self, size: Size, used: Usage) -> float | None:
        return None

    def max_usage(self, size: Size) -> Usage:
        return Usage(self.deadline_seconds, self.deadline_seconds * math.ceil(size.cpu), size.memory)

    def check(self) -> str:
        memory = psutil.virtual_memory()
        return f"{os.cpu_count()} cores, {memory.available // MIB:,} of {memory.total // MIB:,} MiB free"

    def _watch(self, process: subprocess.Popen[bytes], size: Size, started: float) -> float:
        peak = 0.0
        while process.poll() is None:
            peak = max(peak, resident_mib(process.pid))
            if peak > size.memory:
                raise OutOfMemory(size, peak)
            if time.monotonic() - started > self.deadline_seconds:
                raise WorkerFailed(
                    f"The forecast was stopped: no answer within {self.deadline_seconds:.0f} s. "
                    "Choose more cpu or fewer days."
                )
            with suppress(subprocess.TimeoutExpired):
                process.wait(SECONDS_BETWEEN_LOOKS)
        return peak


class _Pipes:
    """Feeds the request and drains answer and log at the same time, so that no side waits for another."""

    def __init__(self, process: subprocess.Popen[bytes], request: bytes, log: Log) -> None:
        self.answer = b""
        self.last_lines: list[str] = []
        assert process.stdin and process.stdout and process.stderr
        self._threads = [
            Thread(target=self._feed, args=(process.stdin, request), daemon=True),
            Thread(target=self._drain, args=(process.stdout,), daemon=True),
            Thread(target=self._relay, args=(process.stderr, log), daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    def finish(self) -> None:
        for thread in self._threads:
            thread.join()

    def _feed(self, pipe: IO[bytes], request: bytes) -> None:
        with suppress(BrokenPipeError), pipe:
            pipe.write(request)

    def _drain(self, pipe: IO[bytes]) -> None:
        with pipe:
            self.answer = pipe.read()

    def _relay(self, pipe: IO[bytes], log: Log) -> None:
        with pipe:
            for raw in pipe:
                line = raw.decode(errors="replace").rstrip()
                self.last_lines = [*self.last_lines[-4:], line]
                log(line)


def available_cores(cpu: float) -> list[int]:
    """The cores to pin to: `cpu` rounded up, or all if the machine has fewer."""
    usable = (
        sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
    )
    return list(usable)[: max(1, math.ceil(cpu))]


def resident_mib(pid: int) -> float:
    """Return the resident memory of a process and of its children in MiB; 0 if it has ended.

    Of a child counts the memory that it does not share: a forked process shares most with its parent, and a
    container counts that once. One that is about to begin another program, as Stan's, has its parent's memory
    itself until then, which the system reports as the child's own.
    """
    total = 0
    with suppress(psutil.Error):
        total += psutil.Process(pid).memory_info().rss
        for child in _descendants(pid):
            with suppress(psutil.Error):
                process = psutil.Process(child)
                if process.memory_info() == psutil.Process(process.ppid()).memory_info():
                    continue
                try:
                    total += process.memory_full_info().uss
                except psutil.AccessDenied:
                    total += process.memory_info().rss
    return total / MIB


def _descendants(pid: int) -> list[int]:
    """Return the ids of a process's children and of theirs.

    psutil finds them by reading every process of the machine: 5 ms where there are 130.
    """
    if not lists_children():
        return [child.pid for child in psutil.Process(pid).children(recursive=True)]
    children = [int(child) for child in child_pids(Path(f"/proc/{pid}"))]
    return children + [further for child in children for further in _descendants(child)]


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the worker and its children, which are a group: the pipes end once all that hold them have."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
