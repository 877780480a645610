"""Requests within time limits, made again after a fault that passes; and the errors of those that fail.

A thread that resolves a host name, connects or waits for bytes cannot be interrupted. A request runs in a
thread of its own instead, and its caller waits for it in short steps: it abandons the thread when it is
cancelled, interrupted (Ctrl-C, SIGTERM) or too slow. The threads are daemons: an abandoned one does not keep
the process alive.
"""

import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, wait
from contextlib import suppress
from dataclasses import dataclass, field
from threading import Event, Lock
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit

import requests

from serverless_assets.addresses import without_credentials
from serverless_assets.errors import UserError
from serverless_assets.ingestion.http import (
    NO_VALIDATORS,
    HttpError,
    Validators,
    printable,
    request,
    retry_after_seconds,
)
from serverless_assets.ingestion.http_faults import LONGEST_PAUSE_SECONDS, TRANSIENT_STATUS, call_with_retries
from serverless_assets.stopping import start_thread

# Set in an answer that there is no such table: the sample stands in for a source that may have it.
SAMPLE_HEADER = "X-Sample-Shop"
STEP_SECONDS = 0.1

MISSING_STATUS = (requests.codes.not_found, requests.codes.gone)
NOT_THERE = (
    "The source has no such table there: check SERVERLESS_DATASET_URL or dataset_url, and the table's "
    "`path`. With `optional: true`, a run does without it."
)
ADVICE: Mapping[int, str] = {
    401: "Check the credentials in the dataset URL.",
    403: "Check the credentials in the dataset URL.",
    **dict.fromkeys(MISSING_STATUS, NOT_THERE),
    407: "Check the credentials in HTTP_PROXY.",
}

Log = Callable[[str], None]
Result = TypeVar("Result")


class SourceError(UserError):
    """The source cannot give this table."""


class MissingTable(SourceError):
    """The source has no such table, and answered with this status.

    is_sample: it is the sample shop, which stands in for another one.
    """

    def __init__(self, message: str, status: int, is_sample: bool) -> None:
        super().__init__(message)
        self.status = status
        self.is_sample = is_sample


class MissingPage(SourceError):
    """The source has the table, but not a further page of its rows."""


class Unauthorized(SourceError):
    """The source does not accept the credentials."""


@dataclass(frozen=True)
class DownloadLimits:
    """How long a table may take, over all attempts, how slowly its bytes may come, and its memory.

    minimum_rate: bytes per second, on average over each `rate_window_seconds`; 0 allows any.
    memory_mib: for the rows of all tables that are audited at a time; what is beyond goes to disk.
    """

    deadline_seconds: float = 3600.0
    minimum_rate: int = 1000
    rate_window_seconds: float = 60.0
    memory_mib: int = 640


DEFAULT_LIMITS = DownloadLimits()


@dataclass
class Exchange:
    """The progress of a request. Its thread writes it and the waiting caller reads it."""

    response: requests.Response | None = None
    received: int = 0


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


@dataclass(frozen=True, kw_only=True)
class HttpClient:
    """Makes requests within time limits, and again after a fault that passes.

    Setting `cancelled` ends all of its requests at once, whatever they wait for.
    """

    attempts: int = 5
    first_pause_seconds: float = 0.5
    timeout_seconds: float = 60.0
    longest_pause_seconds: float = LONGEST_PAUSE_SECONDS
    cancelled: Event = field(default_factory=Event, compare=False)
    limits: DownloadLimits = DEFAULT_LIMITS
    pace: Pace = field(default_factory=Pace, compare=False)

    def with_retries(
        self, log: Log, attempt: Callable[[float], Result], deadline: float | None = None
    ) -> Result:
        """Return the result of `attempt`, which takes the time by which all attempts must be over."""
        deadline, attempts = deadline or time.monotonic() + self.limits.deadline_seconds, 0

        def counted() -> Result:
            nonlocal attempts
            attempts += 1
            return attempt(deadline)

        try:
            return call_with_retries(
                counted,
                self.attempts,
                self.first_pause_seconds,
                self.longest_pause_seconds,
                deadline - time.monotonic(),
                self.cancelled,
                log,
            )
        except SourceError as error:
            if not error.transient:
                raise
            times = "1 attempt" if attempts == 1 else f"{attempts} attempts"
            raise SourceError(f"{error} Gave up after {times}.") from None

    def request(
        self,
        method: str,
        url: str,
        deadline: float,
        read: Callable[[requests.Response, Exchange], Result],
        validators: Validators = NO_VALIDATORS,
        advice: Mapping[int, str] = ADVICE,
        seconds_between: float = 0.0,
        **options: Any,
    ) -> Result:
        """Return what `read` makes of a good response, unless it is cancelled or takes longer than it may.

        Args:
            advice: what to do about a status.
            seconds_between: this request and the next one to the same host, of any table.
            options: further arguments of `http.request`.
        """
        if url.startswith("/"):
            raise SourceError(
                f"Set SERVERLESS_DATASET_URL to the address that serves {url}: this project has no source."
            )
        subject = f"{method} {without_credentials(url)}"
        # Without a content coding, Content-Length counts the bytes of the file itself.
        headers = {"Accept-Encoding": "identity", **validators.as_headers()}
        exchange, host = Exchange(), urlsplit(url).netloc.rpartition("@")[2]

        def exchange_messages() -> Result:
            try:
                with request(method, url, self.timeout_seconds, headers, **options) as response:
                    exchange.response = response
                    _refuse_bad_status(response, method, url, validators, advice)
                    return read(response, exchange)
            except HttpError as error:
                raise SourceError(f"{subject} {error}", error.transient) from None

        self.pace.wait(host, seconds_between, deadline, self.cancelled)
        if self.cancelled.is_set():
            raise SourceError(f"{subject} was cancelled.")
        if time.monotonic() >= deadline:
            raise SourceError(
                f"{subject} was not made within {self.limits.deadline_seconds:,g} s, as the source limits "
                "how often it is asked. SERVERLESS_DOWNLOAD_DEADLINE allows more time."
            )
        future = start_thread(exchange_messages)
        try:
            self._wait(future, exchange, deadline, subject)
            return future.result()
        except SourceError as error:
            self.pace.hold(host, min(error.retry_after or 0.0, self.longest_pause_seconds))
            raise
        finally:
            if not future.done() and exchange.response is not None:
                # The thread's wait for bytes ends. It fails on an answer that is complete by now.
                with suppress(ValueError, RuntimeError, OSError):
                    exchange.response.raw.shutdown()

    def _wait(self, future: Future[Any], exchange: Exchange, deadline: float, subject: str) -> None:
        """Wait until a request is done; raise `SourceError` once it is cancelled, late or too slow."""
        started, window_start, window_received = time.monotonic(), None, 0
        while not wait([future], STEP_SECONDS).done:
            now, received = time.monotonic(), exchange.received
            if self.cancelled.is_set():
                raise SourceError(f"{subject} was cancelled.")
            if now >= deadline:
                raise SourceError(
                    f"{subject} was not complete after {self.limits.deadline_seconds:,g} s: its last attempt "
                    f"brought {_format_rate(received, now - started)}. SERVERLESS_DOWNLOAD_DEADLINE allows "
                    "more time."
                )
            if exchange.response is None:
                if now - started > self.timeout_seconds:
                    raise SourceError(f"{subject} did not answer within {self.timeout_seconds:g} s.", True)
            elif window_start is None:
                window_start = now
            elif (seconds := now - window_start) >= self.limits.rate_window_seconds:
                if received - window_received < self.limits.minimum_rate * seconds:
                    raise SourceError(
                        f"{subject} is too slow: {_format_rate(received - window_received, seconds)}, "
                        f"and SERVERLESS_DOWNLOAD_MIN_RATE is {self.limits.minimum_rate:,} bytes/s.",
                        transient=True,
                    )
                window_start, window_received = now, received


def _format_rate(received: int, seconds: float) -> str:
    return f"{received:,} bytes in {seconds:,.0f} s ({received / seconds:,.0f} bytes/s)"


def _refuse_bad_status(
    response: requests.Response, method: str, url: str, validators: Validators, advice: Mapping[int, str]
) -> None:
    """Raise `SourceError` unless the response is the table, or 304 to a conditional request."""
    status = response.status_code
    if status == requests.codes.ok or (validators and status == requests.codes.not_modified):
        return
    address, final = without_credentials(url), without_credentials(response.url)
    # The client writes an address in its own way, with %20 for a space.
    redirected = f", redirected to {final}," if unquote(final).lower() != unquote(address).lower() else ""
    answer = f"{method} {address}{redirected} answered {status} {printable(response.reason or '')}".rstrip()
    if status in TRANSIENT_STATUS:
        raise SourceError(f"{answer}.", True, retry_after_seconds(response.headers))
    if SAMPLE_HEADER in response.headers and status in MISSING_STATUS:
        raise MissingTable(
            f"{answer}. The bundled sample shop has no such table: SERVERLESS_DATASET_URL leads to a source "
            "that has.",
            status,
            is_sample=True,
        )
    sentences = " ".join(filter(None, [f"{answer}.", advice.get(status)]))
    if status in MISSING_STATUS:
        raise MissingTable(sentences, status, is_sample=False)
    if status == requests.codes.unauthorized:
        raise Unauthorized(sentences)
    raise SourceError(sentences)
