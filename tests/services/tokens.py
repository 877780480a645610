"""Google's token servers on loopback, behind a proxy that ends TLS as a company's may.

Their addresses are fixed in Google's library: HTTPS_PROXY and REQUESTS_CA_BUNDLE lead here whoever asks them.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from ssl import SSLContext
from typing import Any

from tests.ingestion.certificates import self_signed
from tests.services.listening import listening

LOGIN, IAM = "oauth2.googleapis.com", "iamcredentials.googleapis.com"
REFUSED = 403, {"error": {"code": 403, "message": "Permission 'iam.serviceAccounts.getAccessToken' denied"}}


@dataclass
class Tokens:
    """The servers. `asked` has host and path, headers and body of each request; `answers` are by host."""

    variables: Mapping[str, str]
    asked: list[tuple[str, Mapping[str, str], str]] = field(default_factory=list)
    answers: dict[str, tuple[int, Mapping[str, Any]]] = field(
        default_factory=lambda: {
            LOGIN: (200, {"access_token": "a-persons", "expires_in": 3600, "token_type": "Bearer"}),
            IAM: (200, {"accessToken": "an-accounts", "expireTime": "2099-01-01T00:00:00Z"}),
        }
    )


@contextmanager
def tokens(folder: Path) -> Iterator[Tokens]:
    """Run the servers."""
    certificate = folder / "proxy.pem"
    context = self_signed(certificate, names=(LOGIN, IAM))
    with listening(_Handler) as server:
        server.daemon_threads = True
        running = Tokens(
            {
                "HTTPS_PROXY": f"http://127.0.0.1:{server.server_port}",
                "NO_PROXY": "127.0.0.1",
                "REQUESTS_CA_BUNDLE": str(certificate),
            }
        )
        server.context, server.tokens = context, running  # type: ignore[attr-defined]
        yield running


def impersonating(account: str, delegates: Sequence[str] = ()) -> dict[str, Any]:
    """The credentials that `gcloud auth application-default login --impersonate-service-account` writes."""
    return {
        "type": "impersonated_service_account",
        "delegates": list(delegates),
        "service_account_impersonation_url": (
            f"https://{IAM}/v1/projects/-/serviceAccounts/{account}:generateAccessToken"
        ),
        "source_credentials": {
            "type": "authorized_user",
            "client_id": "a-client",
            "client_secret": "a-client-secret",
            "refresh_token": "a-refresh-token",
        },
    }


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    host = ""

    def do_CONNECT(self) -> None:
        self.host = self.path.partition(":")[0]
        self.send_response(200)
        self.end_headers()
        context: SSLContext = self.server.context  # type: ignore[attr-defined]
        self.connection = context.wrap_socket(self.connection, server_side=True)
        self.rfile, self.wfile = self.connection.makefile("rb"), self.connection.makefile("wb", 0)
        self.close_connection = False

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
        running: Tokens = self.server.tokens  # type: ignore[attr-defined]
        running.asked.append((f"{self.host}{self.path}", dict(self.headers), body))
        status, answer = running.answers[self.host]
        content = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *arguments: object) -> None:
        pass
