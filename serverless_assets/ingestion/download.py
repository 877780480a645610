"""Fetch a table's parquet file over HTTP: streamed to disk, complete, or an error that says why not."""

import hashlib
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from typing import BinaryIO, TypeVar

import requests

from serverless_assets.ingestion.addresses import table_url, without_credentials
from serverless_assets.ingestion.answers import SourceError, refuse_bad_status, refuse_other_than_parquet
from serverless_assets.ingestion.http import HttpError, read_body, request
from serverless_assets.ingestion.interruptible import (
    DEFAULT_LIMITS,
    Cancelled,
    DeadlinePassed,
    DownloadLimits,
    Exchange,
    NoAnswer,
    TooSlow,
    wait_for,
)
from serverless_assets.ingestion.retries import LONGEST_PAUSE_SECONDS, RetryPolicy
from serverless_assets.ingestion.validators import NO_VALIDATORS, Validators
from serverless_assets.ingestion.window import Window

Log = Callable[[str], None]
Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Download:
    """A complete parquet file on disk, and what it took to get it."""

    path: Path
    url: str
    bytes: int
    seconds: float
    validators: Validators = NO_VALIDATORS


@dataclass(frozen=True)
class NotModified:
    """The source's word that its answer is the one that the validators came with."""

    url: str
    seconds: float


@dataclass(frozen=True)
class TableSource:
    """A base URL that serves `{table}.parquet`, and how patiently to ask it."""

    base_url: str
    attempts: int = 5
    first_pause_seconds: float = 0.5
    timeout_seconds: float = 60.0
    longest_pause_seconds: float = LONGEST_PAUSE_SECONDS
    cancelled: Event = field(default_factory=Event)
    # What the source is called where its address says nothing: one on a free port has another every time.
    identity: str = ""
    limits: DownloadLimits = DEFAULT_LIMITS

    @property
    def key(self) -> str:
        """A name for the source as a whole, whatever is asked of it. It gives no secret away."""
        return self.request_key("", None)

    def request_key(self, table: str, window: Window | None) -> str:
        """A name for what `fetch` asks: the same source, table and window. It gives no secret away."""
        url = table_url(self.identity or self.base_url, table, window)
        return hashlib.sha256(url.encode()).hexdigest()[:16]

    def fetch(self, table: str, window: Window | None, path: Path, log: Log) -> Download:
        """Write the table's parquet file to `path`.

        A window is asked for with `start` and `end`; a server is free to ignore it. Setting `cancelled`
        ends it at once, whatever it waits for.

        Raises:
            SourceError: the source cannot give the table, or did not within the attempts and limits.
        """
        found = self.fetch_if_modified(table, window, path, log, NO_VALIDATORS)
        assert isinstance(found, Download)
        return found

    def fetch_if_modified(
        self, table: str, window: Window | None, path: Path, log: Log, held: Validators
    ) -> Download | NotModified:
        """As `fetch`, unless the source says that its answer is still the one with the validators `held`."""
        url, started = table_url(self.base_url, table, window), time.monotonic()

        def attempt(deadline: float) -> tuple[int, Validators] | None:
            try:
                # The file is opened here: a thread that was abandoned neither makes one nor fills it.
                with path.open("w+b") as file:
                    return self._within(
                        "GET", url, deadline, lambda exchange: _download(exchange, self, url, held, file)
                    )
            except OSError as error:
                raise SourceError(
                    f"The download of {without_credentials(url)} cannot be written to {path}: "
                    f"{error.strerror}. Free space there, then run again."
                ) from None

        answer = self._patiently(log, attempt)
        shown, seconds = without_credentials(url), time.monotonic() - started
        if answer is None:
            path.unlink()
            return NotModified(shown, seconds)
        return Download(path, shown, answer[0], seconds, answer[1])

    def validators(self, table: str, window: Window | None) -> Validators:
        """What the source calls its answer now; none of it is downloaded.

        It is asked by HEAD. Many servers answer that with an error although GET works: then by GET, whose
        body is left.

        Raises:
            SourceError: the source cannot give the table, or did not within the attempts and limits.
        """
        url = table_url(self.base_url, table, window)

        def attempt(deadline: float) -> Validators:
            try:
                return self._within(
                    "HEAD", url, deadline, lambda exchange: _head(exchange, self, url, "HEAD")
                )
            except SourceError as error:
                if self.cancelled.is_set() or error.retry_after is not None:
                    raise
            return self._within("GET", url, deadline, lambda exchange: _head(exchange, self, url, "GET"))

        return self._patiently(lambda line: None, attempt)

    def probe(self, table: str) -> None:
        """Ask for the table once, and for the head of the answer only.

        Raises:
            SourceError: the source cannot give the table, or not now.
        """
        url, deadline = table_url(self.base_url, table, None), time.monotonic() + self.limits.deadline_seconds
        self._within("GET", url, deadline, lambda exchange: _head(exchange, self, url, "GET"))

    def _patiently(self, log: Log, attempt: Callable[[float], Answer]) -> Answer:
        """The result of `attempt`, which takes the time by which all must be over."""
        seconds, attempts = self.limits.deadline_seconds, 0
        deadline = time.monotonic() + seconds
        policy = RetryPolicy(
            self.attempts, self.first_pause_seconds, self.longest_pause_seconds, seconds, self.cancelled
        )

        def counted() -> Answer:
            nonlocal attempts
            attempts += 1
            return attempt(deadline)

        try:
            return policy.call(counted, log)
        except SourceError as error:
            if not error.transient:
                raise
            times = "1 attempt" if attempts == 1 else f"{attempts} attempts"
            raise SourceError(f"{error} Gave up after {times}.") from None

    def _within(
        self, method: str, url: str, deadline: float, exchange: Callable[[Exchange], Answer]
    ) -> Answer:
        """The result of `exchange`, unless it is cancelled or takes longer than it may."""
        shown = f"{method} {without_credentials(url)}"
        try:
            return wait_for(exchange, self.cancelled, self.limits, deadline, self.timeout_seconds)
        except Cancelled:
            raise SourceError(f"{shown} was cancelled.") from None
        except NoAnswer:
            raise SourceError(f"{shown} did not answer within {self.timeout_seconds:g} s.", True) from None
        except DeadlinePassed as error:
            raise SourceError(
                f"{shown} was not complete after {self.limits.deadline_seconds:,g} s: its last attempt "
                f"brought {error}. SERVERLESS_DOWNLOAD_DEADLINE allows more time."
            ) from None
        except TooSlow as error:
            raise SourceError(
                f"{shown} is too slow: {error}, and SERVERLESS_DOWNLOAD_MIN_RATE is "
                f"{self.limits.minimum_rate:,} bytes/s.",
                transient=True,
            ) from None


def _download(
    exchange: Exchange, source: TableSource, url: str, held: Validators, file: BinaryIO
) -> tuple[int, Validators] | None:
    """The size of the file and its validators; None if the answer is that of `held`."""
    with _answer(exchange, source, "GET", url, held) as response:
        if response.status_code == requests.codes.not_modified:
            return None
        with _as_source_error("GET", url):
            for chunk in read_body(response):
                file.write(chunk)
                exchange.received += len(chunk)
        refuse_other_than_parquet(file, response, without_credentials(url))
        return exchange.received, Validators.of(response.headers)


def _head(exchange: Exchange, source: TableSource, url: str, method: str) -> Validators:
    """The validators of an answer whose body is left."""
    with _answer(exchange, source, method, url, NO_VALIDATORS) as response:
        return Validators.of(response.headers)


@contextmanager
def _answer(
    exchange: Exchange, source: TableSource, method: str, url: str, held: Validators
) -> Iterator[requests.Response]:
    """A good answer, whose body is still to be read."""
    # Without a content coding, Content-Length counts the bytes of the file itself.
    headers = {"Accept-Encoding": "identity", **held.as_headers()}
    with _as_source_error(method, url), request(method, url, source.timeout_seconds, headers) as response:
        exchange.response = response
        refuse_bad_status(response, method, url, held)
        yield response


@contextmanager
def _as_source_error(method: str, url: str) -> Iterator[None]:
    try:
        yield
    except HttpError as error:
        raise SourceError(f"{method} {without_credentials(url)} {error}", error.transient) from None
