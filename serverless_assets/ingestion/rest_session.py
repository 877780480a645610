"""The requests for the pages of a REST API, made within the limits of the source.

dlt's RESTClient sends its requests through a session, which this one stands in for: with the deadline,
attempts, pace, cancellation, proxies and redirects of every other request.
"""

import json
import time
from collections.abc import Callable, Mapping
from decimal import Decimal
from functools import cached_property
from pathlib import Path
from tempfile import SpooledTemporaryFile
from typing import Any

import requests
from dlt.sources.helpers.rest_client import auth
from requests.structures import CaseInsensitiveDict

from serverless_assets.addresses import may_have_credentials, without_credentials
from serverless_assets.ingestion import http
from serverless_assets.ingestion.http import NO_VALIDATORS, Validators, printable
from serverless_assets.ingestion.http_client import (
    Exchange,
    HttpClient,
    Log,
    MissingTable,
    SourceError,
    Unauthorized,
)
from serverless_assets.ingestion.raw_table import RawTable
from serverless_assets.ingestion.rest_endpoint import OAuth2, Secret, SecretError

AUTHENTICATIONS: Mapping[str, Callable[..., auth.AuthConfigBase]] = {
    "bearer": auth.BearerTokenAuth,
    "api_key": auth.APIKeyAuth,
    "http_basic": auth.HttpBasicAuth,
    "oauth2_client_credentials": auth.OAuth2ClientCredentials,
}
MEDIA_TYPES = {"json": "application/json", "csv": "text/csv"}
# What Python makes of JSON takes several times its size.
MEMORY_OF_JSON = 8
# A longer body waits on disk.
BYTES_IN_MEMORY = 1 << 23


class NotModifiedAnswer(Exception):
    """The API answered that no row has changed."""


class Page(requests.Response):
    """A page of the API, complete in memory or on disk. Its numbers stay as they are written."""

    @cached_property
    def body(self) -> Any:
        try:
            return json.loads(self.raw.read(), parse_float=Decimal)
        except (ValueError, RecursionError):
            kind = printable(self.headers.get("Content-Type", "").partition(";")[0]) or "no content type"
            raise SourceError(
                f"{self.request.method} {without_credentials(self.url)} answered {self.raw.tell():,} bytes "
                f"that are not JSON ({kind}). Does the address lead to a login or error page?"
            ) from None

    def json(self, **kwargs: Any) -> Any:
        return self.body


class PageSession(requests.Session):
    """The requests of dlt for one table, made within the limits of the source.

    received: bytes; validators: those of an answer that has all rows.
    """

    def __init__(
        self,
        client: HttpClient,
        url: str,
        table: RawTable,
        scratch: Path,
        log: Log,
        conditions: Validators = NO_VALIDATORS,
    ) -> None:
        super().__init__()
        assert table.rest is not None
        self.client, self.url, self.endpoint = client, url, table.rest
        self.scratch, self.log = scratch, log
        self.deadline = time.monotonic() + client.limits.deadline_seconds
        # The first page's would say nothing of the others.
        self.conditions = NO_VALIDATORS if self.endpoint.paginator else conditions
        self.validators, self.received, self.requested = NO_VALIDATORS, 0, set[str]()
        self.authentication = self._authentication(table)
        self.headers["Accept"] = MEDIA_TYPES[self.endpoint.format]
        self.headers["Accept-Encoding"] = "gzip, deflate"
        # ~/.netrc is not read; proxies and authorities are those of `connections`.
        self.trust_env = False
        self.connections = http.Session()

    def close(self) -> None:
        self.connections.close()

    def send(self, request: requests.PreparedRequest, **kwargs: Any) -> Page:
        if request.method != "GET":
            return self._request_token(request)
        url = str(request.url)
        if not may_have_credentials(self.url, url):
            raise SourceError(
                f"GET {without_credentials(self.url)} leads to a next page on another host, "
                f"{without_credentials(url)}, which is not asked."
            )
        if url in self.requested:
            raise SourceError(
                f"GET {without_credentials(url)} leads back to a page that there was before: its next pages "
                "have no end. Check the `paginator`."
            )
        self.requested.add(url)
        longest = None if self.endpoint.format == "csv" else self._longest_json
        try:
            page = self._send(request, longest, self.conditions)
        except Unauthorized:
            if not isinstance(self.authentication, auth.OAuth2ClientCredentials):
                raise
            self.log(f"{without_credentials(url)} does not accept the token any more: it is renewed.")
            self.authentication.access_token = None
            page = self._send(self.authentication(request), longest, self.conditions)
        if page.status_code == requests.codes.not_modified:
            raise NotModifiedAnswer
        if not self.endpoint.paginator:
            self.validators = Validators.of(page.headers)
        return page

    def _request_token(self, request: requests.PreparedRequest) -> Page:
        try:
            page = self._send(request, self._longest_json)
        except MissingTable as error:
            raise SourceError(str(error)) from None
        if not isinstance(page.body, dict) or not page.body.get("access_token"):
            raise SourceError(f"POST {without_credentials(page.url)} answered without an access_token.")
        return page

    def _send(
        self, request: requests.PreparedRequest, longest: int | None, conditions: Validators = NO_VALIDATORS
    ) -> Page:
        """Return the complete answer to a request, of at most `longest` bytes."""
        subject = f"{request.method} {without_credentials(str(request.url))}"
        per_minute = self.endpoint.requests_per_minute

        def attempt(deadline: float) -> Page:
            # A file of its own: the thread of an attempt that was abandoned may still write to its.
            file: Any = SpooledTemporaryFile(BYTES_IN_MEMORY, dir=str(self.scratch))  # noqa: SIM115

            def save(response: requests.Response, exchange: Exchange) -> requests.Response:
                for chunk in http.read_body(response):
                    file.write(chunk)
                    exchange.received += len(chunk)
                    if longest and exchange.received > longest:
                        raise SourceError(
                            f"{subject} answered a page of more than {longest:,} bytes. Ask for smaller "
                            "pages, by the `limit` of `paginator` or by `params`; SERVERLESS_LOAD_MEMORY "
                            "allows more."
                        )
                return response

            answer = self.client.request(
                str(request.method),
                str(request.url),
                deadline,
                save,
                conditions,
                self._advice(request),
                60 / per_minute if per_minute else 0.0,
                credentials=dict(request.headers),
                data=request.body,
                session=self.connections,
                # A request for a token has the secret in its body.
                follow=request.method == "GET",
            )
            page = Page()
            page.status_code, page.headers = answer.status_code, CaseInsensitiveDict(answer.headers)
            page.url, page.request, page.raw = str(request.url), request, file
            self.received += file.tell()
            file.seek(0)
            return page

        return self.client.with_retries(self.log, attempt, self.deadline)

    @property
    def _longest_json(self) -> int:
        return self.client.limits.memory_mib * (1 << 20) // MEMORY_OF_JSON

    def _authentication(self, table: RawTable) -> auth.AuthConfigBase | None:
        options = dict(self.endpoint.auth or {})
        if not options:
            return None
        kind = options.pop("type")
        try:
            values = {
                name: value.read() if isinstance(value, Secret) else value for name, value in options.items()
            }
        except SecretError as problem:
            raise SourceError(f"The `auth` of {table.name} cannot be used: {problem}.") from None
        if isinstance(self.endpoint.auth, OAuth2):
            values["session"] = self
        return AUTHENTICATIONS[kind](**values)

    def _advice(self, request: requests.PreparedRequest) -> Mapping[int, str]:
        """Return what to do about a status."""
        secrets = [str(value) for _, value in self.endpoint.auth or () if isinstance(value, Secret)]
        if request.method != "GET":
            refused = f"Check the client_id and client_secret ({', '.join(secrets)}) of `auth`."
            return {**dict.fromkeys((400, 401, 403), refused), 404: "Check the access_token_url of `auth`."}
        refused = (
            f"The API does not accept the credentials in {' and '.join(secrets)}: check that they are "
            "complete, have not expired, and allow to read this address."
            if secrets
            else "The API asks for authentication: `auth` under `rest`, or `add-table URL --token VARIABLE`."
        )
        where = (
            "the `url` of `rest`" if self.endpoint.url else "SERVERLESS_DATASET_URL and the table's `path`"
        )
        missing = (
            f"The API has no such address: check {where}. With `optional: true`, a run does without it."
            if len(self.requested) == 1
            else "The API has no such page: check the `paginator`. If it answers so after the last page, "
            "a `total_path`, `has_more_path` or `json_link` says which is the last."
        )
        return {401: refused, 403: refused, 404: missing, 410: missing}
