"""Faults at a chosen operation: a process that is killed before it, or a disk that is full from then on.

A Python audit hook counts the operations that change files below a folder, or the requests that change
something in BigQuery or a bucket. A hook cannot be removed, so everything happens in a forked process; the
caller's own files, and the servers, are as that process left them.
"""

import errno
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any, Literal

Fault = Literal["kill", "full disk"]

# The audit events of operations that change files, and which of their arguments are paths.
EVENTS = {
    "os.rename": (0, 1),
    "os.remove": (0,),
    "os.mkdir": (0,),
    "os.rmdir": (0,),
    "os.link": (0, 1),
    "os.symlink": (1,),
    "os.truncate": (0,),
    "os.chmod": (0,),
    "shutil.copyfile": (1,),
    "open": (0,),
}
# A full disk refuses these. Renaming and deleting need no space.
NEED_SPACE = frozenset({"os.mkdir", "os.link", "os.symlink", "shutil.copyfile", "open"})
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
KILLED = 137
# The first line of a request that changes something, but for a run's signs of life, which come when they may.
CHANGE = re.compile(rb"(?:POST|PUT|PATCH|DELETE) (?!\S+/serverless_lock\b)\S+")
STATEMENT = re.compile(rb"POST \S+/jobs\b")


def every_crash_point(
    action: Callable[[], object], point: Callable[[int], "CrashPoint"], stride: int = 1
) -> Iterator[int]:
    """Run `action` with a fault before the first operation that the hook `point` counts, then before the one
    that is `stride` operations later, and so on.

    Yields the number of the operation after each attempt, for the caller to look at what is left and to
    restore the files. Ends after the attempt that had no operation left to fail, which is not yielded.
    """
    for number in count(1, stride):
        if not run_with_fault(action, point(number)):
            return
        yield number


def run_with_fault(action: Callable[[], object], point: "CrashPoint") -> bool:
    """Run `action` in a forked process with the hook `point`; whether it came to the fault.

    Raises:
        AssertionError: without coming to the fault, `action` failed.
    """
    process = os.fork()
    if process == 0:
        code = 1
        try:
            sys.addaudithook(point)
            action()
            code = 0
        except BaseException as error:
            if not point.was_reached:
                os.write(2, f"{type(error).__name__}: {error}\n".encode())
            code = 1
        finally:
            os._exit(KILLED if point.was_reached else code)
    _, status = os.waitpid(process, 0)
    code = os.waitstatus_to_exitcode(status)
    assert code in (0, KILLED), f"the action failed by itself with exit code {code}"
    return code == KILLED


class CrashPoint:
    """An audit hook that counts file operations below a folder and fails from the `number`-th one on."""

    def __init__(self, below: Path, number: int, fault: Fault = "kill") -> None:
        self._below = os.path.realpath(below)
        self._number = number
        self._fault = fault
        self.was_reached = False

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.was_reached and self._fault == "kill":
            return
        if event not in EVENTS or not self._changes_files(event, arguments):
            return
        if self._fault == "full disk" and event not in NEED_SPACE:
            return
        self._number -= 1
        if self._number > 0:
            return
        self.was_reached = True
        if self._fault == "full disk":
            raise OSError(
                errno.ENOSPC, os.strerror(errno.ENOSPC), str(arguments[-1 if event == "os.link" else 0])
            )
        if event == "shutil.copyfile":
            _copy_half(*arguments[:2])
        os._exit(KILLED)

    def _changes_files(self, event: str, arguments: tuple[Any, ...]) -> bool:
        if event == "open" and not arguments[2] & WRITING:
            return False
        return any(self._is_below(arguments[index]) for index in EVENTS[event])

    def _is_below(self, path: Any) -> bool:
        if not isinstance(path, (str, bytes, os.PathLike)):
            return False
        path = os.fsdecode(path)
        # shutil.rmtree names files relative to a folder that it has open.
        return not os.path.isabs(path) or path.startswith(self._below + os.sep)


class RequestCrashPoint(CrashPoint):
    """An audit hook that ends the process before it sends the `number`-th request that changes something.

    Requests to BigQuery and to the bucket alike are counted, from the first statement on: what is before
    makes ready for it.
    """

    def __init__(self, number: int) -> None:
        self._number = number
        self._has_begun = False
        self.was_reached = False

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event != "http.client.send":
            return
        # Its headers are sent first.
        sent = bytes(arguments[1])
        self._has_begun = self._has_begun or bool(STATEMENT.match(sent))
        if not self._has_begun or not CHANGE.match(sent):
            return
        self._number -= 1
        if self._number == 0:
            os._exit(KILLED)


def _copy_half(source: Any, target: Any) -> None:
    with open(source, "rb") as read, open(target, "wb") as write:
        write.write(read.read(os.path.getsize(source) // 2))


def restore(template: Path, home: Path) -> None:
    """Make `home` a copy of `template` again, times of change included."""
    shutil.rmtree(home, ignore_errors=True)
    shutil.copytree(template, home, symlinks=True)
