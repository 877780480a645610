"""Why a request has no answer, which faults pass, and trying again after those."""

import http.client
import math
import re
import socket
import ssl
from collections.abc import Callable
from threading import Event
from typing import TypeVar

import requests
import urllib3.exceptions as urllib3_errors
from tenacity import RetryCallState, Retrying, retry_if_exception
from tenacity.nap import sleep_using_event
from tenacity.stop import stop_after_attempt, stop_before_delay, stop_when_event_set
from tenacity.wait import wait_exponential_jitter

from serverless_assets.errors import UserError

# A server may ask for any pause; a run should not sleep for an hour because of one header.
LONGEST_PAUSE_SECONDS = 60.0
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
# Causes of a missing answer, and whether the same request may succeed a little later. The first that fits
# counts: a NewConnectionError, of a connection that was refused, is a ConnectTimeoutError by its class alone.
FAULTS: tuple[tuple[tuple[type[BaseException], ...], str, bool], ...] = (
    (
        (urllib3_errors.DecodeError,),
        "the body is not in the encoding that its Content-Encoding says",
        False,
    ),
    ((TimeoutError, requests.Timeout, urllib3_errors.ReadTimeoutError), "no answer in time", True),
    ((http.client.RemoteDisconnected,), "the connection was closed without an answer", True),
    (
        (urllib3_errors.IncompleteRead, http.client.IncompleteRead),
        "the connection was cut in the middle of the file",
        True,
    ),
    ((ConnectionResetError, BrokenPipeError), "the connection was reset", True),
    ((urllib3_errors.InvalidHeader,), "the answer has contradictory Content-Length headers", False),
    ((http.client.LineTooLong,), "the headers of the answer are too long", False),
)

Result = TypeVar("Result")


def call_with_retries(
    attempt: Callable[[], Result],
    attempts: int,
    first_pause_seconds: float,
    longest_pause_seconds: float = LONGEST_PAUSE_SECONDS,
    deadline_seconds: float = math.inf,
    cancelled: Event | None = None,
    log: Callable[[str], object] = lambda line: None,
) -> Result:
    """Return the result of `attempt`, made again after a transient `UserError`; the last one is raised.

    The pause doubles from `first_pause_seconds` on, with up to as much more by chance. It is at least what
    the server asks for, and at most `longest_pause_seconds`.

    Args:
        deadline_seconds: no attempt begins later than this after the first.
        cancelled: setting it ends a pause, and prevents another attempt.
        log: takes a line before the first pause; the error that is raised at the end counts the attempts.
    """
    cancelled = cancelled or Event()
    backoff = wait_exponential_jitter(
        initial=first_pause_seconds, max=longest_pause_seconds, jitter=first_pause_seconds
    )

    def pause(state: RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        asked = error.retry_after if isinstance(error, UserError) else None
        return max(backoff(state), min(asked or 0.0, longest_pause_seconds))

    def before_pause(state: RetryCallState) -> None:
        if state.attempt_number == 1 and state.outcome and state.next_action:
            seconds = state.next_action.sleep
            log(f"{state.outcome.exception()} Attempt 1 of {attempts}; asking again in {seconds:.1f} s.")

    retrying = Retrying(
        retry=retry_if_exception(lambda error: isinstance(error, UserError) and error.transient),
        stop=stop_after_attempt(attempts)
        | stop_when_event_set(cancelled)
        | stop_before_delay(deadline_seconds),
        sleep=sleep_using_event(cancelled),
        wait=pause,
        before_sleep=before_pause,
        reraise=True,
    )
    return retrying(attempt)


def explain(error: BaseException) -> tuple[str, bool]:
    """Return why an exception of the client means that there is no answer, and whether it is transient.

    The text has no address in it.
    """
    causes = _causes(error)
    if any(isinstance(cause, urllib3_errors.ProxyError) for cause in causes):
        # A CONNECT that was refused has no type of its own, but this text.
        for cause in causes:
            if status := re.search(r"Tunnel connection failed: (\d{3})", str(cause)):
                reason = f"the proxy refused the connection with status {status[1]}"
                return reason, int(status[1]) in TRANSIENT_STATUS
        return "the proxy that HTTP_PROXY, HTTPS_PROXY or ALL_PROXY names cannot be reached", True
    for cause in causes:
        if isinstance(cause, ssl.SSLError):
            return _explain_tls(cause)
        if isinstance(cause, socket.gaierror):
            return "its host name cannot be resolved", cause.errno == socket.EAI_AGAIN
    for kinds, reason, transient in FAULTS:
        if any(isinstance(cause, kinds) for cause in causes):
            return reason, transient
    if any(isinstance(cause, http.client.HTTPException) for cause in causes):
        if any("100 headers" in str(cause) for cause in causes):
            return "the headers of the answer are too long", False
        return "the answer is not HTTP/1.1: is another service at this port?", False
    return _explain_connection(error, causes)


def _explain_tls(error: ssl.SSLError) -> tuple[str, bool]:
    if isinstance(error, ssl.SSLCertVerificationError):
        return (
            f"its TLS certificate could not be verified ({error.verify_message}). "
            "REQUESTS_CA_BUNDLE names a file of other authorities to trust"
        ), False
    if isinstance(error, ssl.SSLEOFError | ssl.SSLZeroReturnError):
        return "the connection was closed in the middle of TLS", True
    reason = (error.reason or "unknown reason").replace("_", " ").lower()
    return f"there is no TLS connection ({reason})", False


def _explain_connection(error: BaseException, causes: list[BaseException]) -> tuple[str, bool]:
    not_an_address = (urllib3_errors.LocationValueError, requests.exceptions.InvalidURL, UnicodeError)
    if any(isinstance(cause, not_an_address) for cause in causes):
        # `request` has checked the address itself.
        return "the proxy that HTTP_PROXY, HTTPS_PROXY or ALL_PROXY names is not an address", False
    if isinstance(error, requests.exceptions.InvalidSchema):
        return "it needs a proxy or a scheme that is not supported", False
    if type(error) is OSError and "TLS" in str(error):
        # The exception has no number and no type of its own.
        return "REQUESTS_CA_BUNDLE or CURL_CA_BUNDLE names a file that does not exist", False
    reasons = [cause.strerror for cause in causes if isinstance(cause, OSError) and cause.strerror]
    if reasons:
        return f"no connection ({reasons[-1].lower()})", True
    if isinstance(error, requests.ConnectionError | urllib3_errors.ProtocolError):
        return "no connection", True
    # A mistake in the request stays one.
    return f"the request cannot be made ({type(error).__name__})", False


def _causes(error: BaseException) -> list[BaseException]:
    """Return the exception and all that it wraps: its arguments, its `reason`, what it was raised from."""
    causes, waiting = dict[int, BaseException](), [error]
    while waiting:
        cause = waiting.pop(0)
        if id(cause) not in causes:
            causes[id(cause)] = cause
            wrapped = (*cause.args, getattr(cause, "reason", None), cause.__cause__, cause.__context__)
            waiting += [item for item in wrapped if isinstance(item, BaseException)]
    return list(causes.values())
