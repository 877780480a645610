"""What people are told when something breaks, and when it is well again."""

import html
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Literal

from serverless_assets.automation.webhook import AlertError, Webhook
from serverless_assets.secrets import without_secrets

Kind = Literal["run_failed", "recovered", "source_down", "source_back", "forecast_stale", "forecast_fresh"]
Format = Literal["slack", "json"]

NOT_SET = "Nobody was told: SERVERLESS_ALERT_URL is not set."
LONGEST_SENTENCE = 1000


@dataclass(frozen=True)
class Alert:
    """What happened, and the page that shows it. `sentence` may repeat an error, whose secrets are taken out.

    For Slack it is sent as `text`; as JSON, with all of these fields, and as `text` in plain words.
    """

    kind: Kind
    title: str
    sentence: str
    link: str
    environment: str
    at: str
    job: str = ""
    run_id: str = ""

    def payload(self, form: str) -> Mapping[str, str]:
        """What to send."""
        sentence = shortened(without_secrets(self.sentence))
        if form == "slack":
            title, words, place, link = map(_for_slack, (self.title, sentence, self.environment, self.link))
            return {"text": f"*{title}* ({place})\n{words}\n<{link}|Open in Dagster>"}
        text = f"{self.title} ({self.environment}): {sentence} {self.link}"
        return {**asdict(self), "sentence": sentence, "text": text}


@dataclass(frozen=True)
class Alerts:
    """How alerts reach people: through the webhook, with links into the UI at `ui_url`."""

    webhook: Webhook | None
    form: str
    environment: str
    ui_url: str
    now: Callable[[], datetime] = lambda: datetime.now(UTC)

    def tell(
        self, kind: Kind, title: str, sentence: str, page: str = "automation", job: str = "", run_id: str = ""
    ) -> None:
        """Tell people.

        Raises:
            AlertError: nobody was told, and why.
        """
        link = f"{self.ui_url}/{page}"
        if self.webhook is None:
            raise AlertError(f"{NOT_SET} {link}")
        at = self.now().isoformat(timespec="seconds")
        alert = Alert(kind, title, sentence, link, self.environment, at, job, run_id)
        self.webhook.send(alert.payload(self.form))


def shortened(text: str) -> str:
    """`text` up to the length that people read on a phone."""
    return text if len(text) <= LONGEST_SENTENCE else f"{text[: LONGEST_SENTENCE - 1]}…"


def duration_in_words(seconds: float) -> str:
    """How long something lasted, such as `5 min` or `2 d 3 h`."""
    minutes = max(1, round(seconds / 60))
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 24:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    days, hours = divmod(hours, 24)
    return f"{days} d {hours} h" if hours else f"{days} d"


def _for_slack(text: str) -> str:
    return html.escape(text, quote=False)
