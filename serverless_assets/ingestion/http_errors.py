"""What the exceptions of the HTTP client mean, in words without any address."""

import http.client
import re
import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass

import requests
import urllib3.exceptions as urllib3_errors

# What a server or a proxy answers for a while only.
TRANSIENT_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504})

# An exception's own text holds the whole address, password and all: it is never repeated.
CLIENT_ERRORS = (
    requests.RequestException,
    urllib3_errors.HTTPError,
    http.client.HTTPException,
    OSError,
    ValueError,
)


@dataclass(frozen=True)
class Fault:
    """Why there is no answer. `transient`: the same request may succeed a little later."""

    words: str
    transient: bool


def explain(error: BaseException) -> Fault:
    """The fault that an exception of the HTTP client stands for, its innermost cause first."""
    causes = list(_causes(error))

    def has(*kinds: type[BaseException]) -> bool:
        return any(isinstance(cause, kinds) for cause in causes)

    if has(urllib3_errors.ProxyError):
        return _of_proxy(causes)
    for cause in causes:
        if isinstance(cause, ssl.SSLError):
            return _of_tls(cause)
        if isinstance(cause, socket.gaierror):
            return Fault("its host name cannot be resolved", cause.errno == socket.EAI_AGAIN)
    if has(urllib3_errors.DecodeError):
        return Fault("the body is not in the encoding that its Content-Encoding says", False)
    # A NewConnectionError, of a connection that was refused, is a ConnectTimeoutError by its class alone.
    if has(TimeoutError, requests.Timeout, urllib3_errors.ReadTimeoutError):
        return Fault("no answer in time", True)
    if has(http.client.RemoteDisconnected):
        return Fault("the connection was closed without an answer", True)
    if has(urllib3_errors.IncompleteRead, http.client.IncompleteRead):
        return Fault("the connection was cut in the middle of the file", True)
    if has(ConnectionResetError, BrokenPipeError):
        return Fault("the connection was reset", True)
    if has(http.client.HTTPException, urllib3_errors.InvalidHeader):
        return _of_malformed(causes)
    if has(urllib3_errors.LocationValueError, requests.exceptions.InvalidURL, UnicodeError):
        # `request` has checked the address itself.
        return Fault("the proxy that HTTP_PROXY, HTTPS_PROXY or ALL_PROXY names is not an address", False)
    return _of_connection(error, causes)


def _of_proxy(causes: list[BaseException]) -> Fault:
    # A CONNECT that was refused has no type of its own, but the text "Tunnel connection failed: 407 ...".
    said = [
        found[1] for cause in causes if (found := re.search(r"Tunnel connection failed: (\d{3})", str(cause)))
    ]
    if said:
        return Fault(
            f"the proxy refused the connection with status {said[0]}", int(said[0]) in TRANSIENT_STATUS
        )
    return Fault("the proxy that HTTP_PROXY, HTTPS_PROXY or ALL_PROXY names cannot be reached", True)


def _of_tls(error: ssl.SSLError) -> Fault:
    if isinstance(error, ssl.SSLCertVerificationError):
        return Fault(
            f"its TLS certificate could not be verified ({error.verify_message}). "
            "REQUESTS_CA_BUNDLE names a file of other authorities to trust",
            False,
        )
    if isinstance(error, ssl.SSLEOFError | ssl.SSLZeroReturnError):
        return Fault("the connection was closed in the middle of TLS", True)
    reason = (error.reason or "unknown reason").replace("_", " ").lower()
    return Fault(f"there is no TLS connection ({reason})", False)


def _of_malformed(causes: list[BaseException]) -> Fault:
    if any(isinstance(cause, urllib3_errors.InvalidHeader) for cause in causes):
        return Fault("the answer has contradictory Content-Length headers", False)
    if any(isinstance(cause, http.client.LineTooLong) or "100 headers" in str(cause) for cause in causes):
        return Fault("the headers of the answer are too long", False)
    return Fault("the answer is not HTTP/1.1: is another service at this port?", False)


def _of_connection(error: BaseException, causes: list[BaseException]) -> Fault:
    if isinstance(error, requests.exceptions.InvalidSchema):
        return Fault("it needs a proxy or a scheme that is not supported", False)
    if type(error) is OSError and "TLS" in str(error):
        # The exception has no number and no type of its own.
        return Fault("REQUESTS_CA_BUNDLE or CURL_CA_BUNDLE names a file that does not exist", False)
    reasons = [cause.strerror for cause in causes if isinstance(cause, OSError) and cause.strerror]
    if reasons:
        return Fault(f"no connection ({reasons[-1].lower()})", True)
    if isinstance(error, requests.ConnectionError | urllib3_errors.ProtocolError):
        return Fault("no connection", True)
    # A mistake in the request stays one.
    return Fault(f"the request cannot be made ({type(error).__name__})", False)


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The exception and all that it wraps: as its arguments, its `reason`, or what it was raised from."""
    waiting, visited = [error], set[int]()
    while waiting:
        cause = waiting.pop(0)
        if id(cause) in visited:
            continue
        visited.add(id(cause))
        yield cause
        wrapped = (*cause.args, getattr(cause, "reason", None), cause.__cause__, cause.__context__)
        waiting += [each for each in wrapped if isinstance(each, BaseException)]
