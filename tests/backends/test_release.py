"""What people read on BigQuery: one release, replaced by that of the next run that succeeds."""

import json
import logging
import re
import textwrap
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import requests
from google.cloud import bigquery

from serverless_assets.artifacts import gcs
from serverless_assets.errors import UserError
from serverless_assets.project_root import PROJECT_ROOT
from serverless_assets.publishing.bigquery import BigQueryPublisher
from serverless_assets.publishing.outcome import AssetOutcome
from serverless_assets.publishing.publisher import PartlyPublished
from serverless_assets.warehouse import WarehouseError, bigquery_history
from serverless_assets.warehouse.bigquery import BigQueryWarehouse
from serverless_assets.warehouse.bigquery_release import RELEASES
from tests.backends.conftest import Google, everywhere
from tests.backends.released_shop import ASSETS, LOG, Shop, release_of, releases, table
from tests.backends.stock import FACTS, FEBRUARY, MARCH, ORDERS, STOCK, orders
from tests.backends.watched import DENIED, is_swap, job, losing, refusing, statements, watching
from tests.services.proxy import Answer, Asked


@everywhere
def test_a_run_that_failed_changes_nothing_that_people_read_and_says_so(
    shop: Shop, caplog: pytest.LogCaptureFixture
) -> None:
    assert shop.run(1)
    assert shop.read() == release_of(1)
    assert not shop.run(2, failed="some_orders")
    assert "Not published: some_orders did not succeed. What was published before stays" in caplog.text
    assert shop.read() == release_of(1)
    assert shop.run(3)
    assert shop.read() == release_of(3)
    assert releases(shop) == ["run-1", "run-3"]


@everywhere
def test_what_another_machine_did_not_finish_is_not_published_if_that_left_anything(
    shop: Shop, tmp_path: Path
) -> None:
    published = shop.publisher.published
    assert isinstance(published.warehouse, BigQueryWarehouse)
    other = Shop(BigQueryPublisher(tmp_path / "other", published.warehouse, published.artifacts))
    assert shop.run(1)
    # The source does not answer: the run fails before it writes anything.
    shop.publisher.begin("run-2", ASSETS, ASSETS, LOG)
    assert not shop.publisher.end("run-2", [AssetOutcome(asset, "failed", "") for asset in ASSETS], LOG)
    shop.publisher.close()
    assert other.publisher.pending_before_publish() == set()
    assert other.run(3, assets=("raw_orders", "raw_items"))
    assert other.read() == release_of(3)
    assert not shop.run(4, failed="some_orders")
    assert other.publisher.pending_before_publish() == {"some_orders"}
    assert not other.run(5, assets=("raw_orders", "raw_items"))
    assert other.read() == release_of(3)


@everywhere
def test_a_relation_whose_tests_failed_is_never_published(shop: Shop) -> None:
    assert shop.run(1)
    shop.publisher.begin("run-2", (), ASSETS, LOG)
    note = {"version": "", "dirty_reason": "last tests failed: unique_orders"}
    shop.publisher.warehouse.replace_rows(replace(ORDERS, name="raw_orders"), FACTS.empty_table(), note)
    with pytest.raises(WarehouseError, match="raw_orders is unfinished: last tests failed: unique_orders"):
        shop.publisher.end("run-2", [], LOG)
    shop.publisher.close()
    assert shop.read() == release_of(1)


@everywhere
def test_a_run_that_changed_nothing_replaces_nothing(shop: Shop, caplog: pytest.LogCaptureFixture) -> None:
    assert shop.run(1)
    edited = table(shop, "raw_orders")
    edited.labels = {**edited.labels, "team": "sales"}
    bigquery.Client(shop.publisher.warehouse.project).update_table(edited, ["labels"])
    before = {name: table(shop, name).modified for name in ASSETS}
    caplog.clear()
    with caplog.at_level(logging.INFO):
        shop.publisher.begin("run-2", ASSETS, ASSETS, LOG)
        assert shop.publisher.end("run-2", [AssetOutcome(a, "reused", "unchanged") for a in ASSETS], LOG)
        shop.publisher.close()
    assert "Nothing changed, so nothing was published." in caplog.text
    assert {name: table(shop, name).modified for name in ASSETS} == before
    assert releases(shop) == ["run-1"]


@everywhere
def test_the_record_of_releases_is_shortened_once_it_is_long(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bigquery_history, "RELEASES_RECORDED", 2)
    read = shop.publisher.published.warehouse
    assert isinstance(read, BigQueryWarehouse)
    for number in range(1, 5):
        bigquery_history.record_release(read, f"run-{number}", datetime.now(UTC), (), {})
        bigquery_history.shorten_record(read, bigquery_history.read_releases(read))
        assert len(releases(shop)) == (2 if number == 4 else number)
    assert releases(shop) == ["run-3", "run-4"]


@pytest.mark.gcp
def test_a_run_changes_the_metadata_of_a_table_less_often_than_bigquery_allows(
    shop: Shop, google: Google
) -> None:
    """It allows five times in ten seconds."""
    assert shop.run(1)
    named = re.compile(r"\b(?:create or replace|alter|drop) (?:table|view) (?:if exists )?(\S+)")
    changed: Counter[str] = Counter()
    with watching(google.bigquery) as watched:
        assert shop.run(2)
        for request in watched.asked:
            path = request.path.partition("?")[0]
            if request.method in ("PATCH", "DELETE") and "/tables/" in path:
                changed[".".join(path.split("/")[-3::2])] += 1
            elif request.method == "POST" and path.endswith("/tables"):
                reference = request.json["tableReference"]
                changed[f"{reference['datasetId']}.{reference['tableId']}"] += 1
            elif is_swap(request):
                statement = request.json["configuration"]["query"]["query"]
                changed.update(name.replace("`", "").partition(".")[2] for name in named.findall(statement))
    work, read = shop.publisher.warehouse.dataset, shop.publisher.published.warehouse.quoted_name("x")
    assert changed[f"{work}.raw_orders"] == 1
    assert changed[f"{work}.serverless_lock"] == 3
    assert changed[f"{read.split('`')[3]}.raw_orders"] == 1
    assert max(changed.values()) == 3


@everywhere
def test_what_a_source_says_of_the_same_rows_makes_no_release_until_rows_change(shop: Shop) -> None:
    assert shop.run(1)
    state = {"version": "raw_orders 1", "validators": {"whole": {"etag": "b"}}}
    shop.publisher.begin("run-2", (), ASSETS, LOG)
    shop.publisher.warehouse.write_states({"raw_orders": state})
    assert shop.publisher.end("run-2", [], LOG)
    shop.publisher.close()
    assert releases(shop) == ["run-1"]
    assert shop.publisher.warehouse.read_state("raw_orders") == state
    assert shop.run(3)
    assert releases(shop) == ["run-1", "run-3"]


@everywhere
def test_what_somebody_dropped_or_replaced_where_people_read_is_published_again(
    shop: Shop, caplog: pytest.LogCaptureFixture
) -> None:
    assert shop.run(1)
    # What is new to a release is nothing that somebody did.
    assert "published again" not in caplog.text
    query, quoted = shop.publisher.warehouse.query, shop.publisher.published.warehouse.quoted_name
    query(f"drop table {quoted('raw_items')}")
    query(f"create or replace view {quoted('some_orders')} as select 7 as amount")
    query(f"drop table {quoted('raw_orders')}")
    query(f"create table {quoted('raw_orders')} as select 7 as amount")
    shop.publish("run-2")
    assert shop.read() == release_of(1)
    name = shop.publisher.warehouse.qualified_name
    replaced = "was replaced by something that no run published: it is published again."
    assert f"{name('raw_items')} was dropped since it was published: it is published again." in caplog.text
    assert f"{name('raw_orders')} {replaced}" in caplog.text
    assert f"{name('some_orders')} {replaced}" in caplog.text


@everywhere
def test_what_people_set_on_a_published_table_survives_its_replacement(shop: Shop) -> None:
    assert shop.run(1)
    client = bigquery.Client(shop.publisher.warehouse.project)
    edited = table(shop, "raw_orders")
    edited.labels = {**edited.labels, "team": "sales"}
    edited.description = "Ask Ada.\n" + str(edited.description)
    client.update_table(edited, ["labels", "description"])
    assert shop.run(2)
    assert shop.read() == release_of(2)
    found = table(shop, "raw_orders")
    assert found.labels["team"] == "sales"
    assert str(found.description).startswith("Ask Ada.\nOne row per order.")
    assert table(shop, "raw_items").description.startswith("One row per order.")


@pytest.mark.gcp
def test_what_people_set_and_the_emulator_does_not_keep_is_in_the_statements(
    shop: Shop, google: Google
) -> None:
    assert shop.run(1)
    read = shop.publisher.published.warehouse
    key = "projects/p/locations/eu/keyRings/r/cryptoKeys/k"
    edits = {
        "raw_orders": {
            "friendlyName": 'The "orders"',
            "requirePartitionFilter": True,
            "encryptionConfiguration": {"kmsKeyName": key},
        },
        "some_orders": {"friendlyName": "Some orders", "requirePartitionFilter": True},
        "raw_items": {},
    }

    def edited(request: Asked) -> Answer | None:
        path, _, name = request.path.partition("?")[0].rpartition("/")
        if request.method != "GET" or name not in edits or not path.endswith(f"/{read.dataset}/tables"):
            return None
        content = requests.get(google.bigquery.url + request.path, timeout=60).json() | edits[name]
        if name == "raw_items":
            content["schema"]["fields"][0]["policyTags"] = {"names": ["projects/p/taxonomies/1/policyTags/2"]}
        return Answer(200, content)

    with watching(google.bigquery) as watched:
        watched.instead = edited
        assert shop.run(2)
        asked = statements(watched)
    orders, some, items = map(read.quoted_name, edits)
    (clone,) = [s for s in asked if s.startswith(f"create or replace table {orders}")]
    options = f'friendly_name="The \\"orders\\"", require_partition_filter=true, kms_key_name="{key}")'
    assert clone.endswith(options)
    (view,) = [s for s in asked if s.startswith(f"create or replace view {some}")]
    assert 'friendly_name="Some orders")\nas ' in view
    assert [s for s in asked if f"truncate table {items}" in s]
    assert not [s for s in asked if s.startswith(f"create or replace table {items}")]


@pytest.mark.gcp
@pytest.mark.parametrize(
    "policies",
    [Answer(200, {"rowAccessPolicies": [{"filterPredicate": "true"}]}), DENIED],
    ids=["some", "unknown"],
)
def test_a_table_with_row_policies_keeps_them_as_its_rows_are_replaced_in_place(
    shop: Shop, google: Google, policies: Answer
) -> None:
    """The emulator has such policies, and cannot write to a table that has one."""
    assert shop.run(1)
    name = shop.publisher.published.warehouse.quoted_name("raw_orders")
    with watching(google.bigquery) as watched:
        watched.instead = refusing("GET", "/raw_orders/rowAccessPolicies", policies)
        assert shop.run(2)
        asked = statements(watched)
        assert shop.read() == release_of(2)
    (in_place,) = [statement for statement in asked if f"truncate table {name}" in statement]
    assert in_place.startswith("begin transaction;")
    assert in_place.endswith("commit transaction;")
    assert not [found for found in asked if found.startswith(f"create or replace table {name}")]


@pytest.mark.gcp
def test_a_publish_that_stops_anywhere_is_finished_by_the_next_run(shop: Shop, google: Google) -> None:
    """A copy to return to, a table, a view and the record are refused, in turn."""
    assert shop.run(1)
    with watching(google.bigquery) as watched:
        quoted = shop.publisher.published.warehouse.quoted_name
        for number, begins in enumerate(
            (
                f"`{shop.publisher.warehouse.dataset}`.`serverless_kept_raw_items",
                f"create or replace table {quoted('raw_items')}",
                f"create or replace view {quoted('some_orders')}",
                f"insert into {quoted(RELEASES)}",
            ),
            start=2,
        ):

            def refuse(request: Asked, begins: str = begins) -> Answer | None:
                is_asked = is_swap(request) and begins in json.dumps(request.json, ensure_ascii=False)
                return DENIED if is_asked else None

            watched.instead = refuse
            with pytest.raises(UserError, match="serverless_test"):
                shop.run(number)
            watched.instead = lambda request: None
            # The next run, of one asset, finds the rest to do.
            shop.publish(f"run-{number}-again")
            assert shop.read() == release_of(number)
        assert releases(shop) == ["run-1", *(f"run-{number}-again" for number in range(2, 6))]


@pytest.mark.gcp
def test_a_publish_that_ends_in_the_middle_says_what_people_read_of_it(shop: Shop, google: Google) -> None:
    """One table is updated too often for a moment, another one for the day."""
    assert shop.run(1)
    quoted = shop.publisher.published.warehouse.quoted_name
    name = shop.publisher.warehouse.qualified_name

    def refuse(request: Asked) -> Answer | None:
        statement = request.json["configuration"]["query"]["query"] if is_swap(request) else ""
        if statement.startswith(f"create or replace table {quoted('raw_items')}"):
            return Answer.error(403, "quotaExceeded", "Your table exceeded quota for imports per table.")
        if statement.startswith(f"create or replace table {quoted('raw_orders')}") and not refused:
            refused.append(request)
            answer = job(request.json, "DONE", {})
            too_often = "Exceeded rate limits: too many table update operations for this table."
            answer.content["status"]["errorResult"] = {"reason": "rateLimitExceeded", "message": too_often}
            return answer
        return None

    refused: list[Asked] = []
    with watching(google.bigquery) as watched:
        watched.instead = refuse
        with pytest.raises(PartlyPublished) as told:
            shop.run(2)
        assert refused
    assert str(told.value) == (
        f"1 of 3 changed relations were replaced in {shop.publisher.address}. {name('raw_items')}: Your "
        "table exceeded quota for imports per table. That is a quota of the project or the table: wait until "
        f"it is free again, or have it raised. {name('some_orders')}: waits for the others."
    )
    read = shop.read()
    assert read == {**release_of(1), "raw_orders": [2], "some_orders": [2]}
    shop.publish("run-3")
    assert shop.read() == release_of(2)


@pytest.mark.gcp
def test_a_file_that_somebody_writes_during_the_publish_stays_until_the_next_run(
    shop: Shop, google: Google
) -> None:
    assert shop.run(1)
    files = shop.publisher.published.artifacts
    assert isinstance(files, gcs.GcsArtifacts)

    def write_another(request: Asked) -> None:
        if request.path.startswith("/upload/") and request.json.get("name") == "forecast.html":
            address = (
                f"{google.gcs.url}/upload/storage/v1/b/{files.bucket}/o?uploadType=media&name=forecast.html"
            )
            requests.post(address, data=b"by hand", timeout=60).raise_for_status()

    with watching(google.gcs) as bucket:
        bucket.instead = write_another
        with pytest.raises(
            PartlyPublished,
            match=r"not all files and records were written\. gs://.*forecast\.html: somebody else wrote",
        ):
            shop.run(2)
    assert shop.read() == {**release_of(2), "forecast.html": b"by hand"}
    assert releases(shop) == ["run-1"]
    shop.publish("run-3")
    assert shop.read() == release_of(2)


@pytest.mark.gcp
def test_a_view_is_published_after_what_it_reads_and_a_table_dropped_after_what_read_it(
    shop: Shop, google: Google
) -> None:
    def write(number: int, base: str) -> None:
        shop.write(number)
        for view, source in (("a_view", base), ("a_view_of_it", "a_view")):
            quoted, read = map(warehouse.quoted_name, (view, source))
            # A name that ends as that of the dataset is another one.
            condition = f"amount > -{number} and 'my_{warehouse.dataset}' != ''"
            warehouse.query(f"create or replace view {quoted} as select * from {read} where {condition}")
            warehouse.write_states({view: {"version": f"{view} {number}"}})

    existing = (*ASSETS, "a_view", "a_view_of_it")
    warehouse = shop.publisher.warehouse
    shop.publisher.begin("run-1", (), existing, LOG)
    write(1, "raw_items")
    assert shop.publisher.end("run-1", [], LOG)
    shop.publisher.close()
    shop.publisher.begin("run-2", (), set(existing) - {"raw_items"}, LOG)
    write(2, "raw_orders")
    warehouse.drop_relation("raw_items")
    with watching(google.bigquery) as watched:
        assert shop.publisher.end("run-2", [], LOG)
        asked = statements(watched)
        shop.publisher.close()
    quoted = shop.publisher.published.warehouse.quoted_name
    begins = (
        f"create or replace table {quoted('raw_orders')}",
        f"create or replace view {quoted('a_view')}",
        f"create or replace view {quoted('a_view_of_it')}",
        f"drop table if exists {quoted('raw_items')}",
    )
    order = [next(at for at, statement in enumerate(asked) if statement.startswith(text)) for text in begins]
    assert order == sorted(order)
    published = table(shop, "a_view_of_it").view_query
    assert f"'my_{warehouse.dataset}'" in published
    assert f"`{warehouse.dataset}`" not in published


@pytest.mark.gcp
def test_a_dataset_that_somebody_deleted_during_a_run_is_named_and_nothing_is_published(shop: Shop) -> None:
    assert shop.run(1)
    shop.publisher.begin("run-2", (), ASSETS, LOG)
    shop.write(2)
    warehouse = shop.publisher.warehouse
    assert isinstance(warehouse, BigQueryWarehouse)
    with bigquery.Client(warehouse.project) as client:
        client.delete_dataset(warehouse.dataset, delete_contents=True)
    with pytest.raises(
        WarehouseError, match=rf"Not found.*{warehouse.dataset}.* whether somebody deleted it"
    ):
        shop.publisher.end("run-2", [], LOG)
    shop.publisher.close()
    assert shop.read() == {**release_of(1)}
    # The next one continues from what people read.
    assert shop.run(3)
    assert shop.read() == release_of(3)


@everywhere
def test_rows_that_a_table_lost_since_it_was_built_are_not_published(shop: Shop) -> None:
    assert shop.run(1)
    shop.publisher.begin("run-2", (), ASSETS, LOG)
    shop.write(2)
    warehouse = shop.publisher.warehouse
    warehouse.write_states({"raw_items": {"version": "2", "rows": len(STOCK)}})
    warehouse.query(f"delete from {warehouse.quoted_name('raw_items')} where id = 'a'")
    with pytest.raises(WarehouseError, match=r"\.raw_items: 5 rows were written to it, and it holds 4\. See"):
        shop.publisher.end("run-2", [], LOG)
    shop.publisher.close()
    assert shop.read() == release_of(1)
    # It is not taken for built, so the next run builds it.
    assert "version" not in warehouse.read_state("raw_items")
    assert shop.run(3)
    assert shop.read() == release_of(3)


@pytest.mark.gcp
@pytest.mark.parametrize("is_copy", [True, False], ids=["the copy to return to", "the published table"])
def test_a_clone_that_lacks_rows_is_named_and_made_again(shop: Shop, google: Google, is_copy: bool) -> None:
    assert shop.run(1)
    read = shop.publisher.published.warehouse
    name = "/serverless_kept_raw_items" if is_copy else f"/{read.dataset}/tables/raw_items"

    def is_asked_for(request: Asked) -> bool:
        # Once it was cloned, and not before.
        cloned = [swap for swap in watched.asked if is_swap(swap) and b"clone" in swap.body]
        return request.method == "GET" and name in request.path and len(cloned) > (0 if is_copy else 2)

    with watching(google.bigquery) as watched:
        watched.instead = losing(is_asked_for, "id = 'a'")
        with pytest.raises(UserError, match=r"raw_items\w*: 5 rows were written to it, and it holds 4\. See"):
            shop.run(2)
    if is_copy:
        assert shop.read() == release_of(1)
    assert releases(shop) == ["run-1"]
    shop.publish("run-3")
    assert shop.read() == release_of(2)
    assert releases(shop) == ["run-1", "run-3"]
    assert len(shop.publisher.releases()[0].changed) == (5 if is_copy else 4)


@pytest.mark.gcp
@pytest.mark.parametrize("is_cut", [False, True], ids=["outages", "answers that are cut"])
def test_a_run_outlasts_what_happens_once_to_each_of_its_calls(
    shop: Shop, google: Google, monkeypatch: pytest.MonkeyPatch, is_cut: bool
) -> None:
    """Each call to BigQuery and to the bucket is answered 503 at first; or what it asks for is done, and half
    of the answer arrives: it is made again, and nothing is done twice."""
    assert shop.run(1)
    for module in (bigquery, gcs):
        monkeypatch.setattr(module, "DEFAULT_RETRY", module.DEFAULT_RETRY.with_delay(initial=0.01))
    asked: set[tuple[str, str, bytes]] = set()

    def is_first(request: Asked) -> bool:
        # An upload that begins again has another address.
        path = request.path.partition("&upload_id=")[0] if is_cut else request.path
        call, before = (request.method, path, request.body), len(asked)
        asked.add(call)
        return len(asked) > before

    def fail_once(request: Asked) -> Answer | None:
        return Answer.error(503, "backendError", "Try again.") if is_first(request) else None

    def cut_once(request: Asked, body: bytes) -> bytes:
        return body[: len(body) // 2] if is_first(request) else body

    with watching(google.bigquery) as warehouse, watching(google.gcs) as bucket:
        for watched in (warehouse, bucket):
            if is_cut:
                watched.damage = cut_once
            else:
                watched.instead = fail_once
        assert shop.run(2)
    assert shop.read() == release_of(2)
    assert releases(shop) == ["run-1", "run-2"]
    assert len(asked) > 50


@everywhere
def test_a_dataset_of_an_earlier_version_continues_from_its_tables(
    shop: Shop, caplog: pytest.LogCaptureFixture
) -> None:
    published = shop.publisher.published.warehouse
    for name in ("raw_orders", "raw_items"):
        published.replace_rows(replace(ORDERS, name=name), orders(*STOCK), {"version": f"{name} 0"})
    before = shop.publisher.warehouse.check()
    assert before.endswith(
        ": the first run creates it, continues from the 2 tables in "
        f"{shop.publisher.published.warehouse.dataset}, and builds the views again."
    )
    assert str(shop.publisher.look_ahead()).startswith(before.partition("; ")[2])
    with caplog.at_level(logging.INFO):
        shop.publisher.begin("run-1", (), ASSETS, LOG)
        shop.publisher.close()
    assert shop.publisher.look_ahead() is None
    assert "Continuing from the tables in" in caplog.text
    states = shop.publisher.warehouse.read_states()
    assert states == {"raw_orders": {"version": "raw_orders 0"}, "raw_items": {"version": "raw_items 0"}}
    # A month of an adopted table is loaded, and the rest of it is there.
    shop.publisher.warehouse.replace_rows(
        replace(ORDERS, name="raw_orders"), FACTS.empty_table(), {"version": "a month"}, (FEBRUARY, MARCH)
    )
    assert shop.run(2)
    assert shop.read() == release_of(2)


@everywhere
def test_a_model_that_was_deleted_and_dropped_is_no_longer_read(shop: Shop) -> None:
    assert shop.run(1)
    shop.publisher.begin("run-2", (), ("raw_orders", "some_orders"), LOG)
    shop.publisher.warehouse.drop_relation("raw_items")
    assert shop.publisher.end("run-2", [], LOG)
    shop.publisher.close()
    assert shop.publisher.published.warehouse.tables() == {"raw_orders", "some_orders", RELEASES}
    assert "raw_items (dropped)" in shop.publisher.releases()[0].changed


@everywhere
def test_a_run_is_refused_before_it_begins_if_what_people_read_is_not_to_be_replaced(shop: Shop) -> None:
    published = shop.publisher.published.warehouse
    assert isinstance(published, BigQueryWarehouse)
    published.prepare()
    published.query(f"create table {published.quoted_name('yours')} as select 7 as amount")
    for name in ("raw_items", "yours_as_it_was"):
        quoted = published.quoted_name(name)
        published.query(f"create snapshot table {quoted} clone {published.quoted_name('yours')}")
    with pytest.raises(
        WarehouseError, match=r"raw_items is a snapshot table, .* \(`drop snapshot table `.*"
    ) as told:
        shop.run(1)
    assert "yours" not in str(told.value)
    shop.publisher.close()
    assert shop.publisher.warehouse.tables() == set()
    assert shop.publisher.pending_assets.read() == set()
    published.drop_relation("raw_items")
    assert shop.run(1)
    assert shop.read() == release_of(1)


@everywhere
def test_exactly_one_release_is_read_as_the_documentation_shows(shop: Shop) -> None:
    """What names it is read before another release is published, and all of it afterwards."""
    work, bucket = shop.publisher.warehouse, shop.publisher.artifacts.published
    assert isinstance(bucket, gcs.GcsArtifacts)
    example = re.search(
        r"^( +)import json\n(?:\1.*\n|\n)+", (PROJECT_ROOT / "docs" / "cloud.md").read_text(), re.MULTILINE
    )
    assert example
    code = textwrap.dedent(example[0])
    for documented, here in {
        "dwh__work": work.dataset,
        "dwh.": f"{work.published().dataset}.",
        "my-bucket": bucket.bucket,
        '"_releases/': f'"{bucket.folder}_releases/',
        "'customers'": "'raw_orders'",
        "'order_forecast'": "'raw_items'",
    }.items():
        assert documented in code
        code = code.replace(documented, here)
    imports, names, reads = code.strip().split("\n\n")
    assert shop.run(1)
    scope: dict[str, Any] = {}
    exec(f"{imports}\n{names}", scope)
    assert shop.run(2)
    exec(reads, scope)
    for name in ("customers", "forecast"):
        assert [row.amount for row in scope[name]] == [1] * len(STOCK)
    assert scope["report"] == "forecast.html 1"
    assert scope["parquet"] == b"forecast.parquet 1"


@pytest.mark.gcp
def test_what_changes_its_layout_is_named_in_whichever_schema_it_is(shop: Shop) -> None:
    """A model's table becomes a view, or is partitioned; a raw table is partitioned by day."""
    assert shop.run(1)
    work = shop.publisher.warehouse
    in_schema = replace(work, dataset=f"{work.dataset}_marts").published()
    in_schema.prepare()
    for name in ("as_it_was", "a_view_by_now", "partitioned_by_now"):
        in_schema.query(f"create table {in_schema.quoted_name(name)} as select date '2026-01-01' as ds")
    configs: dict[str, dict[str, object]] = {
        "as_it_was": {"materialized": "table"},
        "a_view_by_now": {"materialized": "view"},
        "partitioned_by_now": {"materialized": "table", "partition_by": {"field": "ds"}},
        "new": {"materialized": "table"},
    }
    models = [
        {"alias": name, "database": work.project, "schema": f"{work.dataset}_marts", "config": config}
        for name, config in configs.items()
    ]
    elsewhere = {**models[2], "schema": "a_schema_of_yours"}
    raw_tables = [replace(ORDERS, name="raw_items"), replace(ORDERS, name="raw_orders", partition_unit="day")]
    assert shop.publisher.layout_changes([*models, elsewhere], raw_tables) == {
        "a_view_by_now": "is a table, becomes a view",
        "partitioned_by_now": "is partitioned or clustered otherwise",
        "raw_orders": "is partitioned or clustered otherwise",
    }


@everywhere
def test_a_dataset_with_relations_of_other_kinds_is_taken_over(shop: Shop) -> None:
    published = shop.publisher.published.warehouse
    assert isinstance(published, BigQueryWarehouse)
    published.prepare()
    published.query(f"create table {published.quoted_name('some_orders')} as select 7 as amount")
    published.query(f"create table {published.quoted_name('raw_items')} as select 'x' as another_column")
    published.query(f"create view {published.quoted_name('raw_orders')} as select 7 as amount")
    assert published.made_by_hand() == {"raw_items": "table", "raw_orders": "view", "some_orders": "table"}
    assert shop.run(1)
    assert shop.read() == release_of(1)
    assert set(published.made_by_hand()) == {RELEASES}
