"""A download that is cancelled, interrupted or too slow ends at once, whatever it waits for."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, Thread

import pytest

from serverless_assets.ingestion.http_client import DownloadLimits, SourceError
from tests.ingestion.scripted import GOOD, SLOW_BODY, SLOW_HEADERS, Answer, drip, shop, silence, status
from tests.raw_tables import RAW_ORDERS

# Much longer than a test waits: what ends sooner did so because it was told to.
HOURS = 10_000.0
PATIENT = {"timeout_seconds": HOURS, "first_pause_seconds": HOURS, "longest_pause_seconds": HOURS}
SECONDS_TO_END = 30.0


@contextmanager
def unanswered() -> Iterator[tuple[str, Event]]:
    """A port that takes no connection: its queue is full."""
    with socket.socket() as listener, socket.socket() as first, socket.socket() as second:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for waiting in (first, second):
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())
        begun = Event()
        begun.set()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", begun


@contextmanager
def accepted() -> Iterator[tuple[str, Event]]:
    """A port that takes a connection and says nothing, to a client that expects TLS."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        begun = Event()
        begun.set()
        yield f"https://127.0.0.1:{listener.getsockname()[1]}", begun


@contextmanager
def asked(answer: Answer) -> Iterator[tuple[str, Event]]:
    with shop(answer) as server:
        yield server.url, server.asked_once


PHASES = {
    "connecting": unanswered,
    "the TLS handshake": accepted,
    "no headers": lambda: asked(silence),
    "slow headers": lambda: asked(SLOW_HEADERS),
    "a slow body": lambda: asked(SLOW_BODY),
    "a body that stops": lambda: asked(drip(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nPAR1", HOURS)),
    "a chunk that stops": lambda: asked(
        drip(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nPAR1", HOURS)
    ),
    "a pause between attempts": lambda: asked(status(503)),
    "a pause that the server asked for": lambda: asked(status(503, Retry_After="9999")),
}


@pytest.mark.parametrize("phase", PHASES.values(), ids=PHASES)
def test_cancelled_download_ends_whatever_it_waits_for(source, tmp_path, phase):
    with phase() as (url, begun):
        table_source = source(url, **PATIENT)
        ended: list[SourceError] = []

        def download() -> None:
            with pytest.raises(SourceError) as raised:
                table_source.fetch(RAW_ORDERS, None, tmp_path / "file", lambda line: None)
            ended.append(raised.value)

        thread = Thread(target=download, daemon=True)
        thread.start()
        assert begun.wait(SECONDS_TO_END)
        table_source.cancelled.set()
        thread.join(SECONDS_TO_END)
        assert len(ended) == 1


INTERRUPTED = """
import signal, sys, tempfile
from pathlib import Path
from serverless_assets.ingestion.source import HttpSource
from serverless_assets.ingestion.fetch import fetch_tables
from tests.raw_tables import TABLES
from serverless_assets.warehouse.duckdb import DuckDBWarehouse
signal.signal(signal.SIGINT, signal.default_int_handler)
with tempfile.TemporaryDirectory() as scratch:
    source = HttpSource(sys.argv[1], timeout_seconds=10_000)
    warehouse = DuckDBWarehouse(Path(scratch) / "warehouse.duckdb", "dwh")
    tables = fetch_tables(TABLES, source, warehouse, None, Path(scratch), print)
    print("begun", flush=True)
    try:
        next(tables)
    except KeyboardInterrupt:
        if sys.argv[2] == "close":
            raise
        # As an exception's traceback does, which keeps the generator from being closed.
        kept = tables
        sys.exit(3)
"""


@pytest.mark.parametrize("answer", [silence, SLOW_BODY], ids=["no headers", "a slow body"])
@pytest.mark.parametrize("after", ["close", "keep"])
def test_interrupted_process_ends_while_all_its_tables_download(answer, after):
    with shop(answer) as server:
        command = [sys.executable, "-c", INTERRUPTED, server.url, after]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
            try:
                assert server.asked_once.wait(60)
                process.send_signal(signal.SIGINT)
                assert process.wait(SECONDS_TO_END) != 0
            finally:
                process.kill()


def test_download_below_the_minimum_rate_says_how_slow_it_was_and_is_asked_again(fetch, lines):
    limits = DownloadLimits(minimum_rate=5000, rate_window_seconds=0.2)
    says = r"too slow: [\d,]+ bytes in .* s \([\d,]+ bytes/s\).*SERVERLESS_DOWNLOAD_MIN_RATE is 5,000"
    with shop(SLOW_BODY) as server, pytest.raises(SourceError, match=says) as raised:
        fetch(server.url, attempts=2, limits=limits)
    assert str(raised.value).endswith("Gave up after 2 attempts.")
    assert len(server.asked) == 2 and len(lines) == 1


def test_download_without_a_minimum_rate_may_be_slow_until_the_deadline(fetch, lines):
    limits = DownloadLimits(deadline_seconds=1.0, minimum_rate=0, rate_window_seconds=0.1)
    with (
        shop(SLOW_BODY) as server,
        pytest.raises(SourceError, match=r"not complete after 1 s.*bytes/s\).*SERVERLESS_DOWNLOAD_DEADLINE"),
    ):
        fetch(server.url, limits=limits)
    assert len(server.asked) == 1 and lines == []


@pytest.mark.parametrize("answer", [silence, SLOW_HEADERS], ids=["silence", "slow headers"])
def test_deadline_holds_before_any_headers_came_too(fetch, answer):
    limits = DownloadLimits(deadline_seconds=0.5)
    with shop(answer) as server, pytest.raises(SourceError, match=r"not complete after 0\.5 s"):
        fetch(server.url, limits=limits, **PATIENT)
    assert len(server.asked) == 1


def test_no_attempt_begins_after_the_deadline(fetch, lines):
    limits = DownloadLimits(deadline_seconds=5.0)
    says = r"answered 503 .*Gave up after 1 attempt\."
    with shop(status(503, Retry_After="9"), GOOD) as server, pytest.raises(SourceError, match=says):
        fetch(server.url, limits=limits)
    assert len(server.asked) == 1 and lines == []


def test_abandoned_download_neither_makes_a_file_nor_fills_it(source, tmp_path):
    path, go_on = tmp_path / "file", Event()

    def late(handler, test_over) -> None:
        go_on.wait(SECONDS_TO_END)
        GOOD(handler, test_over)

    with shop(late) as server:
        with pytest.raises(SourceError, match="not complete"):
            source(server.url, limits=DownloadLimits(deadline_seconds=0.5)).fetch(
                RAW_ORDERS, None, path, lambda line: None
            )
        path.unlink()
        go_on.set()
    assert not path.exists()


@pytest.mark.slow
@pytest.mark.parametrize("by", [signal.SIGTERM, signal.SIGINT])
def test_run_from_the_command_line_ends_while_its_source_is_slow(tmp_path, by):
    home = tmp_path / "home"
    with shop(SLOW_BODY) as server:
        variables = {"SERVERLESS_DATASET_URL": server.url, "SERVERLESS_HOME": str(home)}
        command = [sys.executable, "-c", "from serverless_assets.cli import main; main()", "run", "ingest"]
        with subprocess.Popen(
            command, env={**os.environ, **variables}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        ) as process:
            try:
                assert server.asked_once.wait(300)
                process.send_signal(by)
                said, _ = process.communicate(timeout=SECONDS_TO_END)
            finally:
                process.kill()
    assert process.returncode != 0 and b"Traceback" not in said
    assert not list(home.glob("scratch/*"))
