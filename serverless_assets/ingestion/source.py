"""Where the raw tables come from: an address over HTTP, with a parquet file for each table or REST APIs.

A download is complete on disk, unchanged, or an error that says why not.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event
from typing import BinaryIO, Protocol
from urllib.parse import SplitResult, parse_qsl, urlencode, urlsplit, urlunsplit

import requests

from modal_forecast.report.formats import counted
from serverless_assets.addresses import without_credentials
from serverless_assets.hashing import digest
from serverless_assets.ingestion.fetch_result import Download, NotModified
from serverless_assets.ingestion.http import NO_VALIDATORS, Validators, printable, read_body
from serverless_assets.ingestion.http_client import (
    DownloadLimits,
    Exchange,
    HttpClient,
    Log,
    MissingTable,
    SourceError,
)
from serverless_assets.ingestion.raw_table import RawTable
from serverless_assets.months import Window

PARQUET_MAGIC = b"PAR1"
# The magic bytes at both ends, and the length of the footer.
SMALLEST_PARQUET_BYTES = 12
SECONDS_TO_CHECK = 10.0
# The name of a source without an address that all tables share.
OWN_ADDRESSES = "the addresses of the tables (SERVERLESS_DATASET_URL is not set)"


class Source(Protocol):
    """A source that a run opens while it loads."""

    def open(self) -> AbstractContextManager["HttpSource"]:
        """Open the source until the context ends. Whatever it is, it is read over HTTP."""

    @property
    def limits(self) -> DownloadLimits:
        """Return the limits of a download, from this source or from another that a run names."""

    @property
    def name(self) -> str:
        """Return the name to show, without any secret."""

    def lacks(self, table: RawTable) -> bool:
        """Return whether it stands in for another source, and has no such table."""

    def check(self, tables: Sequence[RawTable]) -> str:
        """Return which of the tables the source serves, without loading them.

        Raises:
            SourceError: it cannot be used.
        """


@dataclass(frozen=True)
class HttpSource(HttpClient):
    """A base URL that serves `{table}.parquet`: a REST API, or parquet files behind any web server.

    Without one, the tables are those of REST APIs that have addresses of their own. `identity` names a source
    whose address changes, such as one on a free port.
    """

    base_url: str
    identity: str = ""

    @contextmanager
    def open(self) -> "Iterator[HttpSource]":
        yield replace(self, cancelled=Event())

    @property
    def name(self) -> str:
        return without_credentials(self.base_url) or OWN_ADDRESSES

    def lacks(self, table: RawTable) -> bool:
        return False

    def keeps_address(self, url: str) -> bool:
        """Return whether `url` leads to the same table after the run: not so one on a free port."""
        return not (self.identity and url.startswith(self.base_url))

    def check(self, tables: Sequence[RawTable]) -> str:
        missing = []
        with self.open() as source:
            hasty = replace(source, timeout_seconds=SECONDS_TO_CHECK)
            for table in tables:
                try:
                    hasty.probe(table)
                except MissingTable as error:
                    if not (table.optional or error.is_sample):
                        raise
                    missing.append(table.name)
        if not tables and not self.base_url:
            return "no table is declared yet: `serverless add-table URL` declares one"
        return format_served(tables, missing, "serves" if self.base_url else "serve")

    @property
    def key(self) -> str:
        """Return a hash that identifies the source as a whole."""
        return digest(table_url(self.identity or self.base_url, "", None))

    def key_of(self, table: RawTable) -> str:
        """Return a hash that identifies where the table's rows come from."""
        if table.rest:
            return digest(table.rest.address(self.identity or self.base_url, table.location))
        return self.key

    def request_key(self, table: RawTable, window: Window | None, since: str = "") -> str:
        """Return a hash that identifies a request: the same source, table and window or changes."""
        if table.rest:
            return digest(f"{table.rest.key(self.key_of(table))} {window} {since}")
        return digest(table_url(self.identity or self.base_url, table.location, window, since))

    def fetch(
        self,
        table: RawTable,
        window: Window | None,
        path: Path,
        log: Log,
        validators: Validators = NO_VALIDATORS,
        since: str = "",
        pages: int | None = None,
    ) -> Download | NotModified:
        """Write the table's rows to a parquet file at `path`, unless they are those with these validators.

        Args:
            window: asked for with `start` and `end`, which a server is free to ignore; not of a REST API.
            since: asks only for rows that changed since, which a server is free to ignore.
            pages: how many of a REST API to read at most; None reads all.

        Raises:
            SourceError: the source cannot give the table, or did not within the attempts and limits.
        """
        if table.rest:
            # dlt takes seconds to import.
            from serverless_assets.ingestion.rest import fetch_rows

            return fetch_rows(self, self.base_url, table, path, log, validators, since, pages)
        url, started = table_url(self.base_url, table.location, window, since), time.monotonic()
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

    def validators(self, table: RawTable, window: Window | None) -> Validators:
        """Return the validators of the source's current answer, without its body.

        It is asked by HEAD. Many servers answer that with an error although GET works: then by GET.

        Raises:
            SourceError: the source cannot give the table, or did not within the attempts and limits.
        """
        url = table_url(self.base_url, table.location, window)

        def attempt(deadline: float) -> Validators:
            try:
                return self.request("HEAD", url, deadline, _read_validators)
            except SourceError as error:
                if self.cancelled.is_set() or error.retry_after is not None:
                    raise
            return self.request("GET", url, deadline, _read_validators)

        return self.with_retries(lambda line: None, attempt)

    def probe(self, table: RawTable) -> None:
        """Request the table once, without its body; of a REST API, its first page.

        Raises:
            SourceError: the source cannot give the table, or not now.
        """
        if table.rest:
            with TemporaryDirectory() as folder:
                self.fetch(table, None, Path(folder) / table.name, lambda line: None, pages=1)
            return
        deadline = time.monotonic() + self.limits.deadline_seconds
        self.request("GET", table_url(self.base_url, table.location, None), deadline, _read_validators)


def source_of_run(address: str | None, source: Source) -> Source:
    """Return the source that a run loads from: that of the environment, unless the run names an address."""
    return HttpSource(address, limits=source.limits) if address else source


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


def format_served(tables: Sequence[RawTable], missing: Sequence[str], verb: str = "serves") -> str:
    if not missing:
        return f"{verb} {'' if len(tables) == 1 else 'all '}{counted(len(tables), 'table')}"
    return f"{verb} {len(tables) - len(missing)} of {len(tables)} tables (not {', '.join(missing)})"


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
