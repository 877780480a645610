"""The address that alerts are sent to."""

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

import requests
from tenacity import Retrying, retry_if_exception
from tenacity.stop import stop_after_attempt
from tenacity.wait import wait_exponential_jitter

from serverless_assets.errors import ToldError
from serverless_assets.ingestion.download import TRANSIENT_STATUS

ATTEMPTS, FIRST_PAUSE_SECONDS, TIMEOUT_SECONDS = 3, 0.5, 10.0


class AlertError(ToldError):
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
        pause = wait_exponential_jitter(initial=self.first_pause_seconds, jitter=self.first_pause_seconds)
        retrying = Retrying(
            retry=retry_if_exception(lambda error: isinstance(error, AlertError) and error.may_pass),
            stop=stop_after_attempt(ATTEMPTS),
            wait=pause,
            reraise=True,
        )
        retrying(self._post, payload)

    def _post(self, payload: Mapping[str, str]) -> None:
        try:
            # A redirected POST would arrive as a GET, without what it says.
            answer = requests.post(
                self.url, json=payload, timeout=self.timeout_seconds, allow_redirects=False
            )
        except requests.Timeout:
            raise self._not_sent("did not answer in time", may_pass=True) from None
        except requests.RequestException:
            # The exception's own text holds the address.
            raise self._not_sent("cannot be reached", may_pass=True) from None
        if not 200 <= answer.status_code < 300:
            said = f"answered {answer.status_code} {answer.reason}"
            raise self._not_sent(said, answer.status_code in TRANSIENT_STATUS)

    def _not_sent(self, why: str, may_pass: bool) -> AlertError:
        error = AlertError(f"The alert was not sent: {self.host} (SERVERLESS_ALERT_URL) {why}.")
        error.may_pass = may_pass
        return error
