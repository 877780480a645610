"""Alerts: what happened, sent to the address in SERVERLESS_ALERT_URL as Slack's JSON or as flat JSON."""

import html
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Literal
from urllib.parse import urlsplit

from serverless_assets.addresses import without_secrets
from serverless_assets.errors import UserError
from serverless_assets.ingestion.http import (
    TRANSIENT_STATUS,
    HttpError,
    printable,
    request,
    retry_after_seconds,
)
from serverless_assets.ingestion.http_client import RetryPolicy

AlertKind = Literal[
    "run_failed", "recovered", "source_down", "source_back", "forecast_stale", "forecast_fresh"
]

NOT_SET = "No alert was sent: SERVERLESS_ALERT_URL is not set."
# What people read on a phone.
MAX_SENTENCE_LENGTH = 1000
# What the UI shows of a tick of a sensor.
MAX_TICK_LENGTH = 200
# A tick of a sensor waits for the webhook.
ATTEMPTS, FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS, TIMEOUT_SECONDS = 3, 0.5, 5.0, 10.0


class AlertError(UserError):
    """An alert that did not arrive."""


@dataclass(frozen=True)
class Alert:
    """What happened, and the page that shows it. Secrets are removed from `sentence` when it is sent."""

    kind: AlertKind
    title: str
    sentence: str
    link: str
    environment: str
    at: str
    job: str = ""
    run_id: str = ""

    def payload(self, form: str) -> Mapping[str, str]:
        """Return the JSON to send: for `slack` a `text` in its markup; for `json` all fields and a `text`."""
        sentence = shorten(without_secrets(self.sentence))
        if form == "slack":
            title, text, environment, link = (
                html.escape(part, quote=False) for part in (self.title, sentence, self.environment, self.link)
            )
            return {"text": f"*{title}* ({environment})\n{text}\n<{link}|Open in Dagster>"}
        text = f"{self.title} ({self.environment}): {sentence} {self.link}"
        return {**asdict(self), "sentence": sentence, "text": text}


@dataclass(frozen=True)
class Webhook:
    """An address that takes JSON. The address is a secret, as it alone allows to write there."""

    url: str
    first_pause_seconds: float = FIRST_PAUSE_SECONDS
    timeout_seconds: float = TIMEOUT_SECONDS

    def __repr__(self) -> str:
        return f"Webhook({self.host})"

    @property
    def host(self) -> str:
        return urlsplit(self.url).hostname or "?"

    def send(self, payload: Mapping[str, str]) -> None:
        """Send the payload, again after an unclear outcome: it may arrive twice, but is not lost.

        Raises:
            AlertError: it did not arrive.
        """
        policy = RetryPolicy(ATTEMPTS, self.first_pause_seconds, LONGEST_PAUSE_SECONDS)
        policy.call(lambda: self._post(payload))

    def _post(self, payload: Mapping[str, str]) -> None:
        try:
            # A redirected POST would arrive as a GET, without its body.
            with request("POST", self.url, self.timeout_seconds, json=payload, follow=False) as response:
                if 200 <= response.status_code < 300:
                    return
                status = f"{response.status_code} {printable(response.reason or '')}".rstrip()
                reason, transient = f"answered {status}.", response.status_code in TRANSIENT_STATUS
                retry_after = retry_after_seconds(response.headers)
        except HttpError as error:
            reason, transient, retry_after = str(error), error.transient, None
        failure = AlertError(f"The alert was not sent: {self.host} (SERVERLESS_ALERT_URL) {reason}")
        failure.transient, failure.retry_after = transient, retry_after
        raise failure


@dataclass(frozen=True)
class Alerts:
    """Sends alerts through the webhook, with links into the UI at `ui_url`."""

    webhook: Webhook | None
    form: str
    environment: str
    ui_url: str
    now: Callable[[], datetime] = lambda: datetime.now(UTC)

    def tell(
        self,
        kind: AlertKind,
        title: str,
        sentence: str,
        page: str = "automation",
        job: str = "",
        run_id: str = "",
    ) -> None:
        """Send an alert.

        Raises:
            AlertError: it did not arrive, or there is no webhook.
        """
        link = f"{self.ui_url}/{page}"
        if self.webhook is None:
            raise AlertError(NOT_SET)
        at = self.now().isoformat(timespec="seconds")
        alert = Alert(kind, title, sentence, link, self.environment, at, job, run_id)
        self.webhook.send(alert.payload(self.form))


def shorten(text: str, length: int = MAX_SENTENCE_LENGTH) -> str:
    """Return `text`, cut to so many characters."""
    return text if len(text) <= length else f"{text[: length - 1]}…"


def tick_text(event: str, *outcomes: str) -> str:
    """Return what a tick says: what happened, shortened so that what was done about it fits beside it."""
    outcome = "".join(f" {text}" for text in outcomes if text)
    return shorten(
        shorten(event, max(MAX_TICK_LENGTH // 2, MAX_TICK_LENGTH - len(outcome))) + outcome, MAX_TICK_LENGTH
    )


def format_duration(seconds: float) -> str:
    """Return a duration such as `5 min` or `2 d 3 h`."""
    minutes = max(1, round(seconds / 60))
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 24:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    days, hours = divmod(hours, 24)
    return f"{days} d {hours} h" if hours else f"{days} d"
