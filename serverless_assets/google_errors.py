"""Messages for Google's errors: what was refused, and what to do. No URLs, as they may hold a token."""

import re
from collections.abc import Iterator, Mapping
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

# Reasons of a refusal that may be answered on the next attempt.
TRANSIENT_REASONS = ("rateLimitExceeded", "backendError", "internalError", "jobRateLimitExceeded")

_LOG_IN = "Run `gcloud auth application-default login`"
_CALL = re.compile(r"^[A-Z]+ https?://\S+: ")


@dataclass(frozen=True)
class Service:
    """A Google service, for the sentences about its errors.

    roles: what an account needs to work there. advice: what to do, by the reason that Google gives or by
    words in its message.
    """

    name: str
    host: str
    roles: str
    advice: Mapping[str, str] = field(default_factory=dict, hash=False)


@contextmanager
def translate_errors(service: Service, subject: str, error_type: type[UserError]) -> Iterator[None]:
    """Raise Google's errors as `error_type`, with a message that begins with `subject`."""
    try:
        yield
    except ERRORS as error:
        translated = error_type(f"{subject}: {explain(error, service)}")
        translated.transient = transient(error)
        raise translated from error


def transient(error: BaseException) -> bool:
    """Return whether the same request may succeed later: Google was not reached, or is out of order."""
    if isinstance(error, RetryError) and error.cause is not None:
        return transient(error.cause)
    if isinstance(error, (RequestException, TransportError, ServerError, TooManyRequests)):
        return True
    return _first_detail(error).get("reason") in TRANSIENT_REASONS


def explain(error: BaseException, service: Service) -> str:
    """Return what went wrong, and what a person can do about it."""
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
    sentence, reason = _message(error), str(_first_detail(error).get("reason", ""))
    advice_by_cause = {
        "accessNotConfigured": f"Turn it on with `gcloud services enable {service.host}`.",
        "billingNotEnabled": "Turn billing on for the project.",
        "quotaExceeded": "That is a quota of the project: wait until it is free again, or have it raised.",
        "rateLimitExceeded": "Wait a moment and run again.",
        **service.advice,
    }
    for cause, advice in advice_by_cause.items():
        if cause == reason or cause in sentence:
            return f"{sentence} {advice}"
    if isinstance(error, Forbidden):
        return f"{service.name} refused: {sentence} The account needs {service.roles}."
    if isinstance(error, NotFound):
        return f"{sentence} Check the project, the name and the location in the settings."
    return sentence


def _message(error: BaseException) -> str:
    """Return the first line of Google's own message, without the URL that was called."""
    message = _first_detail(error).get("message") or getattr(error, "message", str(error))
    lines = _CALL.sub("", str(message)).strip().splitlines() or [type(error).__name__]
    return lines[0].rstrip(". ") + "."


def _first_detail(error: BaseException) -> Mapping[str, object]:
    """Return the first of the details (reason, message) of Google's answer; empty if there is none."""
    details = getattr(error, "errors", None)
    if not details:
        # Uploads leave them in the answer's body.
        try:
            body = error.response.json()["error"]  # type: ignore[attr-defined]
            details = body.get("errors") or [body]
        except (AttributeError, KeyError, TypeError, ValueError):
            return {}
    return details[0] if isinstance(details[0], dict) else {}


def _host(error: BaseException) -> str | None:
    """Return the host that was called, from the error or from the one that it wraps; None if unknown."""
    for candidate in (error, *error.args):
        url = getattr(getattr(candidate, "request", None), "url", None)
        if url:
            return urlsplit(url).netloc
    return None
