"""One HTTP request as this project makes it: addresses, proxies, credentials and redirects.

- Proxies and certificate authorities are those of the environment (HTTP_PROXY, HTTPS_PROXY, ALL_PROXY,
  NO_PROXY, REQUESTS_CA_BUNDLE). This machine itself is never asked through a proxy.
- Credentials are those of the URL, and ~/.netrc is not read. A redirect to another host does not get them.
- Redirects are followed to http and https, and not from https to http.
"""

import ipaddress
import logging
import re
from base64 import b64encode
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import SplitResult, unquote, urljoin, urlsplit, urlunsplit

import requests
from urllib3.exceptions import ReadTimeoutError

from serverless_assets.errors import UserError
from serverless_assets.ingestion.http_errors import CLIENT_ERRORS, explain
from serverless_assets.settings import is_http_address

DEFAULT_PORTS = {"http": 80, "https": 443}
MAX_REDIRECTS = 10
REDIRECTS = frozenset({301, 302, 303, 307, 308})
READ_BYTES = 1 << 20
# The encodings that the client decodes although none is asked for: some servers compress whatever is asked.
DECODED = frozenset({"", "identity", "gzip", "x-gzip", "deflate"})

# It logs the whole address, token and all, of an answer with a malformed header.
logging.getLogger("urllib3.connection").setLevel(logging.ERROR)


class HttpError(UserError):
    """No usable answer. The message is a predicate without any address, such as "failed: no connection."."""

    def __init__(self, message: str, transient: bool = False) -> None:
        super().__init__(message)
        self.transient = transient


class _Session(requests.Session):
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
) -> Iterator[requests.Response]:
    """Yield the response to a request, whatever its status; its body is still to be read.

    Args:
        timeout_seconds: for the connection, and for each wait for more bytes.
        follow: whether to follow redirects.

    Raises:
        HttpError: there is no answer.
    """
    if not is_http_address(url):
        raise HttpError("failed: it is not an address that can be asked.")
    with _Session() as session:
        target, authorization = split_credentials(url)
        where = ""
        for _ in range(MAX_REDIRECTS + 1):
            sent = {**(headers or {}), **({"Authorization": authorization} if authorization else {})}
            try:
                response = session.request(
                    method,
                    target,
                    headers=sent,
                    json=json,
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
            authorization = own or (authorization if may_have_credentials(target, bare) else None)
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
        except (ReadTimeoutError, TimeoutError):
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


def without_credentials(url: str) -> str:
    """Return `url` without user, password and query, any of which may be a secret."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit(SplitResult(parts.scheme, host, parts.path, "", ""))


def split_credentials(url: str) -> tuple[str, str | None]:
    """Return `url` without user and password, and the Authorization header that stands for them."""
    parts = urlsplit(url)
    userinfo, at, host = parts.netloc.rpartition("@")
    bare = urlunsplit(parts._replace(netloc=host))
    if not at:
        return bare, None
    user, _, password = userinfo.partition(":")
    token = b64encode(f"{unquote(user)}:{unquote(password)}".encode()).decode()
    return bare, f"Basic {token}"


def is_loopback(url: str) -> bool:
    """Whether the host of `url` is this machine."""
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def redirect_target(url: str, location: str) -> str:
    """Return the absolute address that an answer of `url` with the header `Location: {location}` leads to.

    Raises:
        ValueError: it is not to be followed; the message ends the sentence "It redirects to ...".
    """
    try:
        # http.client reads headers as Latin-1; servers send UTF-8.
        target = urljoin(url, location.strip().encode("latin-1").decode("utf-8", "replace"))
        scheme = urlsplit(target).scheme
    except ValueError:
        raise ValueError("an address that cannot be parsed") from None
    if scheme not in DEFAULT_PORTS:
        raise ValueError(f"an address of the scheme {scheme[:20]!r}; allowed are http and https")
    if not is_http_address(target):
        raise ValueError("an address whose host or port is not valid")
    if scheme == "http" and urlsplit(url).scheme == "https":
        raise ValueError(f"{without_credentials(target)}, which is not encrypted as https is")
    return target


def may_have_credentials(origin: str, target: str) -> bool:
    """Whether the credentials for `origin` may be sent to `target`, to which it redirects."""
    (from_scheme, from_host, from_port), (scheme, host, port) = (
        (parts.scheme, parts.hostname or "", parts.port or DEFAULT_PORTS[parts.scheme])
        for parts in map(urlsplit, (origin, target))
    )
    is_upgrade = (from_scheme, from_port, scheme, port) == ("http", 80, "https", 443)
    return host == from_host and (is_upgrade or (scheme, port) == (from_scheme, from_port))


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
