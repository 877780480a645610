"""A REST API on a socket: visits in pages of three, by any way of paging and of authentication."""

import base64
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.services.listening import listening

SIZE = 3
SECRET = "planted-api-secret"


def visit(number: int, **changed: Any) -> dict[str, Any]:
    at = f"2026-10-{number:02}T23:30:00-02:00"
    return {
        "id": number,
        "visited_at": at,
        "amount": number * 1.5,
        "guests": number,
        "is_new": number < 3,
        "store": {"id": f"s{number % 2}"},
        **changed,
    }


@dataclass
class Answer:
    """An answer that a test may change before it is sent."""

    body: Any
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)

    def encoded(self) -> bytes:
        return self.body if isinstance(self.body, bytes) else json.dumps(self.body).encode()


@dataclass
class Api:
    """The visits, and how they are asked for.

    spoil: changes an answer, given the number of the request for a page from 1 on.
    tokens: those that were given out; each is good for `pages_of_a_token` requests.
    """

    url: str = ""
    rows: list[dict[str, Any]] = field(default_factory=lambda: [visit(number) for number in range(1, 8)])
    paging: str = "page_number"
    auth: str = ""
    etag: str = ""
    csv: bool = False
    spoil: Callable[[int, Answer], Any] = lambda number, answer: None
    pages_of_a_token: int = 1_000
    asked: list[str] = field(default_factory=list)
    given: list[str] = field(default_factory=list)
    tokens: list[str] = field(default_factory=list)
    token_requests: list[dict[str, list[str]]] = field(default_factory=list)
    used: int = 0

    def page(self, query: dict[str, str]) -> Answer:
        start = {
            "page_number": (int(query.get("page", 1)) - 1) * SIZE,
            "offset": int(query.get("offset", 0)),
            "none": 0,
        }.get(self.paging, int(query.get("after", 0)))
        since = query.get("updated_after", "")
        rows = [row for row in self.rows if str(row.get("updated_at", row["visited_at"])) >= since]
        end = start + (len(rows) if self.paging == "none" else SIZE)
        following = end if end < len(rows) else None
        rows = rows[start:end]
        answer = Answer({"data": {"items": rows}, "total": len(self.rows)})
        if self.paging == "cursor":
            answer.body["next"] = following and str(following)
        if self.paging == "json_link":
            answer.body["links"] = {"next": following and f"/visits?after={following}"}
        if self.paging == "header_link" and following:
            answer.headers["Link"] = f'<{self.url}/visits?after={following}>; rel="next"'
        if self.csv:
            columns = ["id", "visited_at", "amount", "guests", "is_new", "store.id"]
            values = [
                [str(row["store"]["id"] if name == "store.id" else row[name]) for name in columns]
                for row in rows
            ]
            answer.body = "\n".join(map(";".join, [columns, *values])).encode()
        if self.etag:
            answer.headers["ETag"] = self.etag
        return answer

    def accepts(self, headers: Any) -> bool:
        given = headers.get("Authorization", "")
        if self.auth == "oauth2":
            self.used += 1
            return (
                bool(self.tokens)
                and given == f"Bearer {self.tokens[-1]}"
                and self.used <= self.pages_of_a_token
            )
        basic = base64.b64encode(f"ann:{SECRET}".encode()).decode()
        expected = {"bearer": f"Bearer {SECRET}", "basic": f"Basic {basic}", "": given}
        if self.auth == "api_key":
            return bool(headers.get("X-Api-Key") == SECRET)
        return bool(given == expected[self.auth])


@contextmanager
def json_api(**options: Any) -> Iterator[Api]:
    api = Api(**options)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            api.asked.append(self.path)
            api.given.append(self.headers.get("Authorization", ""))
            answer = Answer({"error": "unauthorized"}, 401)
            if api.accepts(self.headers):
                answer = api.page({name: values[0] for name, values in parse_qs(parts.query).items()})
                if api.etag and self.headers.get("If-None-Match") == api.etag:
                    answer = Answer(b"", 304)
                api.spoil(len(api.asked), answer)
            self.answer(answer)

        def do_POST(self) -> None:
            form = self.rfile.read(int(self.headers["Content-Length"])).decode()
            api.token_requests.append(parse_qs(form))
            if api.token_requests[-1].get("client_secret") != [SECRET]:
                return self.answer(Answer({"error": "invalid_client"}, 401))
            api.tokens.append(f"token-{len(api.tokens) + 1}")
            api.used = 0
            self.answer(Answer({"access_token": api.tokens[-1], "expires_in": 3600}))

        def answer(self, answer: Answer) -> None:
            content = answer.encoded()
            head = [f"HTTP/1.1 {answer.status} {'OK' if answer.status == 200 else 'No'}"]
            head += [f"{name}: {value}" for name, value in answer.headers.items()]
            # In one packet: a second one would wait for the first to be acknowledged.
            lines = "\r\n".join([*head, f"Content-Length: {len(content)}", "", ""])
            self.wfile.write(lines.encode() + content)

        def log_message(self, *_: object) -> None:
            pass

    with listening(Handler) as server:
        api.url = f"http://127.0.0.1:{server.server_port}"
        yield api
