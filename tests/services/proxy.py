"""An HTTP proxy in front of a server: it remembers what was asked, and may answer in the server's place."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any

import requests

from tests.services.listening import listening

# The proxy sends whole bodies, and says so itself.
NOT_PASSED_ON = {"connection", "content-encoding", "content-length", "host", "transfer-encoding"}


@dataclass(frozen=True)
class Asked:
    """A request as it arrived."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> dict[str, Any]:
        """The body's object, or the one that a multipart body begins with."""
        start = self.body.find(b"{")
        return (
            json.JSONDecoder().raw_decode(self.body[start:].decode(errors="replace"))[0] if start >= 0 else {}
        )


@dataclass(frozen=True)
class Answer:
    """A response of the proxy's own."""

    status: int
    content: dict[str, Any]

    @classmethod
    def error(cls, status: int, reason: str, message: str) -> "Answer":
        """What Google's JSON APIs answer when they refuse."""
        detail = {"message": message, "domain": "global", "reason": reason}
        return cls(status, {"error": {"code": status, "message": message, "errors": [detail]}})


@dataclass
class Proxy:
    """A running proxy. `instead` sees each request first; what it returns is the answer.

    `damage` sees the body of each answer of the server; what it returns is sent under the same headers: a
    shorter one as an answer that is cut.
    """

    url: str
    asked: list[Asked] = field(default_factory=list)
    instead: Callable[[Asked], Answer | None] = lambda request: None
    damage: Callable[[Asked, bytes], bytes] = lambda request, body: body

    def find(self, method: str, path: str) -> list[Asked]:
        """The requests so far whose path contains `path`."""
        return [request for request in self.asked if request.method == method and path in request.path]


@contextmanager
def proxy(upstream: str) -> Iterator[Proxy]:
    """Run a proxy in front of the server at `upstream`."""
    with listening(_Handler) as server:
        # Clients keep their connections: nobody waits for the end of those.
        server.daemon_threads = True
        server.upstream = upstream  # type: ignore[attr-defined]
        server.proxy = running = Proxy(f"http://127.0.0.1:{server.server_port}")  # type: ignore[attr-defined]
        yield running


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def _pass_on(self) -> None:
        proxy: Proxy = self.server.proxy  # type: ignore[attr-defined]
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        request = Asked(self.command, self.path, dict(self.headers), body)
        proxy.asked.append(request)
        answer = proxy.instead(request)
        if answer:
            self._send(
                answer.status, {"Content-Type": "application/json"}, json.dumps(answer.content).encode()
            )
            return
        headers = {k: v for k, v in request.headers.items() if k.lower() not in NOT_PASSED_ON}
        upstream: str = self.server.upstream  # type: ignore[attr-defined]
        found = requests.request(
            self.command, upstream + self.path, headers=headers, data=body, allow_redirects=False, timeout=60
        )
        # An upload goes on at an address that the server gives.
        passed = {
            k: v.replace(upstream, proxy.url)
            for k, v in found.headers.items()
            if k.lower() not in NOT_PASSED_ON
        }
        self._send(found.status_code, passed, proxy.damage(request, found.content), len(found.content))

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _pass_on

    def _send(
        self, status: int, headers: dict[str, str], content: bytes, announced: int | None = None
    ) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        size = len(content) if announced is None else announced
        self.send_header("Content-Length", str(size))
        self.end_headers()
        self.wfile.write(content)
        if len(content) < size:
            self.close_connection = True

    def log_message(self, *arguments: object) -> None:
        pass
