"""A table is asked for only if it changed: by the validators of the answer before."""

from http.server import BaseHTTPRequestHandler
from pathlib import Path
from threading import Event

import pytest

from serverless_assets.ingestion.fetch_result import Download, NotModified
from serverless_assets.ingestion.http import Validators
from serverless_assets.ingestion.http_client import SourceError
from serverless_assets.ingestion.source import HttpSource
from serverless_assets.months import Window
from tests.ingestion.scripted import (
    OCTOBER,
    PARQUET,
    PASSWORD,
    SLOW_BODY,
    TOKEN,
    USER,
    Answer,
    hang_up,
    raw,
    redirect,
    shop,
    silence,
    status,
)
from tests.raw_tables import RAW_ITEMS, RAW_ORDERS

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
        source = HttpSource(base_url, attempts=3, first_pause_seconds=0.0, timeout_seconds=10.0)
        return source.fetch(RAW_ORDERS, None, tmp_path / "file", lines.append, held)

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
        # It cannot be sent back.
        (dated('"1\x01"', "Tue, 01 Sep 2026 12:00:00 GMT\x01"), Validators()),
        (dated('"\xe4"', f"Tue, {'9' * 30} Sep 2026 12:00:00 GMT"), Validators()),
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
    source = HttpSource("https://ann:p@shop.test?token=s3cret")
    keys = {
        source.request_key(RAW_ORDERS, None),
        source.request_key(RAW_ORDERS, OCTOBER),
        source.request_key(RAW_ITEMS, None),
        HttpSource("https://bob:p@shop.test?token=s3cret").request_key(RAW_ORDERS, None),
        HttpSource("https://ann:p@shop.test?token=other").request_key(RAW_ORDERS, None),
    }
    assert len(keys) == 5
    assert source.request_key(RAW_ORDERS, OCTOBER) in keys
    named = [HttpSource(f"http://127.0.0.1:{port}", identity="the shop") for port in (1, 2)]
    assert len({one.request_key(RAW_ORDERS, None) for one in named}) == 1


def validators(base_url: str, window: Window | None = None, timeout_seconds: float = 10.0) -> Validators:
    source = HttpSource(base_url, attempts=3, first_pause_seconds=0.0, timeout_seconds=timeout_seconds)
    return source.validators(RAW_ORDERS, window)


def test_validators_come_from_the_head_of_the_answer_alone():
    with shop(status(200, ETag='"v1"')) as server:
        assert validators(server.url, OCTOBER) == Validators('"v1"')
    assert server.methods == ["HEAD"]
    assert server.asked == ["/data/raw_orders.parquet?start=2026-10-01&end=2026-11-01"]


@pytest.mark.parametrize("refusal", [400, 401, 403, 404, 405, 500, 501, 502])
def test_a_server_that_refuses_head_is_asked_by_get(refusal):
    with shop(status(refusal), status(200, ETag='"v1"')) as server:
        assert validators(server.url) == Validators('"v1"')
    assert server.methods == ["HEAD", "GET"]


@pytest.mark.parametrize("fault", [hang_up, raw(b"no HTTP"), redirect("file:///x")])
def test_a_server_that_does_not_understand_head_is_asked_by_get(fault):
    with shop(fault, status(200, ETag='"v1"')) as server:
        assert validators(server.url) == Validators('"v1"')
    assert server.methods == ["HEAD", "GET"]


def test_a_get_for_validators_leaves_the_body():
    with shop(status(403), SLOW_BODY) as server:
        assert validators(server.url) == Validators()
    assert server.methods == ["HEAD", "GET"]


def test_a_server_that_asks_to_wait_is_not_asked_by_get_at_once():
    with shop(status(503, Retry_After="0"), status(200, ETag='"v1"')) as server:
        assert validators(server.url) == Validators('"v1"')
    assert server.methods == ["HEAD", "HEAD"]


def test_validators_are_asked_for_again_after_a_fault():
    with shop(status(503), hang_up, status(200, ETag='"v1"')) as server:
        assert validators(server.url) == Validators('"v1"')


@pytest.mark.parametrize(
    ("fault", "timeout_seconds", "words"),
    [
        (status(404), 10.0, "GET .*/raw_orders.parquet answered 404 Not Found. The source has no such table"),
        (status(500), 10.0, "GET .*/raw_orders.parquet answered 500 .*Gave up after 3 attempts."),
        (silence, 0.1, "GET .*/raw_orders.parquet did not answer within 0.1 s. Gave up after 3 attempts."),
    ],
)
def test_a_source_that_gives_no_validators_to_ask_for_says_why(fault, timeout_seconds, words):
    with shop(fault) as server, pytest.raises(SourceError, match=words) as failure:
        address = f"http://{USER}:{PASSWORD}@{server.host}/data?token={TOKEN}"
        validators(address, timeout_seconds=timeout_seconds)
    assert not any(secret in str(failure.value) for secret in (USER, PASSWORD, TOKEN))


def test_a_pause_that_a_server_asks_for_is_no_longer_than_there_is_time_for():
    with shop(status(503, Retry_After="3600"), status(200, ETag='"v1"')) as server:
        source = HttpSource(server.url, longest_pause_seconds=0.01)
        assert source.validators(RAW_ORDERS, None) == Validators('"v1"')
