"""Measure the seconds, cpu and memory of a block, in this process and in its children such as Stan.

psutil is not used: it knows no peak memory on Linux, and lists children by reading all of /proc.
"""

import resource
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

# Stan runs for 100 ms and more; a look at /proc takes 0.1 ms.
POLL_SECONDS = 0.01

# What a forked process does not share with this one takes 1 ms to find out.
LOOKS_PER_LOOK_AT_FORKED = 20

SELF = Path("/proc/self")
# Processes that go on from a copy of this one, by id, for as long as they live: most of their memory is this
# process's own.
FORKED: set[int] = set()


@dataclass
class ResourceUsage:
    """seconds: wall clock of the block that was measured.
    cpu_seconds: time on a core during the block, of all threads of this process and of the children that
        ended during it: 2 if two cores were at work for a second.
    peak_memory_mib: the most that this process held since it started, plus `peak_memory_children_mib`; an
        upper bound, because the two peaks need not coincide.
    peak_memory_children_mib: the most that a child held which was started during the block; of forked
        processes, what they did not share, all of them together, with their children.
    """

    seconds: float = 0.0
    cpu_seconds: float = 0.0
    peak_memory_mib: float = 0.0
    peak_memory_children_mib: float = 0.0


@contextmanager
def measured() -> Iterator[ResourceUsage]:
    """Measure the block. The fields are set once it has ended."""
    usage = ResourceUsage()
    started, cpu_before = time.perf_counter(), _cpu_seconds()
    with _watched_children() as children:
        yield usage
    usage.seconds = round(time.perf_counter() - started, 3)
    usage.cpu_seconds = round(_cpu_seconds() - cpu_before, 3)
    usage.peak_memory_children_mib = round(children.peak_mib, 1)
    usage.peak_memory_mib = round(_own_peak_mib() + children.peak_mib, 1)


def _cpu_seconds() -> float:
    both = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(used.ru_utime + used.ru_stime for used in both)


def _own_peak_mib() -> float:
    peak = _peak_mib(SELF)
    return _rusage_mib(resource.RUSAGE_SELF) if peak is None else peak


def _peak_mib(process: Path) -> float | None:
    """VmHWM of a process, or None if it is gone or the system does not say."""
    try:
        for line in (process / "status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    except OSError:
        pass
    return None


def _rusage_mib(who: int) -> float:
    # Second best on Linux, where ru_maxrss is inherited across exec: a child starts at its parent's peak.
    unit = 1024**2 if sys.platform == "darwin" else 1024
    return resource.getrusage(who).ru_maxrss / unit


class _ChildWatch:
    """The peak memory of new children of this process: of the largest program, or of all forked ones."""

    def __init__(self) -> None:
        self.peak_mib = 0.0
        self.looks = 0
        self.there_before = set(_children())

    def look(self) -> None:
        self.looks += 1
        if FORKED and self.looks % LOOKS_PER_LOOK_AT_FORKED == 0:
            self.peak_mib = max(self.peak_mib, sum(_held_by_forked(str(pid)) for pid in tuple(FORKED)))
        own_command = _read(SELF / "cmdline")
        for pid in _children():
            child = SELF.parent / pid
            if pid not in self.there_before and _is_another_program(child, own_command):
                self.peak_mib = max(self.peak_mib, _peak_mib(child) or 0.0)


@contextmanager
def _watched_children() -> Iterator[_ChildWatch]:
    watch, done = _ChildWatch(), threading.Event()

    def poll() -> None:
        while not done.wait(POLL_SECONDS):
            watch.look()

    # macOS has no /proc, and not every Linux kernel and sandbox lists the children of a task.
    if not (SELF / "task" / str(threading.get_native_id()) / "children").exists():
        yield watch
        watch.peak_mib = _rusage_mib(resource.RUSAGE_CHILDREN)
        return
    poller = threading.Thread(target=poll, name="watch-children", daemon=True)
    poller.start()
    try:
        yield watch
    finally:
        done.set()
        poller.join()


def _held_by_forked(pid: str) -> float:
    """MiB that a forked process and its children do not share with this one, or all that it holds."""
    process = SELF.parent / pid
    own_command = _read(process / "cmdline")
    children = [SELF.parent / child for child in _children(process)]
    programs = [child for child in children if _is_another_program(child, own_command)]
    lines = (_read(process / "smaps_rollup") or _read(process / "status")).splitlines()
    kib = sum(int(line.split()[1]) for line in lines if line.startswith(("Private_", "VmRSS:")))
    return kib / 1024 + sum(_peak_mib(program) or 0.0 for program in programs)


def _children(process: Path = SELF) -> list[str]:
    """The ids of a process's children, whichever thread started them."""
    return [child for task in _directories(process / "task") for child in _read(task / "children").split()]


def _is_another_program(process: Path, parents_command: str) -> bool:
    """Whether a child has become a program of its own.

    Between fork and exec it has its parent's memory and command line, and in the middle of exec none.
    """
    return _read(process / "cmdline") not in ("", parents_command)


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def _directories(path: Path) -> list[Path]:
    try:
        return list(path.iterdir())
    except OSError:
        return []
