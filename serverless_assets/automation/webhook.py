"""The address that alerts are sent to."""

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from serverless_assets.errors import UserError
from serverless_assets.ingestion.http import HttpError, printable, request
from serverless_assets.ingestion.http_errors import TRANSIENT_STATUS
from serverless_assets.ingestion.retries import RetryPolicy, retry_after_seconds

ATTEMPTS, FIRST_PAUSE_SECONDS, TIMEOUT_SECONDS = 3, 0.5, 10.0
# A tick of a sensor waits for it.
LONGEST_PAUSE_SECONDS = 5.0


class AlertError(UserError):
    """An alert that did not arrive."""


@dataclass(frozen=True)
class Webhook:
    """An address that takes JSON. It is a secret: whoever has it can write there."""

    url: str
    first_pause_seconds: float = FIRST_PAUSE_SECONDS
    timeout_seconds: float = TIMEOUT_SECONDS

    def __repr__(self) -> str:
        return f"Webhook({self.host})"

    @property
    def host(self) -> str:
        return urlsplit(self.url).hostname or "?"

    def send(self, payload: Mapping[str, str]) -> None:
        """Send it, and again if it may not have arrived: rather twice than not at all.

        Raises:
            AlertError: it did not arrive.
        """
        policy = RetryPolicy(ATTEMPTS, self.first_pause_seconds, LONGEST_PAUSE_SECONDS)
        policy.call(lambda: self._post(payload))

    def _post(self, payload: Mapping[str, str]) -> None:
        try:
            # A redirected POST would arrive as a GET, without what it says.
            with request("POST", self.url, self.timeout_seconds, json=payload, follow=False) as answer:
                if 200 <= answer.status_code < 300:
                    return
                said = f"answered {answer.status_code} {printable(answer.reason or '')}".rstrip() + "."
                transient = answer.status_code in TRANSIENT_STATUS
                raise self._not_sent(said, transient, retry_after_seconds(answer.headers))
        except HttpError as error:
            raise self._not_sent(str(error), error.transient) from None

    def _not_sent(self, why: str, transient: bool, retry_after: float | None = None) -> AlertError:
        error = AlertError(f"The alert was not sent: {self.host} (SERVERLESS_ALERT_URL) {why}")
        error.transient, error.retry_after = transient, retry_after
        return error
