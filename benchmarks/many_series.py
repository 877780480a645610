"""What many series cost in batches, and one by one: `make bench-many-series`.

Runs real workers (`python -m modal_forecast.worker`) over synthetic series, a batch at a time and then one
series a worker, and from what these took plans 10,000 series on Modal, by arithmetic; docs/many-series.md has
the formulas.

    python benchmarks/many_series.py [series] [series in a batch] [cpus]
"""

import math
import os
import resource
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import psutil
import pyarrow as pa

from modal_forecast.batch import FURTHER_PROCESS_MIB, ONE_PROCESS_MIB, SERIES_MIB
from modal_forecast.messages import BatchAnswer, ForecastBatch, ForecastRequest
from serverless_assets.forecasting.modal_compute import USD_PER_CORE_SECOND, USD_PER_GIB_SECOND

WORKER = (sys.executable, "-m", "modal_forecast.worker")
SERIES, IN_A_BATCH, ALONE = 300, 100, 10
HISTORY_DAYS, HORIZON = 1100, 180
# A plan: series, and the cores of a container with the series that it gets.
PLANNED, PLANS = 10_000, ((1, 100), (2, 250), (4, 500), (8, 1000))
ONE_BY_ONE_MIB = 256
# modal_forecast/app.py keeps a container this long for more work, and Modal charges what it asked for.
IDLE_SECONDS, IDLE_CORES = 2.0, 0.25


@dataclass(frozen=True)
class Took:
    """cpu: seconds of all processes. wall: seconds. peak: MiB, where shared memory counts once."""

    cpu: float
    wall: float
    peak: float


def series(number: int) -> ForecastRequest:
    """Noisy sales with a week and a year in them, of a size, growth and noise of their own."""
    of_its_own = np.random.default_rng(number)
    days = np.arange(np.datetime64("2026-11-01") - HISTORY_DAYS, np.datetime64("2026-11-01"))
    index = np.arange(HISTORY_DAYS)
    level = of_its_own.lognormal(5, 1) * (1 + of_its_own.normal(0.1, 0.1) * index / 365)
    week = 1 + 0.3 * of_its_own.normal(0, 1, 7)[days.astype(int) % 7]
    year = 1 + of_its_own.uniform(0, 0.3) * np.sin(2 * np.pi * index / 365.25 + of_its_own.uniform(0, 6))
    noise = of_its_own.lognormal(0, of_its_own.uniform(0.05, 0.4), HISTORY_DAYS)
    values = np.maximum(level * week * year * noise, 0)
    return ForecastRequest(pa.table({"ds": days, "y": values}), HORIZON, "US")


def run(request: bytes, folder: Path, cpus: int = 1) -> tuple[bytes, Took]:
    """One worker's answer to `request` on so many cpus, and what that took with the start of Python."""
    asked, answered = folder / "request", folder / "answer"
    asked.write_bytes(request)
    before, started, peak = _cpu_of_children(), time.monotonic(), 0.0
    with asked.open("rb") as stdin, answered.open("wb") as stdout, (folder / "log").open("wb") as stderr:
        worker = psutil.Popen(WORKER, stdin=stdin, stdout=stdout, stderr=stderr)
    worker.cpu_affinity(sorted(os.sched_getaffinity(0))[:cpus])
    while worker.poll() is None:
        peak = max(peak, _held(worker))
        time.sleep(0.25)
    if worker.returncode:
        sys.exit((folder / "log").read_text())
    return answered.read_bytes(), Took(_cpu_of_children() - before, time.monotonic() - started, peak)


def _cpu_of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _held(process: psutil.Popen) -> float:
    """MiB of a process, and what its children do not share with it."""
    total = 0.0
    with suppress(psutil.Error):
        total += process.memory_info().rss
        for child in process.children(recursive=True):
            with suppress(psutil.Error):
                total += child.memory_full_info().uss
    return total / 1024**2


def measure(count: int, in_a_batch: int, cpus: int, folder: Path) -> tuple[Took, Took, int]:
    """Seconds per series in batches with their peak memory, the same one by one, and the processes used."""
    batches, done, processes = [], 0, 0
    for first in range(0, count, in_a_batch):
        numbers = range(first, min(first + in_a_batch, count))
        histories = {f"series {number}": series(number).history for number in numbers}
        raw, took = run(ForecastBatch(histories, HORIZON, "US").to_bytes(), folder, cpus)
        answer = BatchAnswer.from_bytes(raw)
        processes, done = answer.diagnostics["processes"], done + len(answer.answers)
        batches.append(took)
        print(f"  {done} series in batches, {sum(took.wall for took in batches):.0f} s", file=sys.stderr)
    alone = [run(series(number).to_bytes(), folder)[1] for number in range(ALONE)]
    return _each(batches, done), _each(alone, ALONE), processes


def _each(runs: list[Took], count: int) -> Took:
    return Took(
        sum(took.cpu for took in runs) / count,
        sum(took.wall for took in runs) / count,
        max(took.peak for took in runs),
    )


def memory_of(cores: int, in_a_batch: int) -> int:
    """MiB to ask for, in steps of 64; as batch.processes_for() counts."""
    needed = ONE_PROCESS_MIB + (cores - 1) * FURTHER_PROCESS_MIB + SERIES_MIB * in_a_batch
    return 64 * math.ceil(needed / 64)


def price(containers: int, seconds: float, cores: float, mib: int) -> float:
    return containers * seconds * (cores * USD_PER_CORE_SECOND + mib / 1024 * USD_PER_GIB_SECOND)


def main() -> None:
    given = [int(argument) for argument in sys.argv[1:]]
    count, in_a_batch, cpus = (given + [SERIES, IN_A_BATCH, len(os.sched_getaffinity(0))][len(given) :])[:3]
    with TemporaryDirectory(prefix="bench-") as folder:
        batched, alone, processes = measure(count, in_a_batch, cpus, Path(folder))

    print(f"{count} series of {HISTORY_DAYS} days, {HORIZON} ahead, {in_a_batch} in a batch,")
    print(f"{processes} processes on {os.cpu_count()} cores; cpu and wall with the start of the worker")
    print()
    print(f"{'measured':<22}{'cpu/series':>12}{'wall/series':>13}{'peak memory':>13}")
    print(f"{'in a batch':<22}{batched.cpu:>10.2f} s{batched.wall:>11.2f} s{batched.peak:>9.0f} MiB")
    print(f"{'one a worker':<22}{alone.cpu:>10.2f} s{alone.wall:>11.2f} s{alone.peak:>9.0f} MiB")
    print(f"{'ratio':<22}{batched.cpu / alone.cpu:>12.2f}{batched.wall / alone.wall:>13.2f}")
    print()
    heads = ("containers", "cores", "MiB", "wall", "price", "of one by one")
    print(f"{f'{PLANNED:,} series on Modal':<22}" + "".join(f"{head:>14}" for head in heads))
    # Alone, a series has a core while it works, and a quarter while its container waits, as app.py asks for.
    seconds = alone.cpu + IDLE_SECONDS
    dearest = price(PLANNED, alone.cpu, 1, ONE_BY_ONE_MIB)
    dearest += price(PLANNED, IDLE_SECONDS, IDLE_CORES, ONE_BY_ONE_MIB)
    rows: list[tuple[str, int, int, int, float, float]] = [
        ("one a container", PLANNED, 1, ONE_BY_ONE_MIB, seconds, dearest)
    ]
    for cores, each in PLANS:
        containers, mib = math.ceil(PLANNED / each), memory_of(cores, each)
        seconds = each * batched.cpu / cores + IDLE_SECONDS
        rows.append(
            (f"{each} a container", containers, cores, mib, seconds, price(containers, seconds, cores, mib))
        )
    for name, containers, cores, mib, seconds, usd in rows:
        print(
            f"{name:<22}{containers:>14,}{cores:>14}{mib:>14}"
            f"{seconds:>12.0f} s{usd:>14.3f}{usd / dearest:>14.2f}"
        )


if __name__ == "__main__":
    main()
