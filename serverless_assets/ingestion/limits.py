"""How long an HTTP request may take and how often it is made again.

A thread that resolves a host name, connects or waits for bytes cannot be interrupted. A request runs in a
thread of its own instead, and its caller waits for it in short steps: it abandons the thread when it is
cancelled, interrupted (Ctrl-C, SIGTERM) or too slow. The threads are daemons: an abandoned one does not keep
the process alive.
"""

import math
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from threading import Event, Lock, Thread
from typing import ParamSpec, TypeVar

import requests
from tenacity import RetryCallState, Retrying, retry_if_exception
from tenacity.nap import sleep_using_event
from tenacity.stop import stop_after_attempt, stop_before_delay, stop_when_event_set
from tenacity.wait import wait_exponential_jitter

from serverless_assets.errors import UserError

# A server may ask for any pause; a run should not sleep for an hour because of one header.
LONGEST_PAUSE_SECONDS = 60.0
STEP_SECONDS = 0.1
RATE_WINDOW_SECONDS = 60.0

Arguments = ParamSpec("Arguments")
Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class DownloadLimits:
    """How long a table may take, over all attempts, how slowly its bytes may come, and its memory.

    minimum_rate: bytes per second, on average over each `rate_window_seconds`; 0 allows any.
    memory_mib: for the rows of all tables that are audited at a time; what is beyond goes to disk.
    """

    deadline_seconds: float = 3600.0
    minimum_rate: int = 1000
    rate_window_seconds: float = RATE_WINDOW_SECONDS
    memory_mib: int = 768


DEFAULT_LIMITS = DownloadLimits()


@dataclass
class Exchange:
    """The progress of a request. Its thread writes it and the waiting caller reads it."""

    response: requests.Response | None = None
    received: int = 0
    abandoned: Event = field(default_factory=Event)

    def abandon(self) -> None:
        """End the thread's next or current wait for bytes."""
        self.abandoned.set()
        if self.response is not None:
            # It fails on an answer that is complete by now.
            with suppress(ValueError, RuntimeError, OSError):
                self.response.raw.shutdown()


def start_thread(
    work: Callable[Arguments, Result], *args: Arguments.args, **kwargs: Arguments.kwargs
) -> "Future[Result]":
    """Run `work` in a thread that does not keep the process alive, unlike one of an executor."""
    future: Future[Result] = Future()

    def run() -> None:
        try:
            future.set_result(work(*args, **kwargs))
        except BaseException as error:
            future.set_exception(error)

    Thread(target=run, name=getattr(work, "__name__", "work"), daemon=True).start()
    return future


@dataclass
class Pace:
    """When each host may be requested next, by all tables alike: after a Retry-After, or by a rate limit."""

    _next: dict[str, float] = field(default_factory=dict)
    _lock: Lock = field(default_factory=Lock)

    def wait(self, host: str, seconds_between: float, deadline: float, cancelled: Event) -> None:
        """Wait for a turn, at most until the deadline."""
        while True:
            with self._lock:
                now = time.monotonic()
                pause = min(self._next.get(host, now), deadline) - now
                if pause <= 0:
                    self._next[host] = max(self._next.get(host, now), now + seconds_between)
                    return
            if cancelled.wait(pause):
                return

    def hold(self, host: str, seconds: float) -> None:
        """Have nobody request the host for so long."""
        with self._lock:
            self._next[host] = max(self._next.get(host, 0.0), time.monotonic() + seconds)


@dataclass(frozen=True)
class RetryPolicy:
    """How often to try, and how long to wait in between.

    The pause doubles from `first_pause_seconds` on, with up to `first_pause_seconds` more by chance. It is
    at least what the server asks for, and at most `longest_pause_seconds`. No attempt begins later than
    `deadline_seconds` after the first. Setting `cancelled` ends a pause and prevents another attempt.
    """

    attempts: int
    first_pause_seconds: float
    longest_pause_seconds: float = LONGEST_PAUSE_SECONDS
    deadline_seconds: float = math.inf
    cancelled: Event = field(default_factory=Event)

    def call(self, attempt: Callable[[], Result], log: Callable[[str], None] = lambda line: None) -> Result:
        """Return the result of `attempt`, made again after a transient `UserError`; the last one is raised.

        log: takes a line before each pause.
        """
        retrying = Retrying(
            retry=retry_if_exception(lambda error: isinstance(error, UserError) and error.transient),
            stop=stop_after_attempt(self.attempts)
            | stop_when_event_set(self.cancelled)
            | stop_before_delay(self.deadline_seconds),
            sleep=sleep_using_event(self.cancelled),
            wait=self._pause,
            before_sleep=lambda state: log(self._message(state)),
            reraise=True,
        )
        return retrying(attempt)

    def _pause(self, state: RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        asked = error.retry_after if isinstance(error, UserError) else None
        backoff = wait_exponential_jitter(
            initial=self.first_pause_seconds, max=self.longest_pause_seconds, jitter=self.first_pause_seconds
        )
        return max(backoff(state), min(asked or 0.0, self.longest_pause_seconds))

    def _message(self, state: RetryCallState) -> str:
        error = state.outcome.exception() if state.outcome else None
        pause = state.next_action.sleep if state.next_action else 0.0
        return f"{error} Attempt {state.attempt_number} of {self.attempts}; asking again in {pause:.1f} s."
