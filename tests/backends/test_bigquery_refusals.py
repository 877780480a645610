"""What BigQuery refuses, fails at, or does not answer: nothing changes, and people are told in words."""

import os
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pyarrow as pa
import pytest
import requests

from serverless_assets.warehouse import TableShape, WarehouseError
from serverless_assets.warehouse.staging import STAGING_PREFIX
from tests.backends.conftest import Google
from tests.backends.stock import FEBRUARY, MARCH, ORDERS, kept_orders, nothing
from tests.backends.watched import (
    DENIED,
    FIRST_NOTE,
    TOO_DEAR,
    Watched,
    Write,
    assert_nothing_changed,
    be_a_robot,
    changing,
    is_swap,
    is_upload,
    job,
    losing,
    refusing,
    write_all,
    write_window,
)
from tests.services.bigquery import PROJECT
from tests.services.process import free_port
from tests.services.proxy import Answer, Asked

pytestmark = pytest.mark.gcp

# What is not done


@pytest.mark.parametrize("write", [write_all, write_window])
def test_a_query_that_is_too_dear_changes_nothing_and_names_the_setting(
    watched: Watched, write: Write
) -> None:
    watched.proxy.instead = lambda request: TOO_DEAR if is_swap(request) else None
    with pytest.raises(WarehouseError, match=r"10485760 or higher required\. .*SERVERLESS_MAX_BYTES_BILLED"):
        write(watched.warehouse, watched.rows)
    assert_nothing_changed(watched)


@pytest.mark.parametrize("write", [write_all, write_window])
@pytest.mark.parametrize("path", ["/tables", "/upload/", "/jobs"])
def test_what_is_forbidden_changes_nothing_and_is_asked_once(
    watched: Watched, write: Write, path: str
) -> None:
    watched.proxy.instead = refusing("POST", path, DENIED)
    with pytest.raises(WarehouseError, match=r"\.orders: BigQuery refused: Access Denied.*bigquery\.jobUser"):
        write(watched.warehouse, watched.rows)
    assert len(watched.proxy.find("POST", path)) == 1
    assert_nothing_changed(watched)


@pytest.mark.parametrize("write", [write_all, write_window])
def test_a_job_that_fails_changes_nothing(watched: Watched, write: Write) -> None:
    def instead(request: Asked) -> Answer | None:
        if not is_swap(request):
            return None
        answer = job(request.json, "DONE", {})
        answer.content["status"]["errorResult"] = {"reason": "resourcesExceeded", "message": "Out of memory."}
        return answer

    watched.proxy.instead = instead
    with pytest.raises(WarehouseError, match=r"\.orders: Out of memory\."):
        write(watched.warehouse, watched.rows)
    assert_nothing_changed(watched)


@pytest.mark.parametrize("write", [write_all, write_window])
@pytest.mark.parametrize("step", ["the load", "the swap"])
def test_an_interrupted_write_ends_its_job_and_changes_nothing(
    watched: Watched, write: Write, step: str
) -> None:
    def instead(request: Asked) -> Answer | None:
        if step == "the load" and is_upload(request) and request.method == "PUT":
            started = watched.proxy.find("POST", "/upload/")[0].json
            return job(started, "RUNNING", {})
        if step == "the swap" and is_swap(request):
            return job(request.json, "RUNNING", {})
        if "/cancel" in request.path:
            return Answer(200, {"job": {"status": {"state": "DONE"}}})
        if request.method == "GET" and "/jobs/" in request.path:
            # The client waits for this answer in the main thread.
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.2)
            return job({"jobReference": {}, "configuration": {}}, "RUNNING", {})
        return None

    watched.proxy.instead = instead
    with pytest.raises(KeyboardInterrupt):
        write(watched.warehouse, watched.rows)
    assert len(watched.proxy.find("POST", "/cancel")) == 1
    # Nobody knows whether a merge that was cancelled had been done.
    unknown = write is write_window and step == "the swap"
    assert_nothing_changed(watched, {} if unknown else FIRST_NOTE)


@pytest.mark.parametrize("write", [write_all, write_window])
def test_a_load_of_fewer_rows_than_were_sent_changes_nothing(
    watched: Watched, google: Google, write: Write
) -> None:
    watched.proxy.instead = changing(
        google,
        lambda request: request.method == "PUT",
        lambda job: job["statistics"]["load"].update(outputRows="0"),
    )
    with pytest.raises(
        WarehouseError, match=r"\.orders: BigQuery took 0 of the 1 rows that were sent\. Noth"
    ):
        write(watched.warehouse, watched.rows)
    assert_nothing_changed(watched)


def is_asked_for_orders(request: Asked) -> bool:
    return request.method == "GET" and request.path.partition("?")[0].endswith("/tables/orders")


def test_a_table_that_holds_other_rows_than_were_written_is_marked_as_unfinished(
    watched: Watched, google: Google
) -> None:
    watched.proxy.instead = losing(is_asked_for_orders, "true")
    with pytest.raises(
        WarehouseError, match=r"\.orders: 1 rows were written to it, and it holds 0\. See whe"
    ):
        write_all(watched.warehouse, watched.rows)
    assert watched.warehouse.read_state("orders") == {
        "dirty_reason": "1 rows were written to it, and it holds 0"
    }


def test_a_table_of_which_metadata_knows_too_few_rows_is_counted(watched: Watched, google: Google) -> None:
    watched.proxy.instead = changing(google, is_asked_for_orders, lambda table: table.update(numRows="0"))
    write_all(watched.warehouse, watched.rows)
    watched.proxy.instead = lambda request: None
    assert watched.warehouse.read_state("orders") == {"content": "second"}


@pytest.mark.parametrize("changes", [True, False], ids=["of keys", "of months"])
def test_a_merge_of_fewer_rows_than_were_loaded_leaves_no_state(
    watched: Watched, google: Google, changes: bool
) -> None:
    merged = {"insertedRowCount": "0", "updatedRowCount": "0", "deletedRowCount": "1"}
    watched.proxy.instead = changing(
        google, is_swap, lambda job: job["statistics"]["query"].update(dmlStats=merged)
    )
    with pytest.raises(
        WarehouseError, match=r"\.orders: 1 rows were to be merged into it, and 0 were\. The n"
    ):
        if changes:
            keyed = replace(ORDERS, key=("id",))
            watched.warehouse.upsert_rows(keyed, watched.rows, {"content": "second"}, (FEBRUARY,))
        else:
            write_window(watched.warehouse, watched.rows)
    assert watched.warehouse.read_state("orders") == {}


def test_a_staging_table_that_cannot_be_dropped_hides_neither_success_nor_failure(watched: Watched) -> None:
    watched.proxy.instead = refusing("DELETE", "/tables", DENIED)
    write_all(watched.warehouse, watched.rows)
    assert any(name.startswith(STAGING_PREFIX) for name in watched.relations())
    assert watched.warehouse.tables() == {"orders"}
    assert kept_orders(watched.backend) == [("x", datetime(2026, 2, 14), 20)]


def test_a_note_that_is_too_long_is_refused_before_anything_is_sent(watched: Watched) -> None:
    with pytest.raises(WarehouseError, match=r"description 20,0\d\d characters long; BigQuery keeps 16,384"):
        watched.warehouse.replace_rows(ORDERS, watched.rows, {"long": "x" * 20_000})
    assert watched.proxy.asked == []
    assert_nothing_changed(watched)


@pytest.mark.parametrize(
    "type_",
    [pa.list_(pa.int64()), pa.timestamp("ns"), pa.timestamp("us", "UTC"), pa.decimal128(38, 10), pa.int32()],
)
def test_a_type_that_is_not_kept_is_refused_in_words(watched: Watched, type_: pa.DataType) -> None:
    shape = TableShape("orders", pa.schema({"id": type_}))
    path = watched.backend.file(nothing(shape.schema))
    with pytest.raises(
        WarehouseError, match=r"column id is .*, which this project does not keep in BigQuery"
    ):
        watched.warehouse.replace_rows(shape, path, {})
    with pytest.raises(
        WarehouseError, match=r"column id is .*, which this project does not keep in BigQuery"
    ):
        watched.warehouse.replace_rows(replace(shape, partitioned_by="id"), path, {}, (FEBRUARY, MARCH))
    assert_nothing_changed(watched)


# Who is asked, and as whom


def test_an_unreachable_google_is_told_within_seconds(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = free_port()
    monkeypatch.setenv("BIGQUERY_EMULATOR_HOST", f"http://127.0.0.1:{port}")
    warehouse = replace(watched.warehouse, patience=0.5)
    asked = {
        "prepare": warehouse.prepare,
        "tables": warehouse.tables,
        "query": lambda: warehouse.query("select 1"),
        "replace": lambda: write_all(warehouse, watched.rows),
        "replace_between": lambda: write_window(warehouse, watched.rows),
    }
    for ask in asked.values():
        started = time.monotonic()
        with pytest.raises(WarehouseError, match=f"127.0.0.1:{port} cannot be reached"):
            ask()
        assert time.monotonic() - started < 5


@pytest.mark.parametrize("path", [None, "/nowhere/key.json"])
def test_missing_credentials_are_told_with_how_to_get_them(
    watched: Watched, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, path: str | None
) -> None:
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path))
    monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS")
    if path:
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", path)
    with pytest.raises(
        WarehouseError, match=r"no Google credentials.*`gcloud auth application-default login`"
    ):
        watched.warehouse.tables()
    assert watched.proxy.asked == []


def test_credentials_that_are_not_taken_are_told_without_showing_them(
    watched: Watched, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pem = be_a_robot(watched, monkeypatch, tmp_path)
    answer = {"error": "invalid_grant", "error_description": f"Bad key {pem}"}
    watched.proxy.instead = refusing("POST", "/token", Answer(400, answer))
    with pytest.raises(WarehouseError, match=r"may have expired.*application-default login") as caught:
        watched.warehouse.tables()
    assert "PRIVATE KEY" not in str(caught.value)


# What passes


def failing(reason: str, times: int) -> Callable[[Asked], Answer | None]:
    """Have the first statements fail as jobs, for this reason."""
    left = [reason] * times

    def instead(request: Asked) -> Answer | None:
        if not is_swap(request) or not left:
            return None
        answer = job(request.json, "DONE", {})
        answer.content["status"]["errorResult"] = {"reason": left.pop(), "message": "Not now."}
        return answer

    return instead


@pytest.mark.parametrize("write", [write_all, write_window])
def test_a_statement_that_fails_for_a_passing_reason_is_run_again(watched: Watched, write: Write) -> None:
    watched.proxy.instead = failing("backendError", times=1)
    write(watched.warehouse, watched.rows)
    assert len([request for request in watched.proxy.asked if is_swap(request)]) == 2
    assert ("x", datetime(2026, 2, 14), 20) in kept_orders(watched.backend)
    assert watched.warehouse.read_state("orders") == {"content": "second"}


def test_a_load_that_fails_for_a_passing_reason_is_sent_again(watched: Watched) -> None:
    def instead(request: Asked) -> Answer | None:
        if request.method != "PUT" or len(watched.proxy.find("PUT", "/upload/")) > 1:
            return None
        answer = job(watched.proxy.find("POST", "/upload/")[0].json, "DONE", {})
        answer.content["status"]["errorResult"] = {"reason": "backendError", "message": "Not now."}
        return answer

    watched.proxy.instead = instead
    write_all(watched.warehouse, watched.rows)
    assert len(watched.proxy.find("PUT", "/upload/")) == 2
    assert kept_orders(watched.backend) == [("x", datetime(2026, 2, 14), 20)]


GONE = Answer.error(410, "backendError", "The upload is gone.")
FORGOTTEN = Answer.error(404, "notFound", "Upload session not found.")


@pytest.mark.parametrize(
    ("arrives", "answer"),
    [(False, GONE), (True, GONE), (True, FORGOTTEN)],
    ids=["no rows", "all rows", "all rows, forgotten"],
)
def test_an_upload_that_is_gone_begins_again(
    watched: Watched, google: Google, arrives: bool, answer: Answer
) -> None:
    """Google may answer so, too, where the rows arrived and its answer got lost."""

    def instead(request: Asked) -> Answer | None:
        if request.method != "PUT" or len(watched.proxy.find("PUT", "/upload/")) > 1:
            return None
        if arrives:
            address, headers = google.bigquery.url + request.path, dict(request.headers)
            requests.put(address, data=request.body, headers=headers, timeout=60).raise_for_status()
        return answer

    watched.proxy.instead = instead
    write_all(watched.warehouse, watched.rows)
    assert len(watched.proxy.find("POST", "/upload/")) == len(watched.proxy.find("PUT", "/upload/")) == 2
    assert kept_orders(watched.backend) == [("x", datetime(2026, 2, 14), 20)]


def test_an_upload_that_is_always_gone_changes_nothing_and_is_transient(watched: Watched) -> None:
    watched.proxy.instead = refusing("PUT", "/upload/", GONE)
    with pytest.raises(WarehouseError, match=r"\.orders: The upload is gone\. Wait a moment") as told:
        write_all(replace(watched.warehouse, patience=0.0), watched.rows)
    assert told.value.transient
    assert len(watched.proxy.find("PUT", "/upload/")) == 1
    assert_nothing_changed(watched)


@pytest.mark.parametrize(("patience", "attempts"), [(0.0, 1), (1.0, 2)])
def test_an_upload_is_tried_for_as_long_as_other_calls(
    watched: Watched, patience: float, attempts: int
) -> None:
    watched.proxy.instead = refusing("POST", "/upload/", Answer.error(503, "backendError", "Try again."))
    with pytest.raises(WarehouseError, match="Try again"):
        write_all(replace(watched.warehouse, patience=patience), watched.rows)
    assert len(watched.proxy.find("POST", "/upload/")) == attempts
    assert_nothing_changed(watched)


def test_a_window_that_is_refused_for_its_rate_leaves_the_note_of_the_table(watched: Watched) -> None:
    watched.proxy.instead = failing("rateLimitExceeded", times=9)
    with pytest.raises(WarehouseError, match=r"Not now\. Wait a moment and run again\.") as told:
        write_window(replace(watched.warehouse, patience=0.0), watched.rows)
    assert told.value.transient
    assert_nothing_changed(watched)


def test_a_staging_table_whose_answer_got_lost_is_used(watched: Watched, google: Google) -> None:
    lost = []

    def instead(request: Asked) -> Answer | None:
        if request.method != "POST" or not request.path.split("?")[0].endswith("/tables") or lost:
            return None
        lost.append(
            requests.post(google.bigquery.url + request.path, json=request.json, timeout=60).status_code
        )
        return Answer.error(503, "backendError", "Try again.")

    watched.proxy.instead = instead
    write_all(watched.warehouse, watched.rows)
    assert lost == [200]
    assert watched.warehouse.read_state("orders") == {"content": "second"}


def test_a_dataset_whose_tables_expire_is_refused_with_the_command_that_mends_it(watched: Watched) -> None:
    answer = {
        "datasetReference": {"projectId": PROJECT, "datasetId": watched.warehouse.dataset},
        "location": "EU",
        "defaultPartitionExpirationMs": str(60 * 24 * 3600 * 1000),
    }
    watched.proxy.instead = refusing("GET", f"/datasets/{watched.warehouse.dataset}?", Answer(200, answer))
    for ask in (watched.warehouse.prepare, watched.warehouse.check):
        with pytest.raises(WarehouseError, match=r"each partition 60 days.*--default_partition_expiration 0"):
            ask()
