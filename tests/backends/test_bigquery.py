"""What BigQuery adds to a warehouse's promises.

A proxy in front of the emulator shows what is sent to Google, and answers as Google does where the emulator
cannot: refusals, bills, jobs that take their time.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import pyarrow as pa
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from google.cloud import bigquery

from serverless_assets.settings import PROJECT_ROOT
from serverless_assets.warehouse import TableShape, WarehouseError
from serverless_assets.warehouse.bigquery import STAGING_PREFIX, BigQueryWarehouse
from serverless_assets.warehouse.bigquery_jobs import JOB_TIMEOUT_MS
from tests.backends.conftest import GIB, Backend, Google
from tests.backends.test_warehouse import FEBRUARY, MARCH, ORDERS, STOCK, kept_orders, nothing, orders
from tests.services.bigquery import PROJECT
from tests.services.process import free_port
from tests.services.proxy import Answer, Asked, Proxy, proxy

pytestmark = pytest.mark.gcp

DENIED = Answer.error(
    403,
    "accessDenied",
    "Access Denied: Dataset p:d: Permission bigquery.tables.create denied on dataset p:d.",
)
TOO_DEAR = Answer.error(
    400, "bytesBilledLimitExceeded", "Query exceeded limit for bytes billed: 10. 10485760 or higher required."
)

Write = Callable[[BigQueryWarehouse, Path], object]
FIRST_NOTE = {"content": "first"}


def write_all(warehouse: BigQueryWarehouse, path: Path) -> object:
    return warehouse.replace(ORDERS, path, {"content": "second"})


def write_window(warehouse: BigQueryWarehouse, path: Path) -> object:
    return warehouse.replace_between(ORDERS, path, FEBRUARY, MARCH, {"content": "second"})


@dataclass(frozen=True)
class Watched:
    """A backend with rows in its warehouse, all of whose calls go through `proxy`."""

    backend: Backend
    warehouse: BigQueryWarehouse
    proxy: Proxy
    rows: Path

    def relations(self) -> set[str]:
        """The names of everything in the dataset, as Google knows them."""
        return _relations(self.warehouse)


@pytest.fixture
def watched(gcp_backend: Backend, google: Google, monkeypatch: pytest.MonkeyPatch) -> Iterator[Watched]:
    warehouse = gcp_backend.warehouse
    assert isinstance(warehouse, BigQueryWarehouse)
    warehouse.replace(ORDERS, gcp_backend.file(orders(*STOCK)), {"content": "first"})
    with proxy(google.bigquery.url) as running:
        monkeypatch.setenv("BIGQUERY_EMULATOR_HOST", running.url)
        path = gcp_backend.file(orders(("x", datetime(2026, 2, 14), 20)))
        yield Watched(gcp_backend, warehouse, running, path)


def _relations(warehouse: BigQueryWarehouse) -> set[str]:
    with bigquery.Client(warehouse.project) as client:
        return {item.table_id for item in client.list_tables(warehouse.dataset)}


def refusing(method: str, path: str, answer: Answer) -> Callable[[Asked], Answer | None]:
    """An answer to every request of this kind."""

    def instead(request: Asked) -> Answer | None:
        return answer if request.method == method and path in request.path else None

    return instead


def is_swap(request: Asked) -> bool:
    return (
        request.method == "POST" and request.path.split("?")[0].endswith("/jobs") and not is_upload(request)
    )


def is_upload(request: Asked) -> bool:
    return request.path.startswith("/upload/")


# The dataset


def test_a_missing_dataset_is_created_where_it_should_lie(google: Google) -> None:
    warehouse = BigQueryWarehouse(PROJECT, f"new_{uuid4().hex}", "EU", GIB)
    for _ in range(2):
        warehouse.prepare()
        assert warehouse.tables() == set()
    with bigquery.Client(PROJECT) as client:
        assert client.get_dataset(warehouse.dataset).location == "EU"


def test_a_dataset_in_another_location_is_refused_and_both_are_named(gcp_backend: Backend) -> None:
    warehouse = gcp_backend.warehouse
    assert isinstance(warehouse, BigQueryWarehouse)
    with pytest.raises(
        WarehouseError, match=r"lies in EU, and the settings say US.* SERVERLESS_LOCATION to EU"
    ):
        replace(warehouse, location="US").prepare()
    replace(warehouse, location="eu").prepare()


def test_a_dataset_that_may_not_be_created_is_told_with_the_role_that_may(watched: Watched) -> None:
    watched.proxy.instead = refusing("POST", "/datasets", DENIED)
    with pytest.raises(
        WarehouseError, match=r"project\.gone: BigQuery refused: Access.*dataEditor.*to create"
    ):
        replace(watched.warehouse, dataset="gone").prepare()


def test_a_missing_dataset_is_named(watched: Watched) -> None:
    missing = Answer.error(404, "notFound", "Not found: Dataset emulated-project:gone")
    watched.proxy.instead = refusing("POST", "/tables", missing)
    with pytest.raises(
        WarehouseError, match=r"\.orders: Not found: Dataset .*:gone\. Check .* in the settings"
    ):
        write_all(watched.warehouse, watched.rows)
    _assert_nothing_changed(watched)


def test_what_there_is_is_told_without_changing_anything(watched: Watched) -> None:
    assert watched.warehouse.name == f"BigQuery, {PROJECT}.{watched.warehouse.dataset} in EU"
    assert watched.warehouse.check() == "tables and views: 1"
    assert replace(watched.warehouse, dataset="gone").check() == "no dataset yet: the first run creates it"
    with pytest.raises(WarehouseError, match=r"lies in EU"):
        replace(watched.warehouse, location="US").check()
    assert [
        request for request in watched.proxy.asked if request.method != "GET" and not is_swap(request)
    ] == []
    for request in watched.proxy.asked:
        assert request.method == "GET" or request.json["configuration"]["dryRun"] is True


def test_an_account_that_may_not_run_queries_is_found_out_by_a_check(watched: Watched) -> None:
    watched.proxy.instead = refusing("POST", "/jobs", DENIED)
    with pytest.raises(WarehouseError, match=r"bigquery\.jobUser"):
        watched.warehouse.check()


# What is sent


@pytest.mark.parametrize("write", [write_all, write_window])
def test_a_table_is_written_by_one_load_and_one_statement(watched: Watched, write: Write) -> None:
    write(watched.warehouse, watched.rows)
    assert len(watched.proxy.find("POST", "/upload/")) == 1
    assert len([request for request in watched.proxy.asked if is_swap(request)]) == 1


def test_the_file_is_sent_in_pieces(watched: Watched) -> None:
    write_all(watched.warehouse, watched.rows)
    (start,) = watched.proxy.find("POST", "/upload/")
    (piece,) = watched.proxy.find("PUT", "/upload/")
    assert "uploadType=resumable" in start.path
    size = watched.rows.stat().st_size
    # The client's pieces are of 100 MB: this file is one.
    assert piece.headers["content-range"] == f"bytes 0-{size - 1}/{size}"
    assert piece.body == watched.rows.read_bytes()


@pytest.mark.parametrize("write", [write_all, write_window])
def test_every_job_carries_the_labels_and_every_query_the_limit(watched: Watched, write: Write) -> None:
    write(watched.warehouse, watched.rows)
    watched.warehouse.query(f"select 1 as one from {watched.warehouse.relation('orders')}")
    (load,) = watched.proxy.find("POST", "/upload/")
    swap, query = (request.json["configuration"] for request in watched.proxy.asked if is_swap(request))
    assert load.json["configuration"]["labels"] == {"run": "test-1", "asset": "orders"}
    assert swap["labels"] == {"run": "test-1", "asset": "orders"}
    assert query["labels"] == {"run": "test-1"}
    for configuration in (load.json["configuration"], swap, query):
        assert int(configuration["jobTimeoutMs"]) == JOB_TIMEOUT_MS
    assert swap["query"]["maximumBytesBilled"] == query["query"]["maximumBytesBilled"] == str(GIB)


@pytest.mark.parametrize("write", [write_all, write_window])
def test_rows_are_staged_in_columns_of_their_own_types_for_an_hour(watched: Watched, write: Write) -> None:
    write(watched.warehouse, watched.rows)
    (staging,) = watched.proxy.find("POST", "/tables")
    types = [(field["name"], field["type"]) for field in staging.json["schema"]["fields"]]
    assert types == [("id", "STRING"), ("at", "DATETIME"), ("amount", "INT64")]
    assert 0 < int(staging.json["expirationTime"]) / 1000 - time.time() <= 3600
    load = watched.proxy.find("POST", "/upload/")[0].json["configuration"]["load"]
    assert load["schema"] == staging.json["schema"]
    assert load["destinationTable"] == staging.json["tableReference"]
    assert watched.relations() == {"orders"}


def test_a_table_is_laid_out_by_month_and_cluster(watched: Watched) -> None:
    write_all(watched.warehouse, watched.rows)
    new = replace(ORDERS, name="new")
    watched.warehouse.replace_between(new, watched.rows, FEBRUARY, MARCH, {})
    for request in watched.proxy.asked:
        if is_swap(request):
            statement = request.json["configuration"]["query"]["query"]
            assert "partition by timestamp_trunc(`at`, month)\ncluster by `id`, `amount`\n" in statement
            assert '("asset", ' in statement


@pytest.mark.live
def test_a_table_shows_its_layout(live_backend: Backend) -> None:
    warehouse = live_backend.warehouse
    assert isinstance(warehouse, BigQueryWarehouse)
    path = live_backend.file(orders(*STOCK))
    warehouse.replace(ORDERS, path, {})
    warehouse.replace_between(replace(ORDERS, name="new"), path, FEBRUARY, MARCH, {})
    with bigquery.Client(warehouse.project) as client:
        for name in ("orders", "new"):
            table = client.get_table(f"{warehouse.dataset}.{name}")
            assert (table.time_partitioning.type_, table.time_partitioning.field) == ("MONTH", "at")
            assert table.clustering_fields == ["id", "amount"]
            assert table.labels == {"run": "test-1", "asset": name}
            assert table.expires is None
            assert [(f.name, f.field_type) for f in table.schema] == [
                ("id", "STRING"),
                ("at", "TIMESTAMP"),
                ("amount", "INTEGER"),
            ]


def test_the_description_is_for_people_and_stays(watched: Watched) -> None:
    write_all(watched.warehouse, watched.rows)
    write_window(watched.warehouse, watched.rows)
    with bigquery.Client(watched.warehouse.project) as client:
        found = client.get_table(f"{watched.warehouse.dataset}.orders").description
    assert found == 'One row per order.\n\nserverless-assets: {"content": "second"}'


def test_what_people_add_to_a_description_stays_when_the_note_changes(watched: Watched) -> None:
    with bigquery.Client(watched.warehouse.project) as client:
        table = client.get_table(f"{watched.warehouse.dataset}.orders")
        table.description += "\n\nAsk Ada."
        client.update_table(table, ["description"])
        write_window(watched.warehouse, watched.rows)
        watched.warehouse.keep_notes({"orders": {"content": "third"}})
        found = client.get_table(f"{watched.warehouse.dataset}.orders").description
    assert found == 'One row per order.\n\nAsk Ada.\n\nserverless-assets: {"content": "third"}'


def test_a_window_load_that_is_killed_before_its_note_leaves_none(watched: Watched) -> None:
    script = f"""
from datetime import date
from pathlib import Path
from serverless_assets.warehouse.bigquery import BigQueryWarehouse
from tests.backends.test_warehouse import ORDERS
rows, start, end = Path({str(watched.rows)!r}), date(2026, 2, 1), date(2026, 3, 1)
warehouse = BigQueryWarehouse({PROJECT!r}, {watched.warehouse.dataset!r}, "EU", {GIB})
warehouse.replace_between(ORDERS, rows, start, end, {{"a": "b"}})
"""
    command = [sys.executable, "-c", script]
    with subprocess.Popen(command, cwd=PROJECT_ROOT) as load:

        def instead(request: Asked) -> Answer | None:
            if request.method == "PATCH" and '"a' in request.json.get("description", ""):
                load.kill()
                return DENIED
            return None

        watched.proxy.instead = instead
        load.wait()
    assert load.returncode == -signal.SIGKILL
    watched.proxy.instead = lambda request: None
    assert ("x", datetime(2026, 2, 14), 20) in kept_orders(watched.backend)
    assert watched.warehouse.notes()["orders"] == {}


def test_the_work_tells_the_jobs(watched: Watched) -> None:
    work = watched.warehouse.replace(ORDERS, watched.rows, {})
    (swap,) = (request.json["jobReference"]["jobId"] for request in watched.proxy.asked if is_swap(request))
    assert len(work.jobs) == 2
    assert work.jobs[1] == swap
    assert (work.bytes_processed, work.bytes_billed, work.slot_milliseconds) == (0, 0, 0)


def test_the_work_tells_what_google_charged(watched: Watched) -> None:
    def instead(request: Asked) -> Answer | None:
        if is_swap(request):
            charged = {"totalBytesProcessed": "11", "totalBytesBilled": "22", "totalSlotMs": "33"}
            return _job(request.json, "DONE", {"query": charged})
        return Answer(200, {"jobComplete": True}) if "/queries/" in request.path else None

    watched.proxy.instead = instead
    work = watched.warehouse.replace(ORDERS, watched.rows, {})
    assert (work.bytes_processed, work.bytes_billed, work.slot_milliseconds) == (11, 22, 33)


def _job(request: Mapping[str, Any], state: str, statistics: Mapping[str, Any]) -> Answer:
    return Answer(
        200,
        {
            "jobReference": {
                "projectId": PROJECT,
                "location": "EU",
                "jobId": "job",
                **request["jobReference"],
            },
            "configuration": request["configuration"],
            "status": {"state": state},
            "statistics": statistics,
        },
    )


# What is not done


@pytest.mark.parametrize("write", [write_all, write_window])
def test_a_query_that_is_too_dear_changes_nothing_and_names_the_setting(
    watched: Watched, write: Write
) -> None:
    watched.proxy.instead = lambda request: TOO_DEAR if is_swap(request) else None
    with pytest.raises(WarehouseError, match=r"10485760 or higher required\. .*SERVERLESS_MAX_BYTES_BILLED"):
        write(watched.warehouse, watched.rows)
    _assert_nothing_changed(watched)


@pytest.mark.parametrize("write", [write_all, write_window])
@pytest.mark.parametrize("path", ["/tables", "/upload/", "/jobs"])
def test_what_is_forbidden_changes_nothing_and_is_asked_once(
    watched: Watched, write: Write, path: str
) -> None:
    watched.proxy.instead = refusing("POST", path, DENIED)
    with pytest.raises(WarehouseError, match=r"\.orders: BigQuery refused: Access Denied.*bigquery\.jobUser"):
        write(watched.warehouse, watched.rows)
    assert len(watched.proxy.find("POST", path)) == 1
    _assert_nothing_changed(watched)


@pytest.mark.parametrize("write", [write_all, write_window])
def test_a_job_that_fails_changes_nothing(watched: Watched, write: Write) -> None:
    def instead(request: Asked) -> Answer | None:
        if not is_swap(request):
            return None
        answer = _job(request.json, "DONE", {})
        answer.content["status"]["errorResult"] = {"reason": "resourcesExceeded", "message": "Out of memory."}
        return answer

    watched.proxy.instead = instead
    with pytest.raises(WarehouseError, match=r"\.orders: Out of memory\."):
        write(watched.warehouse, watched.rows)
    _assert_nothing_changed(watched)


@pytest.mark.parametrize("write", [write_all, write_window])
@pytest.mark.parametrize("step", ["the load", "the swap"])
def test_an_interrupted_write_ends_its_job_and_changes_nothing(
    watched: Watched, write: Write, step: str
) -> None:
    def instead(request: Asked) -> Answer | None:
        if step == "the load" and is_upload(request) and request.method == "PUT":
            started = watched.proxy.find("POST", "/upload/")[0].json
            return _job(started, "RUNNING", {})
        if step == "the swap" and is_swap(request):
            return _job(request.json, "RUNNING", {})
        if "/cancel" in request.path:
            return Answer(200, {"job": {"status": {"state": "DONE"}}})
        if request.method == "GET" and "/jobs/" in request.path:
            # The client waits for this answer in the main thread.
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.2)
            return _job({"jobReference": {}, "configuration": {}}, "RUNNING", {})
        return None

    watched.proxy.instead = instead
    with pytest.raises(KeyboardInterrupt):
        write(watched.warehouse, watched.rows)
    assert len(watched.proxy.find("POST", "/cancel")) == 1
    # Nobody knows whether a merge that was cancelled had been done.
    unknown = write is write_window and step == "the swap"
    _assert_nothing_changed(watched, {} if unknown else FIRST_NOTE)


def test_a_staging_table_that_cannot_be_dropped_hides_neither_success_nor_failure(watched: Watched) -> None:
    watched.proxy.instead = refusing("DELETE", "/tables", DENIED)
    write_all(watched.warehouse, watched.rows)
    assert any(name.startswith(STAGING_PREFIX) for name in watched.relations())
    assert watched.warehouse.tables() == {"orders"}
    assert kept_orders(watched.backend) == [("x", datetime(2026, 2, 14), 20)]


def test_a_note_that_is_too_long_is_refused_before_anything_is_sent(watched: Watched) -> None:
    with pytest.raises(WarehouseError, match=r"description 20,0\d\d characters long; BigQuery keeps 16,384"):
        watched.warehouse.replace(ORDERS, watched.rows, {"long": "x" * 20_000})
    assert watched.proxy.asked == []
    _assert_nothing_changed(watched)


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
        watched.warehouse.replace(shape, path, {})
    with pytest.raises(
        WarehouseError, match=r"column id is .*, which this project does not keep in BigQuery"
    ):
        watched.warehouse.replace_between(replace(shape, partitioned_by="id"), path, FEBRUARY, MARCH, {})
    _assert_nothing_changed(watched)


def _assert_nothing_changed(watched: Watched, note: Mapping[str, str] = FIRST_NOTE) -> None:
    watched.proxy.instead = lambda request: None
    assert kept_orders(watched.backend) == STOCK
    assert watched.warehouse.note("orders") == note
    assert watched.relations() == {"orders"}


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
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    content = {
        "type": "service_account",
        "client_email": "robot@example.com",
        "private_key": pem,
        "token_uri": f"{watched.proxy.url}/token",
    }
    path = tmp_path / "key.json"
    path.write_text(json.dumps(content))
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(path))
    answer = {"error": "invalid_grant", "error_description": f"Bad key {pem}"}
    watched.proxy.instead = refusing("POST", "/token", Answer(400, answer))
    with pytest.raises(WarehouseError, match=r"may have expired.*application-default login") as caught:
        watched.warehouse.tables()
    assert "PRIVATE KEY" not in str(caught.value)


# Views


def test_the_rows_of_a_view_are_counted(watched: Watched) -> None:
    with bigquery.Client(watched.warehouse.project) as client:
        view = bigquery.Table(f"{watched.warehouse.project}.{watched.warehouse.dataset}.some")
        view.view_query = f"select * from {watched.warehouse.relation('orders')} where amount > 2"
        client.create_table(view)
    assert watched.warehouse.row_count("some") == 3
    assert watched.warehouse.tables() == {"orders", "some"}
    assert watched.warehouse.note("some") == {}


def test_dbt_is_pointed_at_the_same_dataset() -> None:
    warehouse = BigQueryWarehouse("project-1", "dwh", "EU", 10)
    assert warehouse.dbt_variables() == {
        "GOOGLE_CLOUD_PROJECT": "project-1",
        "DBT_SCHEMA": "dwh",
        "SERVERLESS_LOCATION": "EU",
        "SERVERLESS_MAX_BYTES_BILLED": "10",
    }
