"""One HTTP request as this project makes it: proxies, credentials and redirects are decided here.

- Proxies and certificate authorities are those of the environment (HTTP_PROXY, HTTPS_PROXY, ALL_PROXY,
  NO_PROXY, REQUESTS_CA_BUNDLE). This machine itself is never asked through a proxy.
- Credentials are those of the URL, and ~/.netrc is not read. A redirect to another host does not get them.
- Redirects are followed to http and https, and not from https to http.
"""

import logging
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from typing import Any

import requests
from urllib3.exceptions import ReadTimeoutError

from serverless_assets.errors import UserError
from serverless_assets.ingestion.addresses import (
    is_loopback,
    may_have_credentials,
    redirect_target,
    split_credentials,
    without_credentials,
)
from serverless_assets.ingestion.http_errors import CLIENT_ERRORS, explain
from serverless_assets.variables import is_http_address

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
    def get_redirect_target(self, resp: requests.Response) -> None:
        """Follow no redirect: `request` does, and refuses what is not to be followed."""

    def merge_environment_settings(self, url: Any, *args: Any, **kwargs: Any) -> Any:
        """As the environment says, but without a proxy for this machine."""
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
    """The answer to a request, whatever its status; its body is still to be read.

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
            with closing(_send(session, method, target, sent, json, timeout_seconds, where)) as response:
                location = response.headers.get("Location")
                if not (follow and location and response.status_code in REDIRECTS):
                    yield response
                    return
            try:
                after = redirect_target(target, location)
            except ValueError as error:
                raise HttpError(f"{where}redirects to {error}.") from None
            bare, own = split_credentials(after)
            authorization = own or (authorization if may_have_credentials(target, bare) else None)
            target = bare
            where = f"redirects to {without_credentials(target)}, which "
        raise HttpError(f"redirects more than {MAX_REDIRECTS} times.")


def read_body(response: requests.Response) -> Iterator[bytes]:
    """The body, as soon as any of it arrives.

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
            fault = explain(error)
            raise HttpError(f"failed: {fault.words}.", fault.transient) from None
        if not chunk:
            return
        yield chunk


def printable(text: str, longest: int = 60) -> str:
    """What a server sent, short and without control characters, to be part of a sentence."""
    shown = "".join(character for character in text if character.isprintable())
    return shown if len(shown) <= longest else f"{shown[:longest]}…"


def _send(
    session: requests.Session,
    method: str,
    url: str,
    headers: Mapping[str, str],
    json: object,
    timeout_seconds: float,
    where: str,
) -> requests.Response:
    try:
        return session.request(
            method,
            url,
            headers=headers,
            json=json,
            stream=True,
            timeout=timeout_seconds,
            allow_redirects=False,
            # Without one of its own, requests looks into ~/.netrc.
            auth=lambda prepared: prepared,
        )
    except (requests.Timeout, TimeoutError):
        raise HttpError(f"{where}did not answer within {timeout_seconds:g} s.", transient=True) from None
    except CLIENT_ERRORS as error:
        fault = explain(error)
        raise HttpError(f"{where}failed: {fault.words}.", fault.transient) from None
