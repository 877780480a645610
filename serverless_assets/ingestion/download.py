"""Download a table's parquet file over HTTP: complete on disk, unchanged, or an error that says why not."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from threading import Event
from typing import BinaryIO, TypeVar
from urllib.parse import SplitResult, parse_qsl, unquote, urlencode, urlsplit, urlunsplit

import requests

from serverless_assets.errors import UserError
from serverless_assets.hashing import digest
from serverless_assets.ingestion.catalog import Window
from serverless_assets.ingestion.http import (
    HttpError,
    parse_http_date,
    printable,
    read_body,
    request,
    retry_after_seconds,
    without_credentials,
)
from serverless_assets.ingestion.http_errors import TRANSIENT_STATUS
from serverless_assets.ingestion.limits import (
    DEFAULT_LIMITS,
    LONGEST_PAUSE_SECONDS,
    Cancelled,
    DeadlinePassed,
    DownloadLimits,
    Exchange,
    NoAnswer,
    RetryPolicy,
    TooSlow,
    wait_for,
)

PARQUET_MAGIC = b"PAR1"
# The magic bytes at both ends, and the length of the footer.
SMALLEST_PARQUET_BYTES = 12
# An ETag may be of any length; a table's state has room for what people use.
LONGEST_ETAG = 256

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


@dataclass(frozen=True)
class Validators:
    """The ETag and Last-Modified of a response, to request it only if it changed (RFC 9110, 8.8 and 13.1).

    False if the server sent neither.
    """

    etag: str = ""
    last_modified: str = ""

    def __bool__(self) -> bool:
        return bool(self.etag or self.last_modified)

    @classmethod
    def of(cls, headers: Mapping[str, str]) -> "Validators":
        """Return those in a response's headers, as far as they tell one version of a file from the next.

        A file that was modified in the very second in which it was served may be so again within it. What
        is made of its time, as most servers' ETags are, would not tell.
        """
        # A folded header has a line break in it and cannot be sent back.
        etag, last_modified = (
            value if value.isprintable() and value.isascii() else ""
            for value in (headers.get("ETag", ""), headers.get("Last-Modified", ""))
        )
        modified, served = parse_http_date(last_modified), parse_http_date(headers.get("Date", ""))
        age = (served - modified).total_seconds() if served and modified else None
        return cls(
            etag if len(etag) <= LONGEST_ETAG and age != 0 else "",
            last_modified if age is not None and age >= 1 else "",
        )

    def as_headers(self) -> dict[str, str]:
        """Return the headers of a conditional request."""
        headers = {"If-None-Match": self.etag, "If-Modified-Since": self.last_modified}
        return {name: value for name, value in headers.items() if value}


NO_VALIDATORS = Validators()


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


@dataclass(frozen=True)
class TableSource:
    """A base URL that serves `{table}.parquet`, with the time limits and retries of its requests.

    Setting `cancelled` ends all of its requests at once, whatever they wait for. `identity` names a source
    whose address changes, such as one on a free port.
    """

    base_url: str
    attempts: int = 5
    first_pause_seconds: float = 0.5
    timeout_seconds: float = 60.0
    longest_pause_seconds: float = LONGEST_PAUSE_SECONDS
    cancelled: Event = field(default_factory=Event)
    identity: str = ""
    limits: DownloadLimits = DEFAULT_LIMITS

    @property
    def key(self) -> str:
        """Return a hash that identifies the source as a whole."""
        return self.request_key("", None)

    def request_key(self, table: str, window: Window | None) -> str:
        """Return a hash that identifies a request: the same source, table and window."""
        url = table_url(self.identity or self.base_url, table, window)
        return digest(url)

    def fetch(self, table: str, window: Window | None, path: Path, log: Log) -> Download:
        """Write the table's parquet file to `path`.

        A window is asked for with `start` and `end`; a server is free to ignore it.

        Raises:
            SourceError: the source cannot give the table, or did not within the attempts and limits.
        """
        download = self.fetch_if_modified(table, window, path, log, NO_VALIDATORS)
        assert isinstance(download, Download)
        return download

    def fetch_if_modified(
        self, table: str, window: Window | None, path: Path, log: Log, validators: Validators
    ) -> Download | NotModified:
        """Do as `fetch`, unless the source answers that its file is still the one with these validators."""
        url, started = table_url(self.base_url, table, window), time.monotonic()
        address = without_credentials(url)

        def attempt(deadline: float) -> tuple[int, Validators] | None:
            try:
                # The file is opened here: a thread that was abandoned neither makes one nor fills it.
                with path.open("w+b") as file:
                    save = partial(_save, file, address)
                    return self._request("GET", url, deadline, save, validators)
            except OSError as error:
                raise SourceError(
                    f"The download of {address} cannot be written to {path}: "
                    f"{error.strerror}. Free space there, then run again."
                ) from None

        saved = self._with_retries(log, attempt)
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
                return self._request("HEAD", url, deadline, _read_validators)
            except SourceError as error:
                if self.cancelled.is_set() or error.retry_after is not None:
                    raise
            return self._request("GET", url, deadline, _read_validators)

        return self._with_retries(lambda line: None, attempt)

    def probe(self, table: str) -> None:
        """Request the table once, without its body.

        Raises:
            SourceError: the source cannot give the table, or not now.
        """
        deadline = time.monotonic() + self.limits.deadline_seconds
        self._request("GET", table_url(self.base_url, table, None), deadline, _read_validators)

    def _with_retries(self, log: Log, attempt: Callable[[float], Result]) -> Result:
        """Return the result of `attempt`, which takes the time by which all attempts must be over."""
        seconds, attempts = self.limits.deadline_seconds, 0
        deadline = time.monotonic() + seconds

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

    def _request(
        self,
        method: str,
        url: str,
        deadline: float,
        read: Callable[[requests.Response, Exchange], Result],
        validators: Validators = NO_VALIDATORS,
    ) -> Result:
        """Return what `read` makes of a good response, unless it is cancelled or takes longer than it may."""
        subject = f"{method} {without_credentials(url)}"
        # Without a content coding, Content-Length counts the bytes of the file itself.
        headers = {"Accept-Encoding": "identity", **validators.as_headers()}

        def exchange_messages(exchange: Exchange) -> Result:
            try:
                with request(method, url, self.timeout_seconds, headers) as response:
                    exchange.response = response
                    _refuse_bad_status(response, method, url, validators)
                    return read(response, exchange)
            except HttpError as error:
                raise SourceError(f"{subject} {error}", error.transient) from None

        try:
            return wait_for(exchange_messages, self.cancelled, self.limits, deadline, self.timeout_seconds)
        except Cancelled:
            raise SourceError(f"{subject} was cancelled.") from None
        except NoAnswer:
            raise SourceError(f"{subject} did not answer within {self.timeout_seconds:g} s.", True) from None
        except DeadlinePassed as error:
            raise SourceError(
                f"{subject} was not complete after {self.limits.deadline_seconds:,g} s: its last attempt "
                f"brought {error}. SERVERLESS_DOWNLOAD_DEADLINE allows more time."
            ) from None
        except TooSlow as error:
            raise SourceError(
                f"{subject} is too slow: {error}, and SERVERLESS_DOWNLOAD_MIN_RATE is "
                f"{self.limits.minimum_rate:,} bytes/s.",
                transient=True,
            ) from None


def table_url(base_url: str, table: str, window: Window | None) -> str:
    """Return the address of a table below `base_url`, whose own query (an access token, say) is kept."""
    parts = urlsplit(base_url)
    query = parse_qsl(parts.query, keep_blank_values=True)
    if window is not None:
        query += [("start", window.start.isoformat()), ("end", window.end.isoformat())]
    path = f"{parts.path.rstrip('/')}/{table}.parquet"
    return urlunsplit(SplitResult(parts.scheme, parts.netloc, path, urlencode(query), ""))


def _refuse_bad_status(response: requests.Response, method: str, url: str, validators: Validators) -> None:
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
    advice = {
        404: " The source has no such table there: check SERVERLESS_DATASET_URL or dataset_url.",
        401: " Check the credentials in the dataset URL.",
        403: " Check the credentials in the dataset URL.",
        407: " Check the credentials in HTTP_PROXY.",
    }
    raise SourceError(f"{answer}.{advice.get(status, '')}")


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
