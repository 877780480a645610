import logging
import socket
from base64 import b64encode
from threading import Event
from traceback import format_exception
from urllib.parse import parse_qsl, urlsplit

import pytest

from serverless_assets.ingestion.download import (
    SourceError,
    TableSource,
    table_url,
    without_credentials,
)
from tests.ingestion.scripted import (
    CUT_SHORT,
    FAULTS,
    GOOD,
    NO_END,
    OCTOBER,
    PARQUET,
    PASSWORD,
    TOKEN,
    USER,
    body,
    half_a_file_then_silence,
    hang_up,
    shop,
    silence,
    status,
)

every_fault = pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)


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
