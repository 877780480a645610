import io
import logging
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import date, timedelta

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import requests

from serverless_assets.sample_shop.api import create_app, serve
from serverless_assets.sample_shop.catalogue import TABLES
from serverless_assets.sample_shop.shop import SampleShop

SHOP = SampleShop(end=date(2026, 11, 22))
TOMORROW = SampleShop(end=date(2026, 11, 23))
OCTOBER = "/raw_orders.parquet?start=2026-10-01&end=2026-11-01"


@pytest.fixture(scope="module")
def api() -> Iterator[str]:
    with serve(create_app(lambda: SHOP)) as url:
        yield url


@pytest.fixture(scope="module")
def api_tomorrow() -> Iterator[str]:
    with serve(create_app(lambda: TOMORROW)) as url:
        yield url


def rows(response: requests.Response) -> pa.Table:
    assert response.status_code == 200
    return pq.read_table(io.BytesIO(response.content))


def last_modified(shop: SampleShop, path: str) -> str | None:
    with serve(create_app(lambda: shop)) as url:
        return requests.head(url + path, timeout=10).headers.get("Last-Modified")


# ---- tables


@pytest.mark.parametrize("name", TABLES)
def test_a_table_is_what_the_shop_has(api, name):
    response = requests.get(f"{api}/{name}.parquet", timeout=10)
    assert rows(response).equals(SHOP.table(name))
    assert response.headers["Content-Type"] == "application/vnd.apache.parquet"
    assert response.headers["Cache-Control"] == "no-cache"


@pytest.mark.parametrize("name", ["raw_orders", "raw_items"])
@pytest.mark.parametrize(
    ("query", "window"),
    [
        ("start=2026-10-01&end=2026-11-01", (date(2026, 10, 1), date(2026, 11, 1))),
        ("start=2026-11-20", (date(2026, 11, 20), None)),
        ("end=2024-12-01", (None, date(2024, 12, 1))),
        ("start=2019-01-01&end=2019-02-01", (date(2019, 1, 1), date(2019, 2, 1))),
        ("start=2026-10-01&end=2026-10-01", (date(2026, 10, 1), date(2026, 10, 1))),
    ],
)
def test_facts_can_be_asked_for_a_window(api, name, query, window):
    got = rows(requests.get(f"{api}/{name}.parquet?{query}", timeout=10))
    assert got.equals(SHOP.table(name, *window))
    assert got.schema == SHOP.table(name).schema


def test_the_index_lists_the_tables(api):
    index = requests.get(api, timeout=10).json()
    assert [table["name"] for table in index["tables"]] == list(TABLES)
    assert [requests.head(api + table["path"], timeout=10).status_code for table in index["tables"]] == [
        200
    ] * 6
    assert [table["name"] for table in index["tables"] if table["parameters"]] == ["raw_orders", "raw_items"]
    assert (index["first_day"], index["last_day"]) == ("2024-11-01", "2026-11-22")


@pytest.mark.parametrize(
    "path", ["/", "/raw_stores.parquet", OCTOBER, "/raw_refunds.parquet", "/raw_orders.parquet?start=x"]
)
def test_head_gives_the_headers_of_get_without_the_body(api, path):
    get, head = requests.get(api + path, timeout=10), requests.head(api + path, timeout=10)
    assert head.status_code == get.status_code
    assert {**head.headers, "date": ""} == {**get.headers, "date": ""}
    assert int(head.headers["Content-Length"]) == len(get.content) > 0
    assert head.content == b""


def test_an_unknown_table_is_not_found(api):
    response = requests.get(f"{api}/raw_refunds.parquet", timeout=10)
    assert response.status_code == 404
    assert response.text.startswith("There is no table raw_refunds. There are raw_customers, ")


@pytest.mark.parametrize(
    ("path", "sentence"),
    [
        ("raw_orders.parquet?start=yesterday", "The start, 'yesterday', is not a date such as 2026-01-31."),
        ("raw_orders.parquet?end=2026-02-30", "The end, '2026-02-30', is not a date such as 2026-01-31."),
        ("raw_items.parquet?start=20260131", "The start, '20260131', is not a date such as 2026-01-31."),
        ("raw_items.parquet?start=2026-W05-6", "The start, '2026-W05-6', is not a date such as 2026-01-31."),
        ("raw_items.parquet?end=", "The end, '', is not a date such as 2026-01-31."),
        (
            "raw_orders.parquet?start=2026-02-01&end=2026-01-01",
            "The start, 2026-02-01, is after the end, 2026-01-01.",
        ),
        ("raw_stores.parquet?start=2026-01-01", "raw_stores is a snapshot, without a start or end."),
    ],
)
def test_a_window_that_makes_no_sense_is_refused_in_a_sentence(api, path, sentence):
    response = requests.get(f"{api}/{path}", timeout=10)
    assert (response.status_code, response.text) == (400, sentence)
    assert response.headers["Content-Type"].startswith("text/plain")


def test_a_head_and_a_get_cost_one_generation(monkeypatch):
    calls = []
    table = SampleShop.table
    monkeypatch.setattr(SampleShop, "table", lambda *args: calls.append(args) or table(*args))
    shop = SampleShop(seed=4711, end=date(2012, 1, 31))
    with serve(create_app(lambda: shop)) as url:
        requests.head(f"{url}/raw_orders.parquet?start=2012-01-01", timeout=10)
        requests.get(f"{url}/raw_orders.parquet?start=2012-01-01&end=2012-02-01", timeout=10)
        requests.get(f"{url}/raw_orders.parquet?start=2012-01-01&end=2031-01-01", timeout=10)
    assert len(calls) == 1


# ---- what a client already holds


def test_a_copy_with_the_same_etag_is_not_sent_again(api):
    first = requests.get(api + OCTOBER, timeout=10)
    etag = first.headers["ETag"]
    for held in (etag, f'"other", {etag}', f"W/{etag}", "*"):
        again = requests.get(api + OCTOBER, headers={"If-None-Match": held}, timeout=10)
        assert (again.status_code, again.content) == (304, b"")
        for kept in ("ETag", "Last-Modified", "Cache-Control"):
            assert again.headers[kept] == first.headers[kept]
    other = requests.get(api + OCTOBER, headers={"If-None-Match": '"other"'}, timeout=10)
    assert rows(other).num_rows > 0


def test_a_copy_that_is_not_older_is_not_sent_again(api):
    for since, status in {
        "Sun, 01 Nov 2026 00:00:00 GMT": 304,
        "Fri, 20 Nov 2026 12:00:00 GMT": 304,
        "Sat, 31 Oct 2026 23:59:59 GMT": 200,
        "the day before yesterday": 200,
    }.items():
        response = requests.get(api + OCTOBER, headers={"If-Modified-Since": since}, timeout=10)
        assert (since, response.status_code) == (since, status)


def test_the_etag_counts_for_more_than_the_date(api):
    first = requests.head(api + OCTOBER, timeout=10).headers
    for held, since, status in (
        ('"other"', first["Last-Modified"], 200),
        (first["ETag"], "Thu, 01 Jan 1970 00:00:00 GMT", 304),
    ):
        asked = {"If-None-Match": held, "If-Modified-Since": since}
        assert requests.get(api + OCTOBER, headers=asked, timeout=10).status_code == status


def test_a_head_is_answered_with_not_modified_too(api):
    etag = requests.head(api + OCTOBER, timeout=10).headers["ETag"]
    assert requests.head(api + OCTOBER, headers={"If-None-Match": etag}, timeout=10).status_code == 304


def test_a_new_day_changes_the_whole_table_and_no_past_month(api, api_tomorrow):
    def etags(path: str) -> list[str]:
        return [requests.head(url + path, timeout=10).headers["ETag"] for url in (api, api_tomorrow)]

    for past in (OCTOBER, OCTOBER.replace("orders", "items"), "/raw_stores.parquet", "/raw_supplies.parquet"):
        today, tomorrow = etags(past)
        assert today == tomorrow
    for growing in ("/raw_orders.parquet", "/raw_items.parquet", "/raw_customers.parquet"):
        today, tomorrow = etags(growing)
        assert today != tomorrow


def test_a_server_gains_a_day_without_a_restart():
    shops = [SHOP]
    with serve(create_app(lambda: shops[-1])) as url:
        before = rows(requests.get(f"{url}/raw_orders.parquet?start=2026-11-22", timeout=10))
        shops.append(TOMORROW)
        after = rows(requests.get(f"{url}/raw_orders.parquet?start=2026-11-22", timeout=10))
    assert after.num_rows > before.num_rows == SHOP.table("raw_orders", date(2026, 11, 22)).num_rows


@pytest.mark.parametrize(
    ("path", "midnight"),
    [
        ("/raw_orders.parquet", "Mon, 23 Nov 2026 00:00:00 GMT"),
        (OCTOBER, "Sun, 01 Nov 2026 00:00:00 GMT"),
        ("/raw_items.parquet?start=2025-12-20&end=2025-12-26", "Thu, 25 Dec 2025 00:00:00 GMT"),
        ("/raw_orders.parquet?start=2025-12-25&end=2025-12-26", None),
        ("/raw_customers.parquet", "Mon, 23 Nov 2026 00:00:00 GMT"),
        ("/raw_stores.parquet", "Tue, 05 May 2026 00:00:00 GMT"),
        ("/raw_products.parquet", "Tue, 02 Mar 2010 00:00:00 GMT"),
    ],
)
def test_last_modified_is_the_midnight_after_the_last_day_that_changed_the_answer(api, path, midnight):
    assert requests.head(api + path, timeout=10).headers.get("Last-Modified") == midnight


def test_a_window_that_loses_its_oldest_month_is_modified():
    first_winter = "/raw_orders.parquet?end=2025-01-01"
    assert last_modified(SampleShop(end=date(2026, 11, 30)), first_winter) == "Mon, 02 Nov 2026 00:00:00 GMT"
    assert last_modified(SampleShop(end=date(2026, 12, 1)), first_winter) == "Wed, 02 Dec 2026 00:00:00 GMT"
    # What lies within history all along stays as it was.
    december = f"{first_winter}&start=2024-12-01"
    assert last_modified(SampleShop(end=date(2026, 12, 1)), december) == "Wed, 01 Jan 2025 00:00:00 GMT"


# ---- serving


def test_serving_is_quiet_and_ends_with_its_context(caplog):
    caplog.set_level(logging.DEBUG, "uvicorn")
    for _ in range(2):
        with serve(create_app(lambda: SHOP)) as url:
            assert requests.get(url, timeout=10).ok
        with pytest.raises(requests.ConnectionError):
            requests.get(url, timeout=10)
    assert [record for record in caplog.records if record.name.startswith("uvicorn")] == []


def test_servers_run_side_by_side_from_any_thread():
    def ask(days_back: int) -> str:
        shop = SampleShop(end=SHOP.end - timedelta(days=days_back))
        with serve(create_app(lambda: shop)) as url:
            return requests.get(url, timeout=10).json()["last_day"]

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(ask, range(4))) == ["2026-11-22", "2026-11-21", "2026-11-20", "2026-11-19"]


def test_a_port_that_is_taken_is_refused_and_is_free_again_afterwards():
    with serve(create_app(lambda: SHOP)) as url:
        port = int(url.rpartition(":")[2])
        with pytest.raises(OSError, match="in use"), serve(create_app(lambda: SHOP), port):
            pass
    with serve(create_app(lambda: SHOP), port) as again:
        assert again == url


@pytest.mark.parametrize("request_line", [b"", b"GET /raw_orders.parquet HTTP/1.1\r\nHost: x\r\n\r\n"])
def test_a_client_that_falls_silent_does_not_keep_the_server_from_stopping(request_line):
    with serve(create_app(lambda: SHOP)) as url:
        silent = socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])))
        silent.sendall(request_line)
        # A short answer to somebody else shows that the silent one has been accepted.
        assert requests.get(url, timeout=10).ok
    silent.close()
