"""Fetch a table's parquet file over HTTP: streamed to disk, complete, or an error that says why not."""

import hashlib
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from typing import TypeVar
from urllib.parse import SplitResult, parse_qsl, urlencode, urlsplit, urlunsplit

import requests
from tenacity import RetryCallState, Retrying, retry_if_exception_type
from tenacity.nap import sleep_using_event
from tenacity.stop import stop_after_attempt, stop_when_event_set
from tenacity.wait import wait_exponential_jitter
from urllib3.exceptions import ReadTimeoutError

from serverless_assets.errors import ToldError
from serverless_assets.ingestion.validators import NO_VALIDATORS, Validators
from serverless_assets.ingestion.window import Window

CHUNK_BYTES = 1 << 20
PARQUET_MAGIC = b"PAR1"
TRANSIENT_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504})
# What a server answers that knows GET alone.
NO_HEAD = frozenset({405, 501})
# A server may ask for any pause; a run should not sleep for an hour because of one header.
LONGEST_PAUSE_SECONDS = 60.0

Log = Callable[[str], None]
Answer = TypeVar("Answer")


class SourceError(ToldError):
    """The source cannot give this table: asking again will not help."""


class TransientSourceError(SourceError):
    """The source did not answer as it should, but may do so when asked again."""

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


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

    def request_key(self, table: str, window: Window | None) -> str:
        """A name for what `fetch` asks: the same source, table and window. It gives no secret away."""
        url = table_url(self.identity or self.base_url, table, window)
        return hashlib.sha256(url.encode()).hexdigest()[:16]

    def fetch(self, table: str, window: Window | None, path: Path, log: Log) -> Download:
        """Write the table's parquet file to `path`.

        A window is asked for with `start` and `end`; a server is free to ignore it. Setting
        `cancelled` ends a pause or a transfer at once.

        Raises:
            SourceError: the source cannot give the table, or did not within the attempts.
        """
        found = self.fetch_if_modified(table, window, path, log, NO_VALIDATORS)
        assert isinstance(found, Download)
        return found

    def fetch_if_modified(
        self, table: str, window: Window | None, path: Path, log: Log, held: Validators
    ) -> Download | NotModified:
        """As `fetch`, unless the source says that its answer is still the one with the validators `held`."""
        url, started = table_url(self.base_url, table, window), time.monotonic()
        answer = self._patiently(log, lambda: self._fetch_once(url, path, held))
        shown, seconds = without_credentials(url), time.monotonic() - started
        return Download(path, shown, answer[0], seconds, answer[1]) if answer else NotModified(shown, seconds)

    def validators(self, table: str, window: Window | None) -> Validators:
        """What the source calls its answer now; none of it is downloaded.

        Raises:
            SourceError: the source cannot give the table, or did not within the attempts.
        """
        url = table_url(self.base_url, table, window)
        return self._patiently(lambda line: None, lambda: self._validators_once(url))

    def probe(self, table: str) -> None:
        """Ask for the table once, and for the head of the answer only.

        Raises:
            SourceError: the source cannot give the table, or not now.
        """
        with self._answer(table_url(self.base_url, table, None), NO_VALIDATORS):
            pass

    def _patiently(self, log: Log, ask: Callable[[], Answer]) -> Answer:
        retrying = Retrying(
            retry=retry_if_exception_type(TransientSourceError),
            stop=stop_after_attempt(self.attempts) | stop_when_event_set(self.cancelled),
            sleep=sleep_using_event(self.cancelled),
            wait=self._pause,
            before_sleep=lambda state: log(_retry_message(state, self.attempts)),
            reraise=True,
        )
        try:
            return retrying(ask)
        except TransientSourceError as error:
            raise SourceError(f"{error} Gave up after {self.attempts} attempts.") from None

    def _validators_once(self, url: str) -> Validators:
        with self._answer(url, NO_VALIDATORS, "HEAD") as response:
            if response.status_code not in NO_HEAD:
                return Validators.of(response.headers)
        with self._answer(url, NO_VALIDATORS) as response:
            return Validators.of(response.headers)

    def _fetch_once(self, url: str, path: Path, held: Validators) -> tuple[int, Validators] | None:
        """The size of the file and its validators; None if the answer is that of `held`."""
        with self._answer(url, held) as response:
            if response.status_code == requests.codes.not_modified:
                return None
            size = _write_body(response, path, self.cancelled)
        content_type = response.headers.get("Content-Type", "")
        _refuse_other_than_parquet(path, size, without_credentials(url), content_type)
        return size, Validators.of(response.headers)

    @contextmanager
    def _answer(self, url: str, held: Validators, method: str = "GET") -> Iterator[requests.Response]:
        """A good answer, whose body is still to be read; what goes wrong then is told in words too."""
        shown = without_credentials(url)
        try:
            # Without a content coding, Content-Length counts the bytes of the file itself.
            with requests.request(
                method,
                url,
                stream=True,
                timeout=self.timeout_seconds,
                headers={"Accept-Encoding": "identity", **held.as_headers()},
            ) as response:
                if method == "GET" or response.status_code not in NO_HEAD:
                    _refuse_bad_status(response, method, shown, held)
                yield response
        except requests.Timeout:
            raise TransientSourceError(
                f"{method} {shown} did not answer within {self.timeout_seconds:g} s."
            ) from None
        except requests.exceptions.InvalidURL:
            raise SourceError(f"{shown} is not an address that can be asked.") from None
        except requests.RequestException as error:
            # The exception's own text holds the whole address, password and all: only its kind is told.
            raise TransientSourceError(f"{method} {shown} failed: {_in_words(error)}.") from None

    def _pause(self, state: RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        asked = error.retry_after if isinstance(error, TransientSourceError) else None
        backoff = wait_exponential_jitter(
            initial=self.first_pause_seconds, max=self.longest_pause_seconds, jitter=self.first_pause_seconds
        )
        return backoff(state) if asked is None else min(asked, self.longest_pause_seconds)


def table_url(base_url: str, table: str, window: Window | None) -> str:
    """The address of a table below `base_url`, whose own query (an access token, say) is kept."""
    parts = urlsplit(base_url)
    query = parse_qsl(parts.query, keep_blank_values=True)
    if window is not None:
        query += [("start", window.start.isoformat()), ("end", window.end.isoformat())]
    path = f"{parts.path.rstrip('/')}/{table}.parquet"
    return urlunsplit(SplitResult(parts.scheme, parts.netloc, path, urlencode(query), ""))


def without_credentials(url: str) -> str:
    """`url` without user, password and query, any of which may be a secret."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit(SplitResult(parts.scheme, host, parts.path, "", ""))


def _refuse_bad_status(response: requests.Response, method: str, shown: str, held: Validators) -> None:
    status = response.status_code
    if status == requests.codes.ok or (held and status == requests.codes.not_modified):
        return
    said = f"{method} {shown} answered {status} {response.reason}."
    if status in TRANSIENT_STATUS:
        raise TransientSourceError(said, _retry_after(response))
    if status == requests.codes.not_found:
        raise SourceError(
            f"{said} The source has no such table there: check SERVERLESS_DATASET_URL or dataset_url."
        )
    if status in (requests.codes.unauthorized, requests.codes.forbidden):
        raise SourceError(f"{said} Check the credentials in the dataset URL.")
    raise SourceError(said)


def _write_body(response: requests.Response, path: Path, cancelled: Event) -> int:
    size = 0
    with path.open("wb") as file:
        for chunk in response.iter_content(CHUNK_BYTES):
            if cancelled.is_set():
                raise SourceError("Cancelled.")
            file.write(chunk)
            size += len(chunk)
    return size


def _refuse_other_than_parquet(path: Path, size: int, shown: str, content_type: str) -> None:
    with path.open("rb") as file:
        head = file.read(len(PARQUET_MAGIC))
        file.seek(max(0, size - len(PARQUET_MAGIC)))
        tail = file.read()
    if head != PARQUET_MAGIC:
        kind = content_type.partition(";")[0] or "no content type"
        raise SourceError(
            f"GET {shown} answered {size:,} bytes that are not parquet ({kind}). "
            "Does the address lead to a login or error page?"
        )
    if tail != PARQUET_MAGIC:
        # A server that closes early without a Content-Length looks like a complete answer.
        raise TransientSourceError(f"GET {shown} broke off: the parquet file has no end.")


def _retry_after(response: requests.Response) -> float | None:
    value = response.headers.get("Retry-After", "")
    return float(value) if value.isdecimal() else None


def _in_words(error: requests.RequestException) -> str:
    if isinstance(error, requests.exceptions.SSLError):
        return "its TLS certificate could not be verified"
    if isinstance(error, requests.exceptions.ChunkedEncodingError):
        return "the connection was cut in the middle of the file"
    if isinstance(error, requests.ConnectionError):
        stalled = error.args and isinstance(error.args[0], ReadTimeoutError)
        return "the file stopped coming" if stalled else "no connection"
    return type(error).__name__


def _retry_message(state: RetryCallState, attempts: int) -> str:
    error = state.outcome.exception() if state.outcome else None
    pause = state.next_action.sleep if state.next_action else 0.0
    return f"{error} Attempt {state.attempt_number} of {attempts}; asking again in {pause:.1f} s."
