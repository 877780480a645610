"""Measure commands beside each other, in turn, each in a process of its own.

Seconds of cpu are those of the process and of all that it started, those that outlive it included. The peak
of memory is the largest sum over these processes that was seen at one of twenty looks a second.
"""

import ctypes
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event, Thread

import psutil

RESULTS = Path(__file__).with_name("results")
SECONDS_BETWEEN_LOOKS = 0.05
SERVERS: set[int] = set()
PR_SET_CHILD_SUBREAPER = 36


@dataclass(frozen=True)
class Cost:
    """Seconds of cpu and of the clock, and the peak of memory in MB."""

    cpu: float
    clock: float
    peak: float


@dataclass(frozen=True)
class Contender:
    """A command in its environment: `prepare` makes its folder ready, which costs nobody."""

    name: str
    command: Sequence[str | Path]
    variables: Mapping[str, str]
    prepare: Callable[[Path], object] = lambda home: None


def measure(contender: Contender, home: Path) -> Cost:
    """Run the command with `{home}` in its words and variables replaced; raise if it fails."""
    # What a command leaves running becomes a child of this process, so that its cpu is counted.
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    contender.prepare(home)
    for left in _others():
        left.wait()
    variables = {name: value.format(home=home) for name, value in contender.variables.items()}
    command = [str(word).format(home=home) for word in contender.command]
    before, started, ended, peaks = _cpu_seconds(), time.monotonic(), Event(), [0.0]
    watcher = Thread(target=_watch_memory, args=(ended, peaks))
    watcher.start()
    process = subprocess.run(
        command, env={**os.environ, **variables}, check=False, capture_output=True, text=True
    )
    clock = time.monotonic() - started
    ended.set()
    watcher.join()
    if process.returncode:
        raise SystemExit(f"{contender.name} failed:\n{process.stdout[-2000:]}\n{process.stderr[-2000:]}")
    for left in _others():
        left.wait()
    return Cost(_cpu_seconds() - before, clock, max(peaks))


def compare(title: str, contenders: Sequence[Contender], rounds: int, least: str) -> None:
    """Print the medians of so many rounds, each of all contenders in turn, and write them to results/.

    least: the contender that the cpu of the others is compared with, round by round.
    """
    costs: dict[str, list[Cost]] = {contender.name: [] for contender in contenders}
    for _ in range(rounds):
        for contender in contenders:
            with TemporaryDirectory(prefix="bench-") as home:
                costs[contender.name].append(measure(contender, Path(home)))
    print(f"\n{title}; medians of {rounds}")
    print(f"{'':<28}{'cpu':>10}{'clock':>10}{'peak':>10}{'cpu / ' + least:>24}")
    table = {}
    for name, runs in costs.items():
        median = Cost(*(statistics.median(column) for column in zip(*map(_row, runs), strict=True)))
        ratio = statistics.median(run.cpu / base.cpu for run, base in zip(runs, costs[least], strict=True))
        print(f"{name:<28}{median.cpu:>8.1f} s{median.clock:>8.1f} s{median.peak:>7.0f} MB{ratio:>24.2f}")
        table[name] = {**asdict(median), f"cpu_of_{least}": ratio, "rounds": [asdict(run) for run in runs]}
    RESULTS.mkdir(exist_ok=True)
    name = title.split(",")[0].lower().replace(" ", "_")
    (RESULTS / f"{name}.json").write_text(json.dumps({"title": title, "costs": table}, indent=1) + "\n")


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    """Serve a folder over HTTP from a process of its own; yield its address."""
    command = [sys.executable, "-m", "http.server", "--bind", "127.0.0.1", "--directory", folder, "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
        SERVERS.add(server.pid)
        try:
            assert server.stdout
            yield server.stdout.readline().split("(")[1].split(")")[0].rstrip("/")
        finally:
            server.kill()


def _row(cost: Cost) -> tuple[float, float, float]:
    return cost.cpu, cost.clock, cost.peak


def _watch_memory(ended: Event, peaks: list[float]) -> None:
    while not ended.wait(SECONDS_BETWEEN_LOOKS):
        total = 0
        for child in _others():
            with suppress(psutil.Error):
                total += sum(p.memory_info().rss for p in (child, *child.children(recursive=True)))
        peaks.append(total / 1e6)


def _others() -> list[psutil.Process]:
    """Return what runs below this process without its web servers, which work for every contender."""
    return [child for child in psutil.Process().children() if child.pid not in SERVERS]


def _cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
