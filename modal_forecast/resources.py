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
    watch = _ChildWatch() if lists_children() else None
    try:
        yield usage
    finally:
        if watch:
            watch.end()
    usage.seconds = round(time.perf_counter() - started, 3)
    usage.cpu_seconds = round(_cpu_seconds() - cpu_before, 3)
    children_mib = watch.peak_mib if watch else _rusage_mib(resource.RUSAGE_CHILDREN)
    own_mib = _peak_mib(SELF)
    if own_mib is None:
        own_mib = _rusage_mib(resource.RUSAGE_SELF)
    usage.peak_memory_children_mib = round(children_mib, 1)
    usage.peak_memory_mib = round(own_mib + children_mib, 1)


def _cpu_seconds() -> float:
    both = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(used.ru_utime + used.ru_stime for used in both)


def _peak_mib(process: Path) -> float | None:
    """VmHWM of a process, or None if it is gone or the system does not say."""
    lines = _read(process / "status").splitlines()
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:")), None)


def _rusage_mib(who: int) -> float:
    # Second best on Linux, where ru_maxrss is inherited across exec: a child starts at its parent's peak.
    unit = 1024**2 if sys.platform == "darwin" else 1024
    return resource.getrusage(who).ru_maxrss / unit


class _ChildWatch:
    """The peak memory of new children of this process: of the largest program, or of all forked ones."""

    def __init__(self) -> None:
        self.peak_mib = 0.0
        self._there_before = set(child_pids())
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look_often, name="watch-children", daemon=True)
        self._thread.start()

    def end(self) -> None:
        self._ended.set()
        self._thread.join()

    def _look_often(self) -> None:
        looks = 0
        while not self._ended.wait(POLL_SECONDS):
            looks += 1
            if FORKED and looks % LOOKS_PER_LOOK_AT_FORKED == 0:
                self.peak_mib = max(self.peak_mib, sum(_held_by_forked(str(pid)) for pid in tuple(FORKED)))
            own_command = _read(SELF / "cmdline")
            for pid in child_pids():
                child = SELF.parent / pid
                if pid not in self._there_before and _is_another_program(child, own_command):
                    self.peak_mib = max(self.peak_mib, _peak_mib(child) or 0.0)


def _held_by_forked(pid: str) -> float:
    """MiB that a forked process and its children do not share with this one, or all that it holds."""
    process = SELF.parent / pid
    own_command = _read(process / "cmdline")
    children = [SELF.parent / child for child in child_pids(process)]
    programs = [child for child in children if _is_another_program(child, own_command)]
    lines = (_read(process / "smaps_rollup") or _read(process / "status")).splitlines()
    kib = sum(int(line.split()[1]) for line in lines if line.startswith(("Private_", "VmRSS:")))
    return kib / 1024 + sum(_peak_mib(program) or 0.0 for program in programs)


def lists_children() -> bool:
    """Return whether the system has child_pids(): macOS has no /proc, and not every Linux kernel and sandbox
    lists the children of a task."""
    return (SELF / "task" / str(threading.get_native_id()) / "children").exists()


def child_pids(process: Path = SELF) -> list[str]:
    """Return the ids of the children of a process, a folder of /proc, whichever thread started them."""
    try:
        tasks = list((process / "task").iterdir())
    except OSError:
        return []
    return [child for task in tasks for child in _read(task / "children").split()]


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
