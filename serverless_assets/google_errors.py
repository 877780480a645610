"""Messages for Google's errors: what was refused, and what to do. No URLs, as they may hold a token."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.client import HTTPException
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
from google.resumable_media.common import DataCorruption
from requests.exceptions import RequestException
from urllib3.exceptions import HTTPError

from serverless_assets.errors import UserError

ERRORS = (GoogleAPIError, GoogleAuthError, RequestException, DataCorruption)
# Seconds for which an unanswered call is repeated: longer than short outages of Google. A check of what works
# is to answer soon.
PATIENCE, PATIENCE_OF_A_CHECK = 90.0, 10.0

WAIT = "Wait a moment and run again."
# By Google's reason of a refusal, or words of its message if it gives none: whether the same request may
# succeed later, and what to do. It goes before the status, as BigQuery's client gives a failed job the status
# 500 for every reason that it does not know.
REASONS: Mapping[str, tuple[bool, str]] = {
    "rateLimitExceeded": (True, WAIT),
    "jobRateLimitExceeded": (True, WAIT),
    "userRateLimitExceeded": (True, WAIT),
    "backendError": (True, WAIT),
    "internalError": (True, WAIT),
    "jobBackendError": (True, WAIT),
    "jobInternalError": (True, WAIT),
    "tableUnavailable": (True, WAIT),
    "due to concurrent update": (True, "Something else wrote to the same table. " + WAIT),
    "due to concurrent transaction": (True, "Something else wrote to the same table. " + WAIT),
    "quotaExceeded": (
        False, "That is a quota of the project or the table: wait until it is free again, or have it raised.",
    ),
    "bytesBilledLimitExceeded": (
        False, "Nothing was billed. Raise SERVERLESS_MAX_BYTES_BILLED, or ask for less.",
    ),
    "resourcesExceeded": (False, "Build fewer months at once, or make the query smaller."),
    "responseTooLarge": (False, "Ask for fewer rows."),
    "accessNotConfigured": (False, "Turn it on with `gcloud services enable {host}`."),
    "billingNotEnabled": (False, "Turn billing on for the project."),
    "retentionPolicyNotMet": (
        False, "The bucket keeps its files for a time: have its retention policy lifted, or choose another.",
    ),
    "objectUnderActiveHold": (False, "Somebody holds the file: have the hold released."),
}  # fmt: skip
TRANSIENT_KINDS = (
    *(RequestException, TransportError, ServerError, TooManyRequests, DataCorruption),
    # Raised by the clients below those of Google.
    *(ConnectionError, HTTPException, HTTPError),
)
# The server gave up waiting for the request; it has forgotten the upload.
REQUEST_TIMEOUT, GONE = 408, 410

# Begins the message of Google's library that it got no token for the service account to impersonate.
IMPERSONATION_FAILED = "Unable to acquire impersonated credentials"
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
        raise error_type(f"{subject}: {explain(error, service)}", transient(error)) from error


def transient(error: BaseException) -> bool:
    """Return whether the same request may succeed later: Google was not reached, or is out of order."""
    if isinstance(error, RetryError) and error.cause is not None:
        return transient(error.cause)
    if isinstance(error, GoogleAuthError) and not isinstance(error, TransportError):
        return _has_token_server_failed(error)
    cause = _cause(error, REASONS)
    if cause:
        return REASONS[cause][0]
    # While it retries, the media client of Cloud Storage raises errors with a response instead of a code.
    status = getattr(error, "code", None) or getattr(getattr(error, "response", None), "status_code", None)
    is_out_of_order = status in (REQUEST_TIMEOUT, TooManyRequests.code) or int(status or 0) >= 500
    return is_out_of_order or is_upload_gone(error) or isinstance(error, TRANSIENT_KINDS)


def is_upload_gone(error: BaseException) -> bool:
    """Return whether Google forgot a resumable upload, which has to begin again."""
    request = getattr(getattr(error, "response", None), "request", None)
    code = getattr(error, "code", None)
    return code == GONE or (code == NotFound.code and getattr(request, "method", "") == "PUT")


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
    if isinstance(error, GoogleAuthError) and _has_token_server_failed(error):
        return f"Google's token server is out of order. {WAIT}"
    if isinstance(error, DataCorruption):
        return f"a file was damaged on its way. {WAIT}"
    if isinstance(error, GoogleAuthError) and IMPERSONATION_FAILED in str(error):
        return (
            "the service account of these credentials may not be impersonated. Whoever is logged in needs "
            "roles/iam.serviceAccountTokenCreator on it, and its project the IAM Service Account Credentials "
            "API: `gcloud services enable iamcredentials.googleapis.com`."
        )
    if isinstance(error, (GoogleAuthError, Unauthorized)):
        return f"{service.name} does not take these credentials; they may have expired. {_LOG_IN} again."
    sentence = _message(error)
    advice_by_cause = {**{cause: advice for cause, (_, advice) in REASONS.items()}, **service.advice}
    if cause := _cause(error, advice_by_cause):
        return f"{sentence} {advice_by_cause[cause].format(host=service.host)}"
    if isinstance(error, Forbidden):
        return f"{service.name} refused: {sentence} The account needs {service.roles}."
    if isinstance(error, NotFound):
        return (
            f"{sentence} Check the project, the name and the location in the settings, and whether somebody "
            "deleted it."
        )
    return sentence


def _has_token_server_failed(error: GoogleAuthError) -> bool:
    """Whether a server of tokens failed, rather than refused: of a login, or of an account to act as."""
    if error.retryable:
        return True
    # For an impersonated account, Google's library keeps no status, only the body of the answer.
    with suppress(IndexError, KeyError, TypeError, ValueError):
        return int(json.loads(error.args[1])["error"]["code"]) >= 500
    return False


def _cause(error: BaseException, causes: Iterable[str]) -> str | None:
    """Return the first of these reasons, or words, that Google gives."""
    reason, sentence = _first_detail(error).get("reason"), _message(error)
    return next((cause for cause in causes if cause == reason or cause in sentence), None)


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
        except (AttributeError, KeyError, TypeError, ValueError, RuntimeError):
            # There is no answer, or its body was streamed.
            return {}
    return details[0] if isinstance(details[0], dict) else {}


def _host(error: BaseException) -> str | None:
    """Return the host that was called, from the error or from the one that it wraps; None if unknown."""
    for candidate in (error, *error.args):
        url = getattr(getattr(candidate, "request", None), "url", None)
        if url:
            return urlsplit(url).netloc
    return None
