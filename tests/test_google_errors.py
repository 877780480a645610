import json

import pytest
import requests
from google.api_core import exceptions
from google.auth.exceptions import DefaultCredentialsError, RefreshError, TransportError
from google.cloud.storage.exceptions import DataCorruption, InvalidResponse

from serverless_assets.errors import UserError
from serverless_assets.google_errors import (
    IMPERSONATION_FAILED,
    REASONS,
    Service,
    explain,
    transient,
    translate_errors,
)

SERVICE = Service(
    "BigQuery", "bigquery.googleapis.com", "roles/the.role on the dataset", {"special": "Do this."}
)


def refused(kind: type[exceptions.GoogleAPICallError], message: str, reason: str = "") -> Exception:
    return kind(message, errors=[{"message": message, "reason": reason}] if reason else [])


def unreachable(url: str) -> requests.ConnectionError:
    return requests.ConnectionError("Max retries exceeded", request=requests.Request("GET", url).prepare())


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (
            refused(exceptions.Forbidden, "Access Denied: Table t", "accessDenied"),
            "BigQuery refused: Access Denied: Table t. The account needs roles/the.role on the dataset.",
        ),
        (
            refused(exceptions.NotFound, "Not found: Table t", "notFound"),
            "Not found: Table t. Check the project, the name and the location in the settings, and whether "
            "somebody deleted it.",
        ),
        (
            refused(
                exceptions.Forbidden, "BigQuery API has not been used in project 1.", "accessNotConfigured"
            ),
            "BigQuery API has not been used in project 1. "
            "Turn it on with `gcloud services enable bigquery.googleapis.com`.",
        ),
        (
            refused(exceptions.Forbidden, "Quota exceeded: too many", "quotaExceeded"),
            "Quota exceeded: too many. "
            "That is a quota of the project or the table: wait until it is free again, or have it raised.",
        ),
        (
            refused(exceptions.Forbidden, "Exceeded rate limits", "jobRateLimitExceeded"),
            "Exceeded rate limits. Wait a moment and run again.",
        ),
        (
            refused(exceptions.Forbidden, "Object is subject to a policy", "retentionPolicyNotMet"),
            "Object is subject to a policy. The bucket keeps its files for a time: have its retention policy "
            "lifted, or choose another.",
        ),
        (refused(exceptions.BadRequest, "A special case", "invalid"), "A special case. Do this."),
        (refused(exceptions.BadRequest, "Of another kind", "special"), "Of another kind. Do this."),
        (refused(exceptions.BadRequest, "Syntax error at [1:5]\n\nJob ID: 1"), "Syntax error at [1:5]."),
        (
            exceptions.BadRequest("POST https://bigquery.googleapis.com/upload?upload_id=secret: Bad file"),
            "Bad file.",
        ),
        (exceptions.BadRequest(""), "BadRequest."),
        (
            RefreshError("invalid_grant: secret"),
            "BigQuery does not take these credentials; they may have expired. "
            "Run `gcloud auth application-default login` again.",
        ),
        (
            RefreshError("server_error: secret", {"error": "server_error"}, retryable=True),
            "Google's token server is out of order. Wait a moment and run again.",
        ),
        (
            RefreshError(IMPERSONATION_FAILED, '{"error": {"code": 503, "message": "secret"}}'),
            "Google's token server is out of order. Wait a moment and run again.",
        ),
        (
            DataCorruption(None, "Checksum mismatch while downloading:\n\n  https://host/o?token=secret"),
            "a file was damaged on its way. Wait a moment and run again.",
        ),
        (
            refused(exceptions.Unauthorized, "Invalid Credentials", "authError"),
            "BigQuery does not take these credentials; they may have expired. "
            "Run `gcloud auth application-default login` again.",
        ),
        (
            DefaultCredentialsError("secret"),
            "there are no Google credentials that work on this machine. "
            "Run `gcloud auth application-default login`, "
            "or set GOOGLE_APPLICATION_CREDENTIALS to the file of a service account.",
        ),
        (
            unreachable("https://example.com:444/upload?upload_id=secret"),
            "example.com:444 cannot be reached (ConnectionError). "
            "Check the network and its proxy, then run again.",
        ),
        (
            TransportError(unreachable("https://oauth2.googleapis.com/token")),
            "oauth2.googleapis.com cannot be reached (TransportError). "
            "Check the network and its proxy, then run again.",
        ),
        (
            requests.Timeout(),
            "bigquery.googleapis.com cannot be reached (Timeout). "
            "Check the network and its proxy, then run again.",
        ),
        (
            exceptions.RetryError("Timeout of 30 s exceeded", unreachable("http://localhost:1/x")),
            "localhost:1 cannot be reached (ConnectionError). "
            "Check the network and its proxy, then run again.",
        ),
    ],
)
def test_an_error_is_told_with_what_to_do(error: Exception, told: str) -> None:
    assert explain(error, SERVICE) == told


def test_what_an_upload_was_answered_is_told() -> None:
    response = requests.Response()
    response._content = b'{"error": {"code": 403, "message": "No access to the object."}}'
    error = exceptions.Forbidden(
        'POST https://storage.googleapis.com/upload?token=secret: {\n"error"', response=response
    )
    assert explain(error, SERVICE).startswith("BigQuery refused: No access to the object. The account needs")


def test_the_subject_comes_first() -> None:
    with (
        pytest.raises(UserError, match=r"^my\.table: Bad file\.$"),
        translate_errors(SERVICE, "my.table", UserError),
    ):
        raise exceptions.BadRequest("Bad file")


def test_other_errors_pass() -> None:
    with pytest.raises(KeyError), translate_errors(SERVICE, "my.table", UserError):
        raise KeyError("a mistake of ours")


@pytest.mark.parametrize(
    ("error", "passes"),
    [
        (unreachable("https://bigquery.googleapis.com/"), True),
        (TransportError("no route"), True),
        (exceptions.ServiceUnavailable("try later"), True),
        (exceptions.TooManyRequests("slow down"), True),
        (exceptions.RetryError("gave up", exceptions.ServiceUnavailable("try later")), True),
        (refused(exceptions.Forbidden, "Exceeded rate limits", "rateLimitExceeded"), True),
        (refused(exceptions.Forbidden, "Access Denied", "accessDenied"), False),
        (refused(exceptions.Forbidden, "Quota exceeded", "quotaExceeded"), False),
        (
            refused(exceptions.BadRequest, "Could not serialize access to table t due to concurrent update"),
            True,
        ),
        (exceptions.from_http_status(410, "The upload is gone"), True),
        (exceptions.BadRequest("Syntax error"), False),
        (exceptions.NotFound("Not found"), False),
        (DefaultCredentialsError("none"), False),
        (RefreshError("expired"), False),
        (RefreshError("server_error", retryable=True), True),
        (RefreshError(IMPERSONATION_FAILED, '{"error": {"code": 503}}'), True),
        (RefreshError(IMPERSONATION_FAILED, '{"error": {"code": 403}}'), False),
        (RefreshError(IMPERSONATION_FAILED, "<html>"), False),
        (DataCorruption(None, "Checksum mismatch"), True),
    ],
)
def test_what_is_out_of_order_may_pass_and_a_refusal_does_not(error: Exception, passes: bool) -> None:
    assert transient(error) is passes
    with pytest.raises(UserError) as told, translate_errors(SERVICE, "my.table", UserError):
        raise error
    assert told.value.transient is passes


@pytest.mark.parametrize(
    ("status", "reason", "passes"),
    [(503, "", True), (408, "", True), (403, "", False), (403, "rateLimitExceeded", True)],
)
def test_an_answer_that_the_client_of_files_has_not_translated_yet_is_classified_too(
    status: int, reason: str, passes: bool
) -> None:
    response = requests.Response()
    response.status_code = status
    response._content = json.dumps({"error": {"errors": [{"reason": reason}]}}).encode()
    assert transient(InvalidResponse(response)) is passes


# By Google's documentation of the errors of BigQuery and Cloud Storage.
PASSING = {
    "rateLimitExceeded", "jobRateLimitExceeded", "userRateLimitExceeded", "backendError", "internalError",
    "jobBackendError", "jobInternalError", "tableUnavailable",
}  # fmt: skip
FINAL = {
    "quotaExceeded", "bytesBilledLimitExceeded", "resourcesExceeded", "responseTooLarge",
    "accessNotConfigured", "billingNotEnabled", "retentionPolicyNotMet", "objectUnderActiveHold",
}  # fmt: skip
# In messages without a reason of their own.
WORDS = {"due to concurrent update", "due to concurrent transaction"}


@pytest.mark.parametrize(
    ("reason", "passes"),
    [(name, True) for name in sorted(PASSING)] + [(name, False) for name in sorted(FINAL)],
)
def test_a_reason_decides_whatever_the_status_that_the_client_makes_up(reason: str, passes: bool) -> None:
    # A job that failed is raised with the status of a server's fault, and a call with that of a refusal.
    for kind in (exceptions.InternalServerError, exceptions.Forbidden):
        assert transient(refused(kind, "It failed", reason)) is passes


def test_each_reason_that_is_known_has_its_outcome_here() -> None:
    assert REASONS.keys() == PASSING | FINAL | WORDS
