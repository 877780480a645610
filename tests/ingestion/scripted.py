"""A server that gives scripted answers, good and bad, and remembers what it was asked."""

import io
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import date
from http.server import BaseHTTPRequestHandler
from ssl import SSLContext
from threading import Event

import pyarrow as pa
import pyarrow.parquet as pq

from serverless_assets.months import Window
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


def raw(content: bytes) -> Answer:
    """These bytes and no others, after which the connection is closed."""

    def answer(handler: BaseHTTPRequestHandler, _: Event) -> None:
        handler.wfile.write(content)
        handler.close_connection = True

    return answer


def redirect(location: str, code: int = 302) -> Answer:
    return status(code, Location=location)


def drip(head: bytes, seconds: float = 0.1) -> Answer:
    """`head` at once, and then a byte every `seconds` without an end."""

    def answer(handler: BaseHTTPRequestHandler, test_over: Event) -> None:
        handler.wfile.write(head)
        while not test_over.wait(seconds):
            handler.wfile.write(b"x")

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
# Ten bytes a second of a file of a gigabyte, and of headers that have no end.
SLOW_BODY = drip(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\nPAR1")
SLOW_HEADERS = drip(b"HTTP/1.1 200 OK\r\nX-Slow: ")


@dataclass
class Shop:
    """A server that gives the scripted answers in turn, the last of them forever."""

    host: str
    asked: list[str] = field(default_factory=list)
    methods: list[str] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    scheme: str = "http"
    asked_once: Event = field(default_factory=Event)

    @property
    def url(self) -> str:
        return f"{self.scheme}://{self.host}/data"


@contextmanager
def shop(*answers: Answer, tls: SSLContext | None = None) -> Iterator[Shop]:
    test_over = Event()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer = answers[min(len(asked.asked), len(answers) - 1)]
            asked.asked.append(self.path)
            asked.methods.append(self.command)
            asked.headers.append(dict(self.headers))
            asked.asked_once.set()
            with suppress(OSError):
                answer(self, test_over)

        do_HEAD = do_CONNECT = do_GET

        def log_message(self, *_: object) -> None:
            pass

    with listening(Handler) as server:
        asked = Shop(f"127.0.0.1:{server.server_port}", scheme="https" if tls else "http")
        if tls:
            server.socket = tls.wrap_socket(server.socket, server_side=True)
        try:
            yield asked
        finally:
            test_over.set()
