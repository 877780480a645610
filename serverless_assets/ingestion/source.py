"""Where the raw tables come from: parquet files over HTTP, from any base URL or the bundled sample shop.

A download is complete on disk, unchanged, or an error that says why not.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import wait
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from datetime import date
from functools import partial
from pathlib import Path
from threading import Event
from typing import Any, BinaryIO, Protocol, TypeVar
from urllib.parse import SplitResult, parse_qsl, unquote, urlencode, urlsplit, urlunsplit

import requests

from serverless_assets.errors import UserError
from serverless_assets.hashing import digest
from serverless_assets.ingestion.catalog import RawTable, Window
from serverless_assets.ingestion.http import (
    NO_VALIDATORS,
    TRANSIENT_STATUS,
    HttpError,
    Validators,
    printable,
    read_body,
    request,
    retry_after_seconds,
    without_credentials,
)
from serverless_assets.ingestion.limits import (
    DEFAULT_LIMITS,
    LONGEST_PAUSE_SECONDS,
    STEP_SECONDS,
    DownloadLimits,
    Exchange,
    Pace,
    RetryPolicy,
    start_thread,
)
from serverless_assets.sample_shop.api import SAMPLE_HEADER, create_app, serve
from serverless_assets.sample_shop.catalogue import SCHEMAS
from serverless_assets.sample_shop.shop import SampleShop

PARQUET_MAGIC = b"PAR1"
# The magic bytes at both ends, and the length of the footer.
SMALLEST_PARQUET_BYTES = 12
SECONDS_TO_CHECK = 10.0
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
    """The source cannot give this table.

    `transient`: it may do so when asked again; `retry_after`: the seconds that it asked to wait before.
    """

    def __init__(self, message: str, transient: bool = False, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.transient = transient
        self.retry_after = retry_after


class MissingTable(SourceError):
    """The source has no such table. `is_sample`: it is the sample shop, which stands in for another one."""

    def __init__(self, message: str, is_sample: bool) -> None:
        super().__init__(message)
        self.is_sample = is_sample


class Unauthorized(SourceError):
    """The source does not accept the credentials."""


@dataclass(frozen=True)
class Download:
    """A complete parquet file on disk, its size in bytes, and the seconds that it took."""

    path: Path
    url: str
    bytes: int
    seconds: float
    validators: Validators = NO_VALIDATORS


@dataclass(frozen=True)
class NotModified:
    """The source's answer that the file is still the one that the validators came with."""

    url: str
    seconds: float


class Source(Protocol):
    """A source that a run opens while it loads."""

    def open(self) -> AbstractContextManager["HttpSource"]:
        """Open the source, reachable until the context ends."""

    @property
    def limits(self) -> DownloadLimits:
        """Return the limits of a download, from this source or from another that a run names."""

    @property
    def name(self) -> str:
        """Return the name to show, without any secret."""

    def check(self, tables: Sequence[RawTable]) -> str:
        """Return which of the tables the source serves, without loading them.

        Raises:
            SourceError: it cannot be used.
        """


@dataclass(frozen=True)
class HttpSource:
    """A base URL that serves `{table}.parquet`, with the time limits and retries of its requests.

    It is a REST API, or a folder of parquet files behind any web server. Setting `cancelled` ends all of its
    requests at once, whatever they wait for. `identity` names a source whose address changes, such as one on
    a free port.
    """

    base_url: str
    attempts: int = 5
    first_pause_seconds: float = 0.5
    timeout_seconds: float = 60.0
    longest_pause_seconds: float = LONGEST_PAUSE_SECONDS
    cancelled: Event = field(default_factory=Event, compare=False)
    identity: str = ""
    limits: DownloadLimits = DEFAULT_LIMITS
    pace: Pace = field(default_factory=Pace, compare=False)

    @contextmanager
    def open(self) -> "Iterator[HttpSource]":
        yield replace(self, cancelled=Event())

    @property
    def name(self) -> str:
        return without_credentials(self.base_url)

    def check(self, tables: Sequence[RawTable]) -> str:
        missing = []
        with self.open() as source:
            hasty = replace(source, timeout_seconds=SECONDS_TO_CHECK)
            for table in tables:
                try:
                    if table.rest:
                        # dlt takes seconds to import.
                        from serverless_assets.ingestion.rest import read_first_page

                        read_first_page(hasty, table)
                    else:
                        hasty.probe(table.location)
                except MissingTable as error:
                    if not (table.optional or error.is_sample):
                        raise
                    missing.append(table.name)
        return _format_served(tables, missing)

    @property
    def key(self) -> str:
        """Return a hash that identifies the source as a whole."""
        return self.request_key("", None)

    def request_key(self, table: str, window: Window | None, since: str = "") -> str:
        """Return a hash that identifies a request: the same source, table and window or changes."""
        url = table_url(self.identity or self.base_url, table, window, since)
        return digest(url)

    def fetch(
        self,
        table: str,
        window: Window | None,
        path: Path,
        log: Log,
        validators: Validators = NO_VALIDATORS,
        since: str = "",
    ) -> Download | NotModified:
        """Write the table's parquet file to `path`, unless it is still the one with these validators.

        A window is asked for with `start` and `end`, changes with `updated_since`; a server is free to
        ignore them.

        Raises:
            SourceError: the source cannot give the table, or did not within the attempts and limits.
        """
        url, started = table_url(self.base_url, table, window, since), time.monotonic()
        address = without_credentials(url)

        def attempt(deadline: float) -> tuple[int, Validators] | None:
            try:
                # The file is opened here: a thread that was abandoned neither makes one nor fills it.
                with path.open("w+b") as file:
                    save = partial(_save, file, address)
                    return self.request("GET", url, deadline, save, validators)
            except OSError as error:
                raise SourceError(
                    f"The download of {address} cannot be written to {path}: "
                    f"{error.strerror}. Free space there, then run again."
                ) from None

        saved = self.with_retries(log, attempt)
        seconds = time.monotonic() - started
        if saved is None:
            path.unlink()
            return NotModified(address, seconds)
        return Download(path, address, saved[0], seconds, saved[1])

    def validators(self, table: str, window: Window | None) -> Validators:
        """Return the validators of the source's current answer, without its body.

        It is asked by HEAD. Many servers answer that with an error although GET works: then by GET.

        Raises:
            SourceError: the source cannot give the table, or did not within the attempts and limits.
        """
        url = table_url(self.base_url, table, window)

        def attempt(deadline: float) -> Validators:
            try:
                return self.request("HEAD", url, deadline, _read_validators)
            except SourceError as error:
                if self.cancelled.is_set() or error.retry_after is not None:
                    raise
            return self.request("GET", url, deadline, _read_validators)

        return self.with_retries(lambda line: None, attempt)

    def probe(self, table: str) -> None:
        """Request the table once, without its body.

        Raises:
            SourceError: the source cannot give the table, or not now.
        """
        deadline = time.monotonic() + self.limits.deadline_seconds
        self.request("GET", table_url(self.base_url, table, None), deadline, _read_validators)

    def with_retries(
        self, log: Log, attempt: Callable[[float], Result], deadline: float | None = None
    ) -> Result:
        """Return the result of `attempt`, which takes the time by which all attempts must be over."""
        deadline, attempts = deadline or time.monotonic() + self.limits.deadline_seconds, 0
        seconds = deadline - time.monotonic()

        def counted() -> Result:
            nonlocal attempts
            attempts += 1
            return attempt(deadline)

        try:
            return RetryPolicy(
                self.attempts, self.first_pause_seconds, self.longest_pause_seconds, seconds, self.cancelled
            ).call(counted, log)
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
                f"{subject} was not made within {self.limits.deadline_seconds:,g} s, as the source wants to "
                "be asked less often. SERVERLESS_DOWNLOAD_DEADLINE allows more time."
            )
        future, started = start_thread(exchange_messages), time.monotonic()
        window_start, window_received = None, 0
        try:
            while not wait([future], STEP_SECONDS).done:
                now, received = time.monotonic(), exchange.received
                if self.cancelled.is_set():
                    raise SourceError(f"{subject} was cancelled.")
                if now >= deadline:
                    raise SourceError(
                        f"{subject} was not complete after {self.limits.deadline_seconds:,g} s: its last "
                        f"attempt brought {_format_rate(received, now - started)}. "
                        "SERVERLESS_DOWNLOAD_DEADLINE allows more time."
                    )
                if exchange.response is None:
                    if now - started > self.timeout_seconds:
                        raise SourceError(
                            f"{subject} did not answer within {self.timeout_seconds:g} s.", True
                        )
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
            return future.result()
        except SourceError as error:
            self.pace.hold(host, min(error.retry_after or 0.0, self.longest_pause_seconds))
            raise
        finally:
            if not future.done():
                exchange.abandon()


@dataclass(frozen=True)
class SampleSource:
    """The bundled sample shop, on a free port of this machine for as long as it is open."""

    seed: int
    end: Callable[[], date]
    limits: DownloadLimits = DEFAULT_LIMITS

    @contextmanager
    def open(self) -> Iterator[HttpSource]:
        app = create_app(lambda: SampleShop(seed=self.seed, end=self.end()))
        with serve(app) as base_url:
            yield HttpSource(base_url, identity=f"the sample shop of seed {self.seed}", limits=self.limits)

    @property
    def name(self) -> str:
        return "the bundled sample shop"

    def check(self, tables: Sequence[RawTable]) -> str:
        elsewhere = [table for table in tables if table.rest and table.rest.url]
        if elsewhere:
            with self.open() as source:
                source.check(elsewhere)
        missing = [table.name for table in tables if table not in elsewhere and table.location not in SCHEMAS]
        return f"{_format_served(tables, missing)} up to {self.end()}"


def table_url(base_url: str, table: str, window: Window | None, since: str = "") -> str:
    """Return the address of a table below `base_url`, whose own query (an access token, say) is kept."""
    parts = urlsplit(base_url)
    query = parse_qsl(parts.query, keep_blank_values=True)
    if window is not None:
        query += [("start", window.start.isoformat()), ("end", window.end.isoformat())]
    if since:
        query.append(("updated_since", since))
    path = f"{parts.path.rstrip('/')}/{table}.parquet"
    return urlunsplit(SplitResult(parts.scheme, parts.netloc, path, urlencode(query), ""))


def _format_served(tables: Sequence[RawTable], missing: Sequence[str]) -> str:
    if not missing:
        return f"serves all {len(tables)} tables"
    return f"serves {len(tables) - len(missing)} of {len(tables)} tables (not {', '.join(missing)})"


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
            is_sample=True,
        )
    sentences = " ".join(filter(None, [f"{answer}.", advice.get(status)]))
    if status in MISSING_STATUS:
        raise MissingTable(sentences, is_sample=False)
    if status == requests.codes.unauthorized:
        raise Unauthorized(sentences)
    raise SourceError(sentences)


def _save(
    file: BinaryIO, address: str, response: requests.Response, exchange: Exchange
) -> tuple[int, Validators] | None:
    """Write the body to `file`. Returns its size and validators; None if it was not modified."""
    if response.status_code == requests.codes.not_modified:
        return None
    for chunk in read_body(response):
        file.write(chunk)
        exchange.received += len(chunk)
    _refuse_other_than_parquet(file, response, address)
    return exchange.received, Validators.of(response.headers)


def _read_validators(response: requests.Response, exchange: Exchange) -> Validators:
    return Validators.of(response.headers)


def _refuse_other_than_parquet(file: BinaryIO, response: requests.Response, address: str) -> None:
    """Raise `SourceError` unless `file` is complete parquet, by its first and last bytes.

    It is transient if the response broke off.
    """
    size = file.seek(0, 2)
    file.seek(0)
    head = file.read(len(PARQUET_MAGIC))
    file.seek(max(0, size - len(PARQUET_MAGIC)))
    tail = file.read()
    if size == 0 and "Content-Length" in response.headers:
        raise SourceError(f"GET {address} answered with an empty body: there is no file.")
    if not PARQUET_MAGIC.startswith(head):
        kind = printable(response.headers.get("Content-Type", "").partition(";")[0]) or "no content type"
        raise SourceError(
            f"GET {address} answered {size:,} bytes that are not parquet ({kind}). "
            "Does the address lead to a login or error page?"
        )
    if tail != PARQUET_MAGIC or size < SMALLEST_PARQUET_BYTES:
        # A server that closes early without a Content-Length looks like a complete answer.
        raise SourceError(f"GET {address} broke off: the parquet file has no end.", transient=True)
