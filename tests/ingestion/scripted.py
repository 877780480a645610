"""A server that gives scripted answers, good and bad, and remembers what it was asked."""

import io
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import date
from http.server import BaseHTTPRequestHandler
from threading import Event

import pyarrow as pa
import pyarrow.parquet as pq

from serverless_assets.ingestion.window import Window
from tests.services.listening import listening

OCTOBER = Window(date(2026, 10, 1), date(2026, 11, 1))
USER, PASSWORD, TOKEN = "quentin", "hunter2", "s3cret"

BUFFER = io.BytesIO()
pq.write_table(pa.table({"id": [str(n) for n in range(10_000)]}), BUFFER)
PARQUET = BUFFER.getvalue()

Answer = Callable[[BaseHTTPRequestHandler, Event], None]


def status(code: int, **headers: str) -> Answer:
    def answer(handler: BaseHTTPRequestHandler, _: Event) -> None:
        handler.send_response(code)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    return answer


def body(content: bytes, length: int | None = None, content_type: str = "application/octet-stream") -> Answer:
    """A 200 with `content`; it promises `length` bytes, or nothing at all."""

    def answer(handler: BaseHTTPRequestHandler, _: Event) -> None:
        handler.send_response(200)
        handler.send_header("Content-Type", content_type)
        if length is not None:
            handler.send_header("Content-Length", str(length))
        handler.end_headers()
        handler.wfile.write(content)

    return answer


def silence(handler: BaseHTTPRequestHandler, test_over: Event) -> None:
    test_over.wait(30)


def hang_up(handler: BaseHTTPRequestHandler, _: Event) -> None:
    handler.connection.shutdown(socket.SHUT_RDWR)


def half_a_file_then_silence(handler: BaseHTTPRequestHandler, test_over: Event) -> None:
    body(PARQUET[: len(PARQUET) // 2], length=len(PARQUET))(handler, test_over)
    test_over.wait(30)


GOOD = body(PARQUET, length=len(PARQUET))
CUT_SHORT = body(PARQUET[:-100], length=len(PARQUET))
NO_END = body(PARQUET[:-100])
FAULTS = {
    "429 with Retry-After 0": status(429, Retry_After="0"),
    "500": status(500),
    "503": status(503),
    "no answer in time": silence,
    "connection closed without an answer": hang_up,
    "body cut short": CUT_SHORT,
    "file without an end": NO_END,
    "transfer that stalls": half_a_file_then_silence,
}


@dataclass
class Shop:
    """A server that gives the scripted answers in turn, the last of them forever."""

    host: str
    asked: list[str] = field(default_factory=list)
    methods: list[str] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://{self.host}/data"


@contextmanager
def shop(*answers: Answer) -> Iterator[Shop]:
    test_over = Event()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer = answers[min(len(asked.asked), len(answers) - 1)]
            asked.asked.append(self.path)
            asked.methods.append(self.command)
            asked.headers.append(dict(self.headers))
            with suppress(OSError):
                answer(self, test_over)

        do_HEAD = do_GET

        def log_message(self, *_: object) -> None:
            pass

    with listening(Handler) as server:
        asked = Shop(f"127.0.0.1:{server.server_port}")
        try:
            yield asked
        finally:
            test_over.set()
