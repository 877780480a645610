"""A webhook on a socket: it keeps what it is told, and fails when it is told to."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler

from serverless_assets.automation.alerts import Alerts, Webhook
from tests.services.listening import listening

SECRET = "T000-B000-s3cret"
NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)


@dataclass
class Hook:
    """`answers` are given first; then 200 for ever. `requests` counts those that failed, too."""

    url: str = ""
    told: list[dict[str, str]] = field(default_factory=list)
    answers: list[int] = field(default_factory=list)
    requests: int = 0
    now: datetime = NOW

    @property
    def kinds(self) -> list[str]:
        return [alert["kind"] for alert in self.told]

    @property
    def webhook(self) -> Webhook:
        return Webhook(self.url, first_pause_seconds=0.001, timeout_seconds=2.0)

    @property
    def alerts(self) -> Alerts:
        """Alerts that come here, as JSON, at the time that `now` says."""
        return Alerts(self.webhook, "json", "local", "http://ui.example", lambda: self.now)


@contextmanager
def hook() -> Iterator[Hook]:
    """A webhook that takes what is sent while the context lasts."""
    found = Hook()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            content = self.rfile.read(int(self.headers["Content-Length"]))
            found.requests += 1
            status = found.answers.pop(0) if found.answers else 200
            if status == 200:
                found.told.append(json.loads(content))
            self.send_response(status)
            self.send_header("Location", "/elsewhere")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with listening(Handler) as server:
        found.url = f"http://127.0.0.1:{server.server_port}/services/{SECRET}"
        yield found
