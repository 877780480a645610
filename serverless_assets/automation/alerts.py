"""Alerts: what happened, sent to the address in SERVERLESS_ALERT_URL as Slack's JSON or as flat JSON."""

import html
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Literal
from urllib.parse import urlsplit

from serverless_assets.addresses import without_secrets
from serverless_assets.errors import UserError
from serverless_assets.ingestion.http import HttpError, printable, request, retry_after_seconds
from serverless_assets.ingestion.http_faults import TRANSIENT_STATUS, call_with_retries
from serverless_assets.settings import Settings

AlertKind = Literal[
    "run_failed", "recovered", "source_down", "source_back", "forecast_stale", "forecast_fresh"
]

NOT_SET = "No alert was sent: SERVERLESS_ALERT_URL is not set."
# In characters: what fits on a phone.
MAX_SENTENCE_LENGTH = 1000
# In characters: what the UI shows of a tick.
MAX_TICK_LENGTH = 200
# Short, as a tick of a sensor waits for the webhook.
ATTEMPTS, FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS, TIMEOUT_SECONDS = 3, 0.5, 5.0, 10.0


class AlertError(UserError):
    """An alert that did not arrive."""


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
        post = partial(self._post, payload)
        call_with_retries(post, ATTEMPTS, self.first_pause_seconds, LONGEST_PAUSE_SECONDS)

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
        sentence = f"The alert was not sent: {self.host} (SERVERLESS_ALERT_URL) {reason}"
        raise AlertError(sentence, transient, retry_after)


@dataclass(frozen=True)
class Alerts:
    """Sends alerts through the webhook, with links into the UI at `ui_url`.

    form: `slack` for a `text` in its markup; `json` for all fields and a `text`.
    """

    webhook: Webhook | None
    form: str
    environment: str
    ui_url: str
    now: Callable[[], datetime] = lambda: datetime.now(UTC)

    @classmethod
    def of(cls, settings: Settings) -> "Alerts":
        """Return what sends alerts where the settings say."""
        webhook = Webhook(settings.alert_url) if settings.alert_url else None
        return cls(webhook, settings.alert_format, settings.environment, settings.ui_url)

    def tell(
        self,
        kind: AlertKind,
        title: str,
        sentence: str,
        page: str = "automation",
        job: str = "",
        run_id: str = "",
    ) -> None:
        """Send what happened, without secrets, and a link to the page that shows it.

        Raises:
            AlertError: it did not arrive, or there is no webhook.
        """
        if self.webhook is None:
            raise AlertError(NOT_SET)
        sentence, link = shorten(without_secrets(sentence)), f"{self.ui_url}/{page}"
        if self.form == "slack":
            title, sentence, environment, link = (
                html.escape(part, quote=False) for part in (title, sentence, self.environment, link)
            )
            self.webhook.send({"text": f"*{title}* ({environment})\n{sentence}\n<{link}|Open in Dagster>"})
            return
        self.webhook.send(
            {
                "kind": kind,
                "title": title,
                "sentence": sentence,
                "link": link,
                "environment": self.environment,
                "at": self.now().isoformat(timespec="seconds"),
                "job": job,
                "run_id": run_id,
                "text": f"{title} ({self.environment}): {sentence} {link}",
            }
        )

    def try_to_tell(
        self, kind: AlertKind, title: str, sentence: str, page: str = "automation"
    ) -> tuple[bool, str]:
        """Send what happened. Returns whether it arrived, and a sentence on that for the tick of a sensor."""
        try:
            self.tell(kind, title, sentence, page)
        except AlertError as error:
            return False, str(error)
        return True, "An alert was sent."


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
