"""What BigQuery adds to a warehouse's promises.

A proxy in front of the emulator shows what is sent to Google, and answers as Google does where the emulator
cannot: refusals, bills, jobs that take their time.
"""

import json
import signal
import subprocess
import sys
import time
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from uuid import uuid4

import pandas as pd
import pytest
import requests
import yaml
from dagster import DagsterType
from google.cloud import bigquery

from serverless_assets import google_errors
from serverless_assets.project_root import PROJECT_ROOT
from serverless_assets.python_assets.pandas_tables import read_frame
from serverless_assets.transformation.profiles import write_profile
from serverless_assets.warehouse import WarehouseError
from serverless_assets.warehouse.bigquery import BigQueryWarehouse
from serverless_assets.warehouse.bigquery_jobs import JOB_TIMEOUT_MS
from tests.backends.conftest import GIB, Backend, Google, environment
from tests.backends.stock import FEBRUARY, MARCH, ORDERS, STOCK, kept_orders, orders
from tests.backends.watched import (
    DENIED,
    FIRST_NOTE,
    Watched,
    Write,
    assert_nothing_changed,
    be_a_robot,
    changing,
    is_swap,
    job,
    refusing,
    write_all,
    write_window,
)
from tests.services.bigquery import PROJECT
from tests.services.proxy import Answer, Asked
from tests.services.tokens import IAM, LOGIN, REFUSED, impersonating, tokens

pytestmark = pytest.mark.gcp

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
    assert_nothing_changed(watched)


def test_what_there_is_is_told_without_changing_anything(watched: Watched) -> None:
    assert watched.warehouse.name == f"BigQuery, {PROJECT}.{watched.warehouse.dataset} in EU"
    assert watched.warehouse.check() == f"jobs run in {PROJECT}; tables and views: 1"
    missing = replace(watched.warehouse, dataset="gone").check()
    assert missing == f"jobs run in {PROJECT}; no dataset yet: the first run creates it"
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
    watched.warehouse.query(f"select 1 as one from {watched.warehouse.quoted_name('orders')}")
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
    watched.warehouse.replace_rows(new, watched.rows, {}, (FEBRUARY, MARCH))
    for request in watched.proxy.asked:
        if is_swap(request):
            statement = request.json["configuration"]["query"]["query"]
            assert "partition by timestamp_trunc(`at`, month)\ncluster by `id`, `amount`\n" in statement
            assert '("asset", ' in statement


@pytest.mark.parametrize(
    "refusal",
    [
        "Cannot replace a table with a different partitioning spec. Instead, DROP the table, and then "
        "recreate it. New partitioning spec is interval(type:MONTH,field:at) and existing spec is none",
        "emulated-project:dwh.orders is not allowed for this operation because it is currently a VIEW.",
    ],
)
def test_a_table_takes_the_place_of_one_of_another_layout_or_of_a_view(
    watched: Watched, refusal: str
) -> None:
    def instead(request: Asked) -> Answer | None:
        is_dropped = watched.proxy.find("DELETE", "/tables/orders")
        return Answer.error(400, "invalidQuery", refusal) if is_swap(request) and not is_dropped else None

    watched.proxy.instead = instead
    write_all(watched.warehouse, watched.rows)
    assert kept_orders(watched.backend) == [("x", datetime(2026, 2, 14), 20)]
    assert watched.warehouse.read_state("orders") == {"content": "second"}


@pytest.mark.live
@pytest.mark.parametrize("unit", ["month", "day"])
def test_a_table_shows_its_layout(live_backend: Backend, unit: str) -> None:
    warehouse = live_backend.warehouse
    assert isinstance(warehouse, BigQueryWarehouse)
    path = live_backend.file(orders(*STOCK))
    shape = replace(ORDERS, partition_unit=unit)
    warehouse.replace_rows(shape, path, {})
    warehouse.replace_rows(replace(shape, name="new"), path, {}, (FEBRUARY, MARCH))
    with bigquery.Client(warehouse.project) as client:
        for name in ("orders", "new"):
            table = client.get_table(f"{warehouse.dataset}.{name}")
            assert (table.time_partitioning.type_, table.time_partitioning.field) == (unit.upper(), "at")
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
        watched.warehouse.write_states({"orders": {"content": "third"}})
        found = client.get_table(f"{watched.warehouse.dataset}.orders").description
    assert found == 'One row per order.\n\nAsk Ada.\n\nserverless-assets: {"content": "third"}'


def test_a_window_load_that_is_killed_before_its_note_leaves_none(watched: Watched) -> None:
    script = f"""
from datetime import date
from pathlib import Path
from serverless_assets.warehouse.bigquery import BigQueryWarehouse
from tests.backends.stock import ORDERS
rows, start, end = Path({str(watched.rows)!r}), date(2026, 2, 1), date(2026, 3, 1)
warehouse = BigQueryWarehouse({PROJECT!r}, {watched.warehouse.dataset!r}, "EU", {GIB})
warehouse.replace_rows(ORDERS, rows, {{"a": "b"}}, (start, end))
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
    assert watched.warehouse.read_states()["orders"] == {}


def test_the_work_tells_the_jobs(watched: Watched) -> None:
    work = watched.warehouse.replace_rows(ORDERS, watched.rows, {})
    (swap,) = (request.json["jobReference"]["jobId"] for request in watched.proxy.asked if is_swap(request))
    assert len(work.jobs) == 2
    assert work.jobs[1] == swap
    assert (work.bytes_processed, work.bytes_billed, work.slot_milliseconds) == (0, 0, 0)


def test_the_work_tells_what_google_charged(watched: Watched, google: Google) -> None:
    charged = {"totalBytesProcessed": "11", "totalBytesBilled": "22", "totalSlotMs": "33"}
    watched.proxy.instead = changing(google, is_swap, lambda job: job["statistics"]["query"].update(charged))
    work = watched.warehouse.replace_rows(ORDERS, watched.rows, {})
    assert (work.bytes_processed, work.bytes_billed, work.slot_milliseconds) == (11, 22, 33)


@pytest.mark.parametrize(("read", "billed"), [(0, 0), (11, 20 << 20), (1 << 30, 1 << 30)])
def test_an_estimate_has_the_least_that_is_billed_for_each_table(
    watched: Watched, read: int, billed: int
) -> None:
    tables = [{"projectId": PROJECT, "datasetId": "d", "tableId": name} for name in ("orders", "items")]
    query = {"totalBytesProcessed": str(read), "referencedTables": tables}

    def instead(request: Asked) -> Answer | None:
        return job(request.json, "DONE", {"query": query, "totalBytesProcessed": str(read)})

    watched.proxy.instead = instead
    assert watched.warehouse.bytes_to_read("select 1") == billed


# Who asks


def test_questions_in_a_row_take_one_token(
    watched: Watched, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    be_a_robot(watched, monkeypatch, tmp_path)
    token = {"access_token": "granted", "expires_in": 3600, "token_type": "Bearer"}
    watched.proxy.instead = refusing("POST", "/token", Answer(200, token))
    with watched.warehouse.connected():
        assert watched.warehouse.tables() == {"orders"}
        assert watched.warehouse.read_state("orders") == FIRST_NOTE
        write_all(watched.warehouse, watched.rows)
        assert watched.warehouse.row_count("orders") == 1
    assert len(watched.proxy.find("POST", "/token")) == 1
    assert watched.warehouse.tables() == {"orders"}
    assert len(watched.proxy.find("POST", "/token")) == 2


def test_a_token_that_expires_while_the_token_server_is_out_of_order_is_renewed_once_it_answers(
    watched: Watched, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    be_a_robot(watched, monkeypatch, tmp_path)
    unavailable = Answer(503, {"error": "temporarily_unavailable"})
    # Google's library tries three times by itself.
    tokens = iter(["first", None, None, None])

    def instead(request: Asked) -> Answer | None:
        if request.method == "POST" and request.path == "/token":
            token = next(tokens, "second")
            granted = {"access_token": token, "expires_in": 3600, "token_type": "Bearer"}
            return Answer(200, granted) if token else unavailable
        is_expired = watched.warehouse.dataset in request.path and len(watched.proxy.asked) > 6
        if is_expired and request.headers["authorization"] == "Bearer first":
            return Answer.error(401, "authError", "Request had invalid authentication credentials.")
        return None

    watched.proxy.instead = instead
    with watched.warehouse.connected():
        write_all(watched.warehouse, watched.rows)
    assert kept_orders(watched.backend) == [("x", datetime(2026, 2, 14), 20)]
    assert next(tokens, "all of them were given") == "all of them were given"


def test_jobs_run_in_the_execution_project_and_location_and_calls_are_on_the_project_of_the_data(
    watched: Watched,
) -> None:
    warehouse = replace(watched.warehouse, execution_project="jobs-project")
    write_all(warehouse, watched.rows)
    write_window(warehouse, watched.rows)
    warehouse.query(f"select * from {warehouse.quoted_name('orders')}")
    frame = read_frame(
        warehouse, "orders", {}, DagsterType(lambda _, value: True, typing_type=pd.DataFrame, name="frame")
    )
    assert frame["id"].tolist() == ["x"]
    assert warehouse.dbt_variables()["SERVERLESS_EXECUTION_PROJECT"] == "jobs-project"
    jobs = [
        request for request in watched.proxy.asked if request.method == "POST" and "/jobs" in request.path
    ]
    assert len(jobs) == 6
    for request in jobs:
        assert "/projects/jobs-project/jobs" in request.path
        assert request.json["jobReference"]["location"] == "EU"
    others = [request.path for request in watched.proxy.asked if "/datasets/" in request.path]
    assert others and all(f"/projects/{PROJECT}/" in path for path in others)


def test_the_check_names_the_account_that_jobs_run_as(
    watched: Watched, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    ran = {"user_email": "loader@shop.test", "jobReference": {"projectId": "jobs-project", "jobId": "1"}}
    watched.proxy.instead = refusing("POST", "/jobs", Answer(200, ran))
    found = replace(watched.warehouse, execution_project="jobs-project").check()
    assert found == "jobs run in jobs-project as loader@shop.test; tables and views: 1"
    be_a_robot(watched, monkeypatch, tmp_path)
    token = {"access_token": "granted", "expires_in": 3600, "token_type": "Bearer"}
    watched.proxy.instead = refusing("POST", "/token", Answer(200, token))
    assert watched.warehouse.check().startswith(f"jobs run in {PROJECT} as robot@example.com; ")


def test_whoever_impersonates_a_service_account_asks_as_that_account(
    watched: Watched, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    account = "loader@shop.iam.gserviceaccount.com"
    path = tmp_path / "adc.json"
    path.write_text(json.dumps(impersonating(account)))
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(path))
    with tokens(tmp_path) as running, environment(running.variables):
        assert watched.warehouse.check().startswith(f"jobs run in {PROJECT} as {account}; ")
        write_all(watched.warehouse, watched.rows)
        assert watched.proxy.asked
        for request in watched.proxy.asked:
            assert request.headers["authorization"] == "Bearer an-accounts"
        login, impersonation = running.asked[-2:]
        assert login[0] == f"{LOGIN}/token"
        assert "refresh_token=a-refresh-token" in login[2]
        assert impersonation[0] == f"{IAM}/v1/projects/-/serviceAccounts/{account}:generateAccessToken"
        assert impersonation[1]["authorization"] == "Bearer a-persons"
        assert json.loads(impersonation[2])["scope"] == ["https://www.googleapis.com/auth/cloud-platform"]
        asked = len(watched.proxy.asked)
        running.answers[IAM] = REFUSED
        with pytest.raises(WarehouseError, match=r"may not be impersonated\..*serviceAccountTokenCreator"):
            watched.warehouse.tables()
    assert len(watched.proxy.asked) == asked


def test_what_fails_between_two_questions_is_not_said_to_be_bigquerys(watched: Watched) -> None:
    with pytest.raises(requests.ConnectionError, match="another server"), watched.warehouse.connected():
        raise requests.ConnectionError("another server")
    assert watched.warehouse.tables() == {"orders"}


# Views


def test_rows_are_counted_without_a_query_and_those_of_a_view_not_at_all(watched: Watched) -> None:
    with bigquery.Client(watched.warehouse.project) as client:
        view = bigquery.Table(f"{watched.warehouse.project}.{watched.warehouse.dataset}.some")
        view.view_query = f"select * from {watched.warehouse.quoted_name('orders')} where amount > 2"
        client.create_table(view)
    assert watched.warehouse.row_count("orders") == len(STOCK)
    assert watched.warehouse.row_count("some") == 0
    assert not watched.proxy.find("POST", "/jobs")
    assert watched.warehouse.tables() == {"orders", "some"}
    assert watched.warehouse.read_state("some") == {}


def test_dbt_is_pointed_at_the_same_dataset() -> None:
    warehouse = BigQueryWarehouse("project-1", "dwh", "EU", 10)
    assert warehouse.dbt_variables() == {
        "GOOGLE_CLOUD_PROJECT": "project-1",
        "SERVERLESS_EXECUTION_PROJECT": "project-1",
        "SERVERLESS_DATABASE": "project-1",
        "DBT_SCHEMA": "dwh",
        "SERVERLESS_LOCATION": "EU",
        "SERVERLESS_MAX_BYTES_BILLED": "10",
    }


@pytest.mark.parametrize("project", [PROJECT_ROOT / "dbt_project", Path("/without/profiles")])
def test_dbts_jobs_are_tried_again_and_end_as_all_others(project: Path, tmp_path: Path) -> None:
    name, target = write_profile(project, tmp_path, {"SERVERLESS_ENV": "gcp"})
    output = yaml.safe_load((tmp_path / "profiles.yml").read_text())[name]["outputs"][target]
    assert output["job_retry_deadline_seconds"] == google_errors.PATIENCE
    # So that not their number ends the attempts, of which dbt makes one in up to 3 s.
    assert output["job_retries"] > google_errors.PATIENCE
    assert output["job_execution_timeout_seconds"] * 1000 == JOB_TIMEOUT_MS


def test_a_table_that_others_write_has_a_version_which_changes_with_its_rows(gcp_backend: Backend) -> None:
    warehouse = gcp_backend.warehouse
    assert isinstance(warehouse, BigQueryWarehouse)
    tables = [("", warehouse.dataset, name) for name in ("visits", "shown", "gone")]
    for statement in ("create table {visits} as select 1 as n", "create view {shown} as select 1 as n"):
        names = {name: warehouse.quoted_name(name) for name in ("visits", "shown")}
        warehouse.query(statement.format(**names))
    before = warehouse.content_versions(tables)
    assert before.keys() == {tables[0]}
    assert warehouse.content_versions([(PROJECT, *tables[0][1:])]) == {
        (PROJECT, *tables[0][1:]): before[tables[0]]
    }
    # After an insert, the emulator says what it said before; BigQuery does not.
    warehouse.query(f"create or replace table {warehouse.quoted_name('visits')} as select 2 as n")
    assert warehouse.content_versions(tables)[tables[0]] != before[tables[0]]
