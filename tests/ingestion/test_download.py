import socket
from base64 import b64encode
from threading import Event
from traceback import format_exception
from urllib.parse import parse_qsl, urlsplit

import pytest

from serverless_assets.ingestion.http_client import SourceError
from serverless_assets.ingestion.source import HttpSource, table_url
from tests.ingestion.scripted import (
    GOOD,
    OCTOBER,
    PARQUET,
    PASSWORD,
    TOKEN,
    USER,
    body,
    raw,
    shop,
    status,
)
from tests.raw_tables import RAW_ORDERS


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


def test_a_longer_wrong_answer_leaves_nothing_behind_the_right_one(fetch):
    with shop(body(PARQUET + bytes(1000)), GOOD) as server:
        assert fetch(server.url).path.read_bytes() == PARQUET


def test_the_pause_that_the_server_asks_for_is_the_pause_that_is_made(fetch, lines):
    with shop(status(429, Retry_After="0"), GOOD) as server:
        fetch(server.url)
    assert lines[0].endswith("asking again in 0.0 s.")
    assert "429" in lines[0]


def test_the_pause_that_the_server_asks_for_by_a_date_is_made(fetch, lines):
    busy = raw(
        b"HTTP/1.1 503 Busy\r\nDate: Fri, 27 Nov 2026 20:00:00 GMT\r\n"
        b"Retry-After: Fri, 27 Nov 2026 20:00:01 GMT\r\nContent-Length: 0\r\n\r\n"
    )
    with shop(busy, GOOD) as server:
        fetch(server.url)
    assert lines[0].endswith("asking again in 1.0 s.")


def test_a_server_that_is_not_there_is_asked_again_too(fetch, lines):
    with socket.socket() as nobody:
        # Bound but not listening: the port is nobody else's, and refuses.
        nobody.bind(("127.0.0.1", 0))
        with pytest.raises(
            SourceError, match=r"no connection \(connection refused\)\. Gave up after 3 attempts"
        ):
            fetch(f"http://127.0.0.1:{nobody.getsockname()[1]}")
    # Of the first attempt alone: the error counts them.
    assert len(lines) == 1


def test_a_cancelled_download_is_not_asked_again(tmp_path):
    cancelled = Event()
    with shop(status(500)) as server:
        source = HttpSource(server.url, attempts=5, first_pause_seconds=60.0, cancelled=cancelled)
        # The minute's pause has begun when the line is logged: cancelling ends it.
        with pytest.raises(SourceError):
            source.fetch(RAW_ORDERS, None, tmp_path / "file", lambda _: cancelled.set())
    assert len(server.asked) <= 2


# ---- refused at once


def test_an_address_that_cannot_be_asked_is_refused_without_asking(fetch, lines):
    with pytest.raises(SourceError, match="not an address") as raised:
        fetch(f"http://{USER}:{PASSWORD}@shop:port/data?token={TOKEN}")
    for secret in (USER, PASSWORD, TOKEN):
        assert secret not in "".join(format_exception(raised.value))
    assert lines == []


# ---- credentials


def test_credentials_reach_the_server_and_stay_out_of_the_download(fetch):
    with shop(GOOD) as server:
        download = fetch(f"http://{USER}:{PASSWORD}@{server.host}/data?token={TOKEN}")
    assert download.url == f"http://{server.host}/data/raw_orders.parquet"
    assert server.asked == [f"/data/raw_orders.parquet?token={TOKEN}"]
    assert server.headers[0]["Authorization"] == "Basic " + b64encode(f"{USER}:{PASSWORD}".encode()).decode()


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
