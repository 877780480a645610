"""Every fault of a source ends in one sentence, after as many requests as make sense."""

import io
import logging
from pathlib import Path
from traceback import format_exception

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from serverless_assets.ingestion.http_client import SourceError
from tests.ingestion.http_faults import GOOD_ANSWERS, HTTP_FAULTS, HttpFault
from tests.ingestion.scripted import (
    GOOD,
    OCTOBER,
    PARQUET,
    PASSWORD,
    TOKEN,
    USER,
    body,
    raw,
    redirect,
    shop,
    status,
)
from tests.raw_tables import RAW_ORDERS

every_fault = pytest.mark.parametrize("fault", HTTP_FAULTS.values(), ids=HTTP_FAULTS)


@every_fault
def test_fault_is_one_sentence_and_is_asked_again_only_if_it_may_pass(fetch, lines, caplog, fault: HttpFault):
    with shop(fault.answer) as server, pytest.raises(SourceError, match=fault.says) as raised:
        fetch(
            f"http://{USER}:{PASSWORD}@{server.host}/data?token={TOKEN}",
            OCTOBER,
            2,
            timeout_seconds=fault.timeout_seconds,
        )
    message = str(raised.value)
    attempts = 2 if fault.transient else 1
    assert len(server.asked) == attempts * fault.requests
    assert len(lines) == attempts - 1
    assert message.endswith("Gave up after 2 attempts.") == fault.transient
    assert message.startswith(f"GET http://{server.host}/data/raw_orders.parquet")
    assert "\n" not in message and len(message) < 400
    # The traceback too: Dagster shows it to everybody who sees the run.
    said = " ".join([message, *lines, caplog.text, *format_exception(raised.value)])
    assert not any(secret in said for secret in (USER, PASSWORD, TOKEN))


@pytest.mark.parametrize("fault", [fault for fault in HTTP_FAULTS.values() if fault.transient])
def test_fault_that_passes_leaves_no_trace_in_the_file(fetch, lines, fault: HttpFault):
    with shop(fault.answer, GOOD) as server:
        assert fetch(server.url, timeout_seconds=fault.timeout_seconds).path.read_bytes() == PARQUET
    assert len(server.asked) == 2 and "Attempt 1 of 3" in lines[0]


@pytest.mark.parametrize("answer", GOOD_ANSWERS.values(), ids=GOOD_ANSWERS)
def test_odd_answer_with_the_whole_file_is_taken(fetch, lines, answer):
    with shop(answer) as server:
        download = fetch(server.url)
    assert download.path.read_bytes() == PARQUET and download.bytes == len(PARQUET)
    assert lines == []


def test_parquet_without_any_rows_is_a_complete_file(fetch):
    sink = io.BytesIO()
    pq.write_table(pa.table({"id": pa.array([], pa.string())}), sink)
    empty = sink.getvalue()
    with shop(body(empty, len(empty))) as server:
        assert fetch(server.url).path.read_bytes() == empty


def test_malformed_header_does_not_bring_the_token_into_the_log(fetch, caplog):
    caplog.set_level(logging.INFO)
    with shop(GOOD_ANSWERS["a header that is none"]) as server:
        fetch(f"{server.url}?token={TOKEN}")
    assert TOKEN not in caplog.text


def test_text_that_a_server_sends_is_shown_short_and_without_control_characters(fetch):
    answer = raw(b"HTTP/1.1 400 \x1b[31m" + b"x" * 1000 + b"\r\nContent-Length: 0\r\n\r\n")
    with shop(answer) as server, pytest.raises(SourceError) as raised:
        fetch(server.url)
    assert "\x1b" not in str(raised.value) and len(str(raised.value)) < 200


def test_fault_after_a_redirect_names_both_addresses(fetch):
    with (
        shop(status(404)) as other,
        shop(redirect(f"{other.url}/moved?token={TOKEN}")) as server,
        pytest.raises(SourceError) as raised,
    ):
        fetch(server.url)
    assert f"redirected to {other.url}/moved, answered 404" in str(raised.value)
    assert TOKEN not in str(raised.value)


def test_full_disk_is_one_sentence_and_not_asked_again(source, lines):
    with (
        shop(GOOD) as server,
        pytest.raises(SourceError, match="cannot be written to /dev/full: No space left"),
    ):
        source(server.url).fetch(RAW_ORDERS, None, Path("/dev/full"), lines.append)
    assert len(server.asked) == 1 and lines == []
