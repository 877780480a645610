"""Google's errors in words: what was refused and what to do. Never an address: it may carry a token."""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from google.api_core.exceptions import (
    Forbidden,
    GoogleAPIError,
    NotFound,
    RetryError,
    ServerError,
    TooManyRequests,
    Unauthorized,
)
from google.auth.exceptions import DefaultCredentialsError, GoogleAuthError, TransportError
from requests.exceptions import RequestException

from serverless_assets.errors import UserError

ERRORS = (GoogleAPIError, GoogleAuthError, RequestException)

# Reasons of a refusal that is not one.
PASSING = ("rateLimitExceeded", "backendError", "internalError", "jobRateLimitExceeded")

_LOG_IN = "Run `gcloud auth application-default login`"
_CALL = re.compile(r"^[A-Z]+ https?://\S+: ")


@dataclass(frozen=True)
class Service:
    """A Google service as people meet it when it refuses.

    `roles` is what an account needs to do its work there. `advice` says what to do, by the reason that
    Google gives or by words in its message.
    """

    name: str
    host: str
    roles: str
    advice: Mapping[str, str] = field(default_factory=dict, hash=False)


@contextmanager
def translate_errors(service: Service, subject: str, error_type: type[UserError]) -> Iterator[None]:
    """Raise Google's errors as `error_type`, saying what `subject` was about."""
    try:
        yield
    except ERRORS as error:
        told = error_type(f"{subject}: {explain(error, service)}")
        told.transient = transient(error)
        raise told from error


def transient(error: BaseException) -> bool:
    """Whether Google, asked the same in a while, may answer: it was not reached, or out of order."""
    if isinstance(error, RetryError) and error.cause is not None:
        return transient(error.cause)
    if isinstance(error, (RequestException, TransportError, ServerError, TooManyRequests)):
        return True
    return _first(error).get("reason") in PASSING


def explain(error: BaseException, service: Service) -> str:
    """What went wrong, and what a person can do about it."""
    if isinstance(error, RetryError) and error.cause is not None:
        return explain(error.cause, service)
    if isinstance(error, DefaultCredentialsError):
        return (
            f"there are no Google credentials that work on this machine. {_LOG_IN}, or set "
            "GOOGLE_APPLICATION_CREDENTIALS to the file of a service account."
        )
    if isinstance(error, (RequestException, TransportError)):
        return (
            f"{_host(error) or service.host} cannot be reached ({type(error).__name__}). "
            "Check the network and its proxy, then run again."
        )
    if isinstance(error, (GoogleAuthError, Unauthorized)):
        return f"{service.name} does not take these credentials; they may have expired. {_LOG_IN} again."
    said, advice = _said(error), _advice(error, service)
    if advice:
        return f"{said} {advice}"
    if isinstance(error, Forbidden):
        return f"{service.name} refused: {said} The account needs {service.roles}."
    if isinstance(error, NotFound):
        return f"{said} Check the project, the name and the location in the settings."
    return said


def _advice(error: BaseException, service: Service) -> str | None:
    known = {
        "accessNotConfigured": f"Turn it on with `gcloud services enable {service.host}`.",
        "billingNotEnabled": "Turn billing on for the project.",
        "quotaExceeded": "That is a quota of the project: wait until it is free again, or have it raised.",
        "rateLimitExceeded": "Wait a moment and run again.",
        **service.advice,
    }
    reason, said = str(_first(error).get("reason", "")), _said(error)
    return next((advice for key, advice in known.items() if key == reason or key in said), None)


def _said(error: BaseException) -> str:
    """Google's own sentence: its first line, without the address that was called."""
    message = _first(error).get("message") or getattr(error, "message", str(error))
    lines = _CALL.sub("", str(message)).strip().splitlines() or [type(error).__name__]
    return lines[0].rstrip(". ") + "."


def _first(error: BaseException) -> Mapping[str, object]:
    found = getattr(error, "errors", None) or _answered(error)
    return found[0] if isinstance(found[0], dict) else {}


def _answered(error: BaseException) -> Sequence[Mapping[str, object]]:
    """The errors in Google's answer; uploads do not read them."""
    try:
        body = error.response.json()["error"]  # type: ignore[attr-defined]
        return body.get("errors") or [body]
    except (AttributeError, KeyError, TypeError, ValueError):
        return [{}]


def _host(error: BaseException) -> str | None:
    """The host that was called: the error itself knows, or the one that it was raised for."""
    for candidate in (error, *error.args):
        url = getattr(getattr(candidate, "request", None), "url", None)
        if url:
            return urlsplit(url).netloc
    return None
