"""Stopping a run in bounded time: by Ctrl-C, SIGTERM, a cancel in the UI, or SERVERLESS_RUN_DEADLINE.

Python runs a signal's handler between two instructions of the main thread alone, which may be in a call
that takes hours. A thread of its own hears of every signal at once, and ends the process if the run has not
come to its end a few seconds later: the main thread may wait for a server that does not answer.

An interrupt may strike inside a library that prints it with a traceback, and goes on or raises it again.
Nothing that libraries print of a run's stop reaches the terminal.
"""

import logging
import math
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import NoReturn, ParamSpec, TypeVar

import psutil

# What a run may take to cancel its work, keep what it finished and write its summary.
SECONDS_TO_END = 7.0
# What the process takes after that to record that the run was stopped.
SECONDS_TO_RECORD = 2.0
REASONS = {signal.SIGINT: "by Ctrl-C", signal.SIGTERM: "by SIGTERM"}


class Stopping:
    """Within the block, a signal or the deadline interrupts the main thread, and after a grace period ends
    the process.

    `reason` says why the run is to stop, and `exit_code` with what; None while nobody wants that. `on_stop`
    is called from another thread with the reason as soon as the run is to stop, and `record` before the
    process is ended. Without `interrupts`, Dagster interrupts the main thread when it gets a signal.
    """

    is_watching = False

    def __init__(
        self, deadline_seconds: float, record: Callable[[str], object], interrupts: bool = True
    ) -> None:
        self.reason: str | None = None
        self.exit_code = 1
        self.on_stop: Callable[[str], object] = lambda reason: None
        self._has_reason = threading.Event()
        self._deadline_seconds = deadline_seconds
        self._record = record
        self._interrupts = interrupts
        self._thread = threading.Thread(target=self._watch, name="stopping", daemon=True)

    def __enter__(self) -> "Stopping":
        self._signals, self._wakeup = os.pipe()
        os.set_blocking(self._wakeup, False)
        for number in REASONS if self._interrupts else ():
            # A process that a shell started in the background ignores SIGINT: here it does not.
            signal.signal(number, signal.default_int_handler)
        signal.set_wakeup_fd(self._wakeup, warn_on_full_buffer=False)
        self._silence_libraries()
        Stopping.is_watching = True
        self._thread.start()
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        Stopping.is_watching = False
        signal.set_wakeup_fd(-1)
        os.close(self._wakeup)
        self._thread.join()
        os.close(self._signals)
        logging.lastResort = self._handler_of_libraries
        sys.unraisablehook = sys.__unraisablehook__
        threading.excepthook = threading.__excepthook__

    def _silence_libraries(self) -> None:
        def is_of_the_stop(error: BaseException | None) -> bool:
            # An interrupt is no Exception, and comes before the reason is known.
            return self.reason is not None or not isinstance(error, Exception | None)

        def print_record(record: logging.LogRecord) -> bool:
            return not is_of_the_stop(record.exc_info[1] if record.exc_info else None)

        def print_unraisable(error: "sys.UnraisableHookArgs") -> None:
            if not is_of_the_stop(error.exc_value):
                sys.__unraisablehook__(error)

        def print_error_of_thread(error: threading.ExceptHookArgs) -> None:
            if not is_of_the_stop(error.exc_value):
                threading.__excepthook__(error)

        # The handler of every logger that has none, which are those of libraries.
        self._handler_of_libraries = logging.lastResort
        logging.lastResort = logging.StreamHandler()
        logging.lastResort.setLevel(logging.WARNING)
        logging.lastResort.addFilter(print_record)
        sys.unraisablehook = print_unraisable
        threading.excepthook = print_error_of_thread

    def wait_for_reason(self) -> None:
        """Wait for the reason of the interrupt that the main thread has just got."""
        self._has_reason.wait(SECONDS_TO_RECORD)

    def _stop(self, reason: str) -> None:
        self.reason = reason
        self._has_reason.set()
        # In a thread, so that the process is ended in time whatever `on_stop` waits for.
        threading.Thread(target=self.on_stop, args=(reason,), daemon=True).start()

    def _watch(self) -> None:
        deadline = time.monotonic() + self._deadline_seconds
        while True:
            seconds = max(0.0, deadline - time.monotonic()) if math.isfinite(deadline) else None
            ready, _, _ = select.select([self._signals], [], [], seconds)
            numbers = os.read(self._signals, 64) if ready else b""
            if ready and not numbers:
                return
            if not ready and self.reason is None:
                self._stop(
                    f"because it took longer than SERVERLESS_RUN_DEADLINE, {self._deadline_seconds:.0f} s"
                )
                deadline = time.monotonic() + SECONDS_TO_END
                # The signal interrupts the main thread.
                os.kill(os.getpid(), signal.SIGTERM)
            elif not ready:
                self._end()
            elif self.reason is None and (received := [n for n in REASONS if n in numbers]):
                self.exit_code = 128 + received[0]
                self._stop(REASONS[received[0]])
                deadline = time.monotonic() + SECONDS_TO_END

    def end_process(self) -> NoReturn:
        """End the process at once, without waiting for threads that are still at work."""
        # dbt's process and a forecast's worker must not go on by themselves.
        for child in psutil.Process().children(recursive=True):
            with suppress(psutil.Error):
                child.kill()
        sys.stdout.flush()
        os._exit(self.exit_code)

    def _end(self) -> None:
        recording = threading.Thread(target=self._record, args=(self.reason,), daemon=True)
        recording.start()
        recording.join(SECONDS_TO_RECORD)
        self.end_process()


@contextmanager
def bounded_stop(record: Callable[[str], object]) -> Iterator[None]:
    """End the process if it is still in the block a few seconds after the run was stopped.

    For a run that Dagster executes; one of the command line is watched already.
    """
    if Stopping.is_watching or threading.current_thread() is not threading.main_thread():
        yield
        return
    with Stopping(math.inf, record, interrupts=False):
        yield


Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def start_thread(
    work: Callable[Arguments, Result], *args: Arguments.args, **kwargs: Arguments.kwargs
) -> "Future[Result]":
    """Begin work that no interrupt of this thread ends, in one that does not keep the process alive."""
    future: Future[Result] = Future()

    def run() -> None:
        try:
            future.set_result(work(*args, **kwargs))
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, name=getattr(work, "__name__", "work"), daemon=True).start()
    return future


def within(seconds: float, action: Callable[[], object]) -> None:
    """Try what may fail or take for ever, as a server may be silent; go on after so many seconds."""

    def act() -> None:
        with suppress(Exception):
            action()

    thread = threading.Thread(target=act, daemon=True)
    thread.start()
    thread.join(seconds)
