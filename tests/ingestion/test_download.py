import io
import logging
import socket
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import date
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread
from traceback import format_exception
from urllib.parse import parse_qsl, urlsplit

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from serverless_assets.ingestion.download import (
    Download,
    NotModified,
    SourceError,
    TableSource,
    table_url,
    without_credentials,
)
from serverless_assets.ingestion.validators import Validators
from serverless_assets.ingestion.window import Window

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
every_fault = pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)


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

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    asked = Shop(f"127.0.0.1:{server.server_port}")
    thread = Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield asked
    finally:
        test_over.set()
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def lines() -> list[str]:
    return []


@pytest.fixture
def fetch(tmp_path: Path, lines: list[str]):
    def fetch(base_url: str, window: Window | None = None, attempts: int = 3):
        source = TableSource(base_url, attempts, first_pause_seconds=0.0, timeout_seconds=0.2)
        return source.fetch("raw_orders", window, tmp_path / "raw_orders.download", lines.append)

    return fetch


def test_the_file_on_disk_is_the_file_that_was_served(fetch):
    with shop(GOOD) as server:
        download = fetch(server.url)
    assert download.path.read_bytes() == PARQUET
    assert download.bytes == len(PARQUET)
    assert len(server.asked) == 1


def test_a_file_without_a_promised_length_is_taken_if_it_has_its_end(fetch):
    with shop(body(PARQUET)) as server:
        assert fetch(server.url).path.read_bytes() == PARQUET


# ---- asked again


@every_fault
def test_a_passing_fault_is_asked_again_and_leaves_no_trace_in_the_file(fetch, lines, fault):
    with shop(fault, GOOD) as server:
        download = fetch(server.url)
    assert download.path.read_bytes() == PARQUET
    assert download.bytes == len(PARQUET)
    assert len(server.asked) == 2
    (line,) = lines
    assert "Attempt 1 of 3" in line


@every_fault
def test_a_fault_that_stays_ends_in_an_error_that_names_the_attempts(fetch, lines, fault):
    with shop(fault) as server, pytest.raises(SourceError) as raised:
        fetch(server.url)
    assert "Gave up after 3 attempts" in str(raised.value)
    assert f"http://{server.host}/data/raw_orders.parquet" in str(raised.value)
    assert len(server.asked) == 3
    assert len(lines) == 2


def test_a_longer_wrong_answer_leaves_nothing_behind_the_right_one(fetch):
    with shop(body(PARQUET + bytes(1000)), GOOD) as server:
        assert fetch(server.url).path.read_bytes() == PARQUET


def test_the_pause_that_the_server_asks_for_is_the_pause_that_is_made(fetch, lines):
    with shop(status(429, Retry_After="0"), GOOD) as server:
        fetch(server.url)
    assert lines[0].endswith("asking again in 0.0 s.")
    assert "429" in lines[0]


@pytest.mark.parametrize("value", ["Wed, 21 Oct 2026 07:28:00 GMT", "-1", "soon", ""])
def test_a_pause_that_is_no_number_of_seconds_does_not_stop_the_download(fetch, value):
    with shop(status(503, Retry_After=value), GOOD) as server:
        assert fetch(server.url).bytes == len(PARQUET)


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (silence, "did not answer within 0.2 s"),
        (hang_up, "no connection"),
        (CUT_SHORT, "cut in the middle of the file"),
        (half_a_file_then_silence, "stopped coming"),
        (NO_END, "the parquet file has no end"),
        (status(500), "answered 500"),
    ],
)
def test_the_error_says_what_went_wrong(fetch, fault, said):
    with shop(fault) as server, pytest.raises(SourceError, match=said):
        fetch(server.url, attempts=1)


def test_a_server_that_is_not_there_is_asked_again_too(fetch, lines):
    with socket.socket() as nobody:
        # Bound but not listening: the port is nobody else's, and refuses.
        nobody.bind(("127.0.0.1", 0))
        with pytest.raises(SourceError, match=r"no connection.*Gave up after 3 attempts"):
            fetch(f"http://127.0.0.1:{nobody.getsockname()[1]}")
    assert len(lines) == 2


def test_a_cancelled_download_is_not_asked_again(tmp_path):
    cancelled = Event()
    with shop(status(500)) as server:
        source = TableSource(server.url, attempts=5, first_pause_seconds=60.0, cancelled=cancelled)
        # The minute's pause has begun when the line is logged: cancelling ends it.
        with pytest.raises(SourceError):
            source.fetch("raw_orders", None, tmp_path / "file", lambda _: cancelled.set())
    assert len(server.asked) <= 2


# ---- refused at once


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (status(404), "404.*no such table.*SERVERLESS_DATASET_URL"),
        (status(401), "401.*credentials"),
        (status(403), "403.*credentials"),
        (status(410), "410"),
        (status(204), "204"),
        (body(b"<html>Log in</html>", 19, "text/html"), "text/html.*login"),
    ],
    ids=["404", "401", "403", "410", "204", "a login page"],
)
def test_what_will_not_change_is_refused_at_once(fetch, lines, answer, said):
    with shop(answer) as server, pytest.raises(SourceError, match=said):
        fetch(server.url)
    assert len(server.asked) == 1
    assert lines == []


def test_an_address_that_cannot_be_asked_is_refused_without_asking(fetch, lines):
    with pytest.raises(SourceError, match="not an address") as raised:
        fetch(f"http://{USER}:{PASSWORD}@shop:port/data?token={TOKEN}")
    for secret in (USER, PASSWORD, TOKEN):
        assert secret not in "".join(format_exception(raised.value))
    assert lines == []


# ---- credentials


@pytest.mark.parametrize(
    "answer",
    [*FAULTS.values(), status(404), status(401), status(302, Location="//:x"), body(b"<html>", 6)],
    ids=[*FAULTS, "404", "401", "bad redirect", "a page"],
)
def test_no_credential_shows_in_an_error_or_a_log_line(fetch, lines, caplog, answer):
    caplog.set_level(logging.INFO)
    with shop(answer) as server, pytest.raises(SourceError) as raised:
        fetch(f"http://{USER}:{PASSWORD}@{server.host}/data?token={TOKEN}", OCTOBER)
    # The traceback too: Dagster shows it to everybody who sees the run.
    said = " ".join([repr(raised.value), *lines, caplog.text, *format_exception(raised.value)])
    for secret in (USER, PASSWORD, TOKEN):
        assert secret not in said


def test_credentials_reach_the_server_and_stay_out_of_the_download(fetch):
    with shop(GOOD) as server:
        download = fetch(f"http://{USER}:{PASSWORD}@{server.host}/data?token={TOKEN}")
    assert download.url == f"http://{server.host}/data/raw_orders.parquet"
    assert server.asked == [f"/data/raw_orders.parquet?token={TOKEN}"]
    assert server.headers[0]["Authorization"] == "Basic " + b64encode(f"{USER}:{PASSWORD}".encode()).decode()


def test_an_address_is_shown_without_whatever_may_be_secret():
    shown = without_credentials("https://ann:p@ss@shop.test:8443/data/raw_items.parquet?token=s3cret#s3cret")
    assert shown == "https://shop.test:8443/data/raw_items.parquet"


# ---- the address


def test_the_window_is_asked_for_and_the_addresss_own_query_is_kept(fetch):
    with shop(GOOD) as server:
        fetch(f"{server.url}/?token=a%26b&empty=", OCTOBER)
    (path,) = server.asked
    assert urlsplit(path).path == "/data/raw_orders.parquet"
    assert parse_qsl(urlsplit(path).query, keep_blank_values=True) == [
        ("token", "a&b"),
        ("empty", ""),
        ("start", "2026-10-01"),
        ("end", "2026-11-01"),
    ]


@pytest.mark.parametrize("base", ["https://shop.test", "https://shop.test/", "https://shop.test//"])
def test_slashes_at_the_end_of_the_base_do_not_matter(base):
    assert table_url(base, "raw_items", None) == "https://shop.test/raw_items.parquet"


# ---- asked only if it changed

MODIFIED, A_DAY_LATER = "Tue, 01 Sep 2026 12:00:00 GMT", "Wed, 02 Sep 2026 12:00:00 GMT"


def dated(etag: str | None = None, modified: str | None = None, date: str | None = A_DAY_LATER) -> Answer:
    """A good answer with these headers and no others."""

    def answer(handler: BaseHTTPRequestHandler, _: Event) -> None:
        handler.send_response_only(200)
        for name, value in (("ETag", etag), ("Last-Modified", modified), ("Date", date)):
            if value is not None:
                handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(PARQUET)

    return answer


@pytest.fixture
def ask(tmp_path: Path, lines: list[str]):
    def ask(base_url: str, held: Validators):
        source = TableSource(base_url, 3, first_pause_seconds=0.0, timeout_seconds=0.2)
        return source.fetch_if_modified("raw_orders", None, tmp_path / "file", lines.append, held)

    return ask


@pytest.mark.parametrize(
    ("answer", "kept"),
    [
        (dated(), Validators()),
        (dated('"1"'), Validators('"1"')),
        (dated('W/"1"', date=None), Validators('W/"1"')),
        (dated('"1"', MODIFIED), Validators('"1"', MODIFIED)),
        (dated(None, MODIFIED), Validators("", MODIFIED)),
        # It may be modified again within this second.
        (dated('"1"', MODIFIED, MODIFIED), Validators()),
        # Nobody knows how long ago that was.
        (dated('"1"', MODIFIED, None), Validators('"1"')),
        (dated('"1"', "yesterday"), Validators('"1"')),
        # A clock that is ahead, or a time that is made of the content.
        (dated('"1"', A_DAY_LATER, MODIFIED), Validators('"1"')),
        (dated(f'"{"x" * 300}"', MODIFIED), Validators("", MODIFIED)),
    ],
)
def test_the_validators_of_an_answer_are_kept_as_far_as_they_tell_one_version_from_the_next(
    fetch, answer, kept
):
    with shop(answer) as server:
        assert fetch(server.url).validators == kept


def test_a_table_is_asked_for_with_what_is_held_and_not_downloaded_if_it_is_the_same(ask, lines):
    with shop(status(304)) as server:
        answer = ask(server.url, Validators('W/"1"', MODIFIED))
    assert isinstance(answer, NotModified)
    assert answer.url == f"{server.url}/raw_orders.parquet"
    (headers,) = server.headers
    assert (headers["If-None-Match"], headers["If-Modified-Since"]) == ('W/"1"', MODIFIED)
    assert lines == []


def test_a_table_that_changed_is_downloaded_with_its_new_validators(ask):
    with shop(dated('"2"')) as server:
        answer = ask(server.url, Validators('"1"'))
    assert isinstance(answer, Download)
    assert answer.path.read_bytes() == PARQUET
    assert answer.validators == Validators('"2"')


def test_a_passing_fault_is_asked_again_with_what_is_held(ask):
    with shop(status(503), status(304)) as server:
        assert isinstance(ask(server.url, Validators('"1"')), NotModified)
    assert [headers["If-None-Match"] for headers in server.headers] == ['"1"', '"1"']


def test_an_unconditional_request_that_is_answered_not_modified_is_refused(fetch):
    with shop(status(304)) as server, pytest.raises(SourceError, match="304"):
        fetch(server.url)
    assert "If-None-Match" not in server.headers[0]


def test_a_request_is_the_same_for_the_same_source_table_and_window():
    source = TableSource("https://ann:p@shop.test?token=s3cret")
    keys = {
        source.request_key("raw_orders", None),
        source.request_key("raw_orders", OCTOBER),
        source.request_key("raw_items", None),
        TableSource("https://bob:p@shop.test?token=s3cret").request_key("raw_orders", None),
        TableSource("https://ann:p@shop.test?token=other").request_key("raw_orders", None),
    }
    assert len(keys) == 5
    assert source.request_key("raw_orders", OCTOBER) in keys
    named = [TableSource(f"http://127.0.0.1:{port}", identity="the shop") for port in (1, 2)]
    assert len({one.request_key("raw_orders", None) for one in named}) == 1


def validators(base_url: str, window: Window | None = None) -> Validators:
    source = TableSource(base_url, 3, first_pause_seconds=0.0, timeout_seconds=0.2)
    return source.validators("raw_orders", window)


def test_validators_come_from_the_head_of_the_answer_alone():
    with shop(status(200, ETag='"v1"')) as server:
        assert validators(server.url, OCTOBER) == Validators('"v1"')
    assert server.methods == ["HEAD"]
    assert server.asked == ["/data/raw_orders.parquet?start=2026-10-01&end=2026-11-01"]


@pytest.mark.parametrize("refusal", [405, 501])
def test_a_server_that_knows_get_alone_is_asked_by_get(refusal):
    with shop(status(refusal), status(200, ETag='"v1"')) as server:
        assert validators(server.url) == Validators('"v1"')
    assert server.methods == ["HEAD", "GET"]


def test_validators_are_asked_for_again_after_a_fault():
    with shop(status(503), hang_up, status(200, ETag='"v1"')) as server:
        assert validators(server.url) == Validators('"v1"')


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (status(404), "HEAD .*/raw_orders.parquet answered 404 Not Found. The source has no such table"),
        (status(500), "HEAD .*/raw_orders.parquet answered 500 .*Gave up after 3 attempts."),
        (silence, "HEAD .*/raw_orders.parquet did not answer within 0.2 s. Gave up after 3 attempts."),
    ],
)
def test_a_source_that_gives_no_validators_to_ask_for_says_why(fault, words):
    with shop(fault) as server, pytest.raises(SourceError, match=words) as failure:
        validators(f"http://{USER}:{PASSWORD}@{server.host}/data?token={TOKEN}")
    assert not any(secret in str(failure.value) for secret in (USER, PASSWORD, TOKEN))


def test_a_pause_that_a_server_asks_for_is_no_longer_than_there_is_time_for():
    with shop(status(503, Retry_After="3600"), status(200, ETag='"v1"')) as server:
        source = TableSource(server.url, longest_pause_seconds=0.01)
        assert source.validators("raw_orders", None) == Validators('"v1"')
