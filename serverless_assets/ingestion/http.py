"""One HTTP request as this project makes it: proxies, credentials, redirects, errors and validators.

- Proxies and certificate authorities are those of the environment (HTTP_PROXY, HTTPS_PROXY, ALL_PROXY,
  NO_PROXY, REQUESTS_CA_BUNDLE). This machine itself is never asked through a proxy.
- Credentials are those of the URL, and ~/.netrc is not read. A redirect to another host does not get them.
- Redirects are followed to http and https, and not from https to http.
"""

import logging
import re
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import requests
import urllib3.exceptions as urllib3_errors

from serverless_assets.addresses import (
    is_http_address,
    is_loopback,
    may_have_credentials,
    redirect_target,
    split_credentials,
    without_credentials,
)
from serverless_assets.errors import UserError
from serverless_assets.ingestion.http_faults import CLIENT_ERRORS, explain

MAX_REDIRECTS = 10
REDIRECTS = frozenset({301, 302, 303, 307, 308})
READ_BYTES = 1 << 20
# The encodings that the client decodes although none is asked for: some servers compress whatever is asked.
DECODED = frozenset({"", "identity", "gzip", "x-gzip", "deflate"})
# An ETag may be of any length; a table's state has room for what people use.
LONGEST_ETAG = 256

# It logs the whole address, token and all, of an answer with a malformed header.
logging.getLogger("urllib3.connection").setLevel(logging.ERROR)


class HttpError(UserError):
    """No usable answer. The message is a predicate without any address, such as "failed: no connection."."""


class Session(requests.Session):
    """A session without redirects of its own: `request` follows them."""

    def get_redirect_target(self, resp: requests.Response) -> None:
        return None

    def merge_environment_settings(self, url: Any, *args: Any, **kwargs: Any) -> Any:
        """Return the settings of the environment, without a proxy for this machine."""
        settings = super().merge_environment_settings(url, *args, **kwargs)
        return {**settings, "proxies": {}} if is_loopback(str(url)) else settings


@contextmanager
def request(
    method: str,
    url: str,
    timeout_seconds: float,
    headers: Mapping[str, str] | None = None,
    json: object = None,
    follow: bool = True,
    credentials: Mapping[str, str] | None = None,
    data: str | bytes | None = None,
    session: Session | None = None,
) -> Iterator[requests.Response]:
    """Yield the response to a request, whatever its status; its body is still to be read.

    Args:
        timeout_seconds: for the connection, and for each wait for more bytes.
        follow: whether to follow redirects.
        credentials: headers that a redirect to another host does not get.
        session: keeps connections open between requests; without, each has its own. It is a `Session`.

    Raises:
        HttpError: there is no answer.
    """
    if not is_http_address(url):
        raise HttpError("failed: it is not an address that can be asked.")
    with nullcontext(session) if session else Session() as session:
        target, authorization = split_credentials(url)
        secret = {**({"Authorization": authorization} if authorization else {}), **(credentials or {})}
        where = ""
        for _ in range(MAX_REDIRECTS + 1):
            try:
                response = session.request(
                    method,
                    target,
                    headers={**(headers or {}), **secret},
                    json=json,
                    data=data,
                    stream=True,
                    timeout=timeout_seconds,
                    allow_redirects=False,
                    # Without one of its own, requests looks into ~/.netrc.
                    auth=lambda prepared: prepared,
                )
            except (requests.Timeout, TimeoutError):
                raise HttpError(f"{where}did not answer within {timeout_seconds:g} s.", True) from None
            except CLIENT_ERRORS as error:
                reason, transient = explain(error)
                raise HttpError(f"{where}failed: {reason}.", transient) from None
            with closing(response):
                location = response.headers.get("Location")
                if not (follow and location and response.status_code in REDIRECTS):
                    yield response
                    return
            try:
                redirected = redirect_target(target, location)
            except ValueError as error:
                raise HttpError(f"{where}redirects to {error}.") from None
            bare, own = split_credentials(redirected)
            if not may_have_credentials(target, bare):
                secret = {}
            if own:
                secret["Authorization"] = own
            target = bare
            where = f"redirects to {without_credentials(target)}, which "
        raise HttpError(f"redirects more than {MAX_REDIRECTS} times.")


def read_body(response: requests.Response) -> Iterator[bytes]:
    """Yield the body in chunks, as soon as any of it arrives.

    Raises:
        HttpError: it breaks off, or is encoded in a way that nobody asked for.
    """
    encoding = response.headers.get("Content-Encoding", "").strip().lower()
    if encoding not in DECODED:
        raise HttpError(
            f"answered with the Content-Encoding {printable(encoding)!r}, which was not asked for: "
            "serve the file as it is."
        )
    while True:
        try:
            chunk = response.raw.read1(READ_BYTES, decode_content=True)
        except (urllib3_errors.ReadTimeoutError, TimeoutError):
            raise HttpError("failed: the file stopped coming.", transient=True) from None
        except CLIENT_ERRORS as error:
            reason, transient = explain(error)
            raise HttpError(f"failed: {reason}.", transient) from None
        if not chunk:
            return
        yield chunk


def printable(text: str, longest: int = 60) -> str:
    """Return text of a server, shortened and without control characters, to be part of a sentence."""
    cleaned = "".join(character for character in text if character.isprintable())
    return cleaned if len(cleaned) <= longest else f"{cleaned[:longest]}…"


def retry_after_seconds(headers: Mapping[str, str]) -> float | None:
    """Return the seconds to wait that a Retry-After header asks for, as a number or a date; None without one.

    A date is compared with the server's own clock where the answer tells it.
    """
    value = headers.get("Retry-After", "").strip()
    if re.fullmatch(r"[0-9]+(\.[0-9]+)?", value):
        return float(value)
    until = parse_http_date(value)
    if until is None:
        return None
    now = parse_http_date(headers.get("Date", "")) or datetime.now(UTC)
    return max(0.0, (until - now).total_seconds())


def parse_http_date(value: str) -> datetime | None:
    """Return the time that an HTTP header tells; None if it is no date."""
    try:
        date = parsedate_to_datetime(value)
    except (ValueError, TypeError, OverflowError):
        return None
    # "-0000", a time zone that is not known, is read without one: HTTP's dates are in GMT.
    return date if date.tzinfo else date.replace(tzinfo=UTC)


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
