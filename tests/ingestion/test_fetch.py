import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from functools import partial
from http.server import SimpleHTTPRequestHandler
from pathlib import Path
from urllib.parse import urlsplit

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from serverless_assets.ingestion.fetch import TABLES_AT_ONCE, fetch_tables
from serverless_assets.ingestion.fetch_result import AuditedTable, Failed
from serverless_assets.ingestion.raw_table import RawTable
from serverless_assets.ingestion.source import HttpSource
from serverless_assets.months import Window
from serverless_assets.warehouse.duckdb import DuckDBWarehouse
from tests.raw_tables import (
    RAW_CUSTOMERS,
    RAW_ITEMS,
    RAW_ORDERS,
    RAW_PRODUCTS,
    RAW_STORES,
    RAW_SUPPLIES,
    TABLES,
)
from tests.services.listening import listening

SEPTEMBER, OCTOBER = date(2026, 9, 1), date(2026, 10, 1)
OF_OCTOBER = Window.of_months(OCTOBER, OCTOBER)
SHOP = {
    RAW_CUSTOMERS: [("c1", "ann"), ("c2", "bob")],
    RAW_ORDERS: [
        ("o1", "c1", datetime(2026, 9, 30, 23), "s1", 100, 6, 106),
        ("o2", "c2", datetime(2026, 10, 1), "s1", 200, 12, 212),
    ],
    RAW_ITEMS: [("i1", "o1", "p1"), ("i2", "o2", "p1"), ("i3", "o2", "p1")],
    RAW_PRODUCTS: [("p1", "jaffle", "food", 100, None)],
    RAW_STORES: [("s1", "Philadelphia", datetime(2024, 9, 1), 0.06)],
    RAW_SUPPLIES: [("u1", "cup", 7, False, "p1")],
}


@dataclass
class Server:
    """A folder of parquet files on a socket: it ignores windows, as a static file server does.

    `in_windows` are files that it serves all the same if a window is asked for. It answers after `wait`.
    """

    folder: Path
    url: str = ""
    asked: list[str] = field(default_factory=list)
    in_windows: dict[str, bytes] = field(default_factory=dict)
    wait: Callable[[], object] = lambda: None

    def serve(self, table: RawTable, rows: Sequence[tuple]) -> None:
        self.path(table).write_bytes(self.parquet(table, rows))

    def parquet(self, table: RawTable, rows: Sequence[tuple]) -> bytes:
        columns = [pa.array([row[n] for row in rows], kind) for n, kind in enumerate(table.columns.values())]
        sink = pa.BufferOutputStream()
        pq.write_table(pa.table(columns, schema=table.source_schema), sink)
        return sink.getvalue().to_pybytes()

    def path(self, table: RawTable) -> Path:
        return self.folder / f"{table.name}.parquet"

    @property
    def asked_for(self) -> Counter[str]:
        return Counter(Path(urlsplit(path).path).stem for path in self.asked)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    folder_server = Server(tmp_path / "served")
    folder_server.folder.mkdir()
    for table, rows in SHOP.items():
        folder_server.serve(table, rows)

    class Handler(SimpleHTTPRequestHandler):
        def do_GET(self) -> None:
            folder_server.wait()
            asked = urlsplit(self.path)
            cut = folder_server.in_windows.get(Path(asked.path).stem) if asked.query else None
            if cut is None:
                return super().do_GET()
            self.send_response(200)
            self.send_header("Content-Length", str(len(cut)))
            self.end_headers()
            self.wfile.write(cut)

        def log_request(self, *_: object) -> None:
            folder_server.asked.append(self.path)

        def log_message(self, *_: object) -> None:
            pass

    with listening(partial(Handler, directory=str(folder_server.folder))) as http:
        folder_server.url = f"http://127.0.0.1:{http.server_port}"
        yield folder_server


@pytest.fixture
def log() -> list[str]:
    return []


@pytest.fixture
def fetched(server: Server, log: list[str], tmp_path: Path):
    warehouse = DuckDBWarehouse(tmp_path / "warehouse.duckdb", "dwh")
    scratch = tmp_path / "scratch"
    scratch.mkdir()

    def fetched(
        tables: Sequence[RawTable] = TABLES, window: Window | None = None
    ) -> dict[RawTable, AuditedTable | Failed]:
        source = HttpSource(server.url, attempts=2, first_pause_seconds=0.0, timeout_seconds=10)
        results = [
            # As rows in memory: what is staged is gone at the end.
            replace(result, rows=result.rows.area.connection.sql(result.rows.query).to_arrow_table())
            if isinstance(result, AuditedTable)
            else result
            for result in fetch_tables(tables, source, warehouse, window, scratch, log.append)
        ]
        assert [result.table for result in results] == list(tables)
        return {result.table: result for result in results}

    return fetched


def ids(audited: AuditedTable | Failed) -> list[str]:
    assert isinstance(audited, AuditedTable), audited
    return sorted(audited.rows["id"].to_pylist())


def test_every_table_arrives_in_the_warehouses_columns(fetched, server):
    for table, result in fetched().items():
        assert isinstance(result, AuditedTable), result
        rows = result.rows
        assert (rows.schema.names, rows.schema.types) == (table.schema.names, table.schema.types)
        assert result.content.rows == rows.num_rows == len(SHOP[table])
        assert result.download.url == f"{server.url}/{table.name}.parquet"
        assert result.download.bytes == server.path(table).stat().st_size
    assert server.asked_for == {table.name: 1 for table in TABLES}


def test_sixteen_of_many_tables_are_fetched_at_a_time(fetched, server):
    tables = [replace(RAW_STORES, name=f"raw_stores_{n}") for n in range(3 * TABLES_AT_ONCE)]
    for table in tables:
        server.serve(table, SHOP[RAW_STORES])
    requests: list[int] = []

    def count() -> None:
        requests.append(sum(thread.name == "request" for thread in threading.enumerate()))

    # No request is answered before as many are made as may be at once.
    server.wait = threading.Barrier(TABLES_AT_ONCE, count, timeout=30).wait
    assert all(ids(result) == ["s1"] for result in fetched(tables).values())
    assert (len(requests), requests[0]) == (3, TABLES_AT_ONCE)


def test_items_have_the_months_of_their_orders(fetched):
    results = fetched()
    assert {month: part.rows for month, part in results[RAW_ITEMS].content.months.items()} == {
        SEPTEMBER: 1,
        OCTOBER: 2,
    }
    assert results[RAW_ORDERS].content.months.keys() == {SEPTEMBER, OCTOBER}
    assert results[RAW_CUSTOMERS].content.months == {}


def test_a_window_cuts_facts_and_leaves_snapshots_whole(fetched):
    results = fetched(window=OF_OCTOBER)
    assert ids(results[RAW_ORDERS]) == ["o2"]
    assert ids(results[RAW_ITEMS]) == ["i2", "i3"]
    assert ids(results[RAW_CUSTOMERS]) == ["c1", "c2"]
    assert ids(results[RAW_STORES]) == ["s1"]
    assert results[RAW_ITEMS].content.months.keys() == {OCTOBER}


def test_a_window_is_asked_for_facts_alone(fetched, server):
    fetched(window=OF_OCTOBER)
    cut = {path for path in server.asked if "start=2026-10-01&end=2026-11-01" in path}
    assert {Path(urlsplit(path).path).stem for path in cut} == {"raw_orders", "raw_items"}


def test_items_alone_bring_their_orders_along(fetched, server):
    (result,) = fetched([RAW_ITEMS]).values()
    assert ids(result) == ["i1", "i2", "i3"]
    assert server.asked_for == {"raw_items": 1, "raw_orders": 1}


def test_orders_alone_bring_nothing_along(fetched, server):
    fetched([RAW_ORDERS])
    assert server.asked_for == {"raw_orders": 1}


def test_the_order_of_the_tables_does_not_matter(fetched):
    assert all(isinstance(result, AuditedTable) for result in fetched(TABLES[::-1]).values())


def _october_alone(server: Server, table: RawTable) -> None:
    """The server cuts this table to October by itself, and leaves the others whole."""
    october = [row for row in SHOP[RAW_ORDERS] if row[2] >= datetime(2026, 10, 1)]
    rows = {RAW_ORDERS: october, RAW_ITEMS: [row for row in SHOP[RAW_ITEMS] if row[1] == "o2"]}[table]
    server.in_windows[table.name] = server.parquet(table, rows)


@pytest.mark.parametrize("table", [RAW_ORDERS, RAW_ITEMS], ids=lambda table: table.name)
def test_a_server_may_cut_one_of_the_facts_to_the_window_and_not_the_other(fetched, server, table):
    _october_alone(server, table)
    results = fetched(window=OF_OCTOBER)
    assert ids(results[RAW_ORDERS]) == ["o2"]
    assert ids(results[RAW_ITEMS]) == ["i2", "i3"]


def test_items_of_orders_in_other_months_are_left_out_and_counted(fetched, server, log):
    _october_alone(server, RAW_ORDERS)
    assert ids(fetched([RAW_ITEMS], OF_OCTOBER)[RAW_ITEMS]) == ["i2", "i3"]
    assert log == ["raw_items: 1 rows belong to other months than 2026-10-01 up to 2026-11-01: left out."]


def test_an_item_of_no_order_in_any_month_fails_a_window_too(fetched, server):
    _october_alone(server, RAW_ORDERS)
    server.serve(RAW_ITEMS, [*SHOP[RAW_ITEMS], ("i4", "o9", "p1")])
    results = fetched(window=OF_OCTOBER)
    assert {table for table, result in results.items() if isinstance(result, Failed)} == {RAW_ITEMS}
    assert "raw_items.order_id: expected keys of raw_orders, found 1 rows of others, such as 'o9'" in (
        results[RAW_ITEMS].reason
    )


# ---- a table that fails


def _missing(server: Server) -> None:
    server.path(RAW_PRODUCTS).unlink()


def _truncated(server: Server) -> None:
    content = server.path(RAW_PRODUCTS).read_bytes()
    server.path(RAW_PRODUCTS).write_bytes(content[: len(content) // 2])


def _no_footer(server: Server) -> None:
    server.path(RAW_PRODUCTS).write_bytes(b"PAR1" + bytes(100) + b"PAR1")


def _empty(server: Server) -> None:
    server.path(RAW_PRODUCTS).write_bytes(b"")


def _a_page(server: Server) -> None:
    server.path(RAW_PRODUCTS).write_bytes(b"<html>")


def _half_a_cent(server: Server) -> None:
    table = pq.read_table(server.path(RAW_PRODUCTS))
    halved = table.set_column(table.column_names.index("price"), "price", pa.array([1.5]))
    pq.write_table(halved, server.path(RAW_PRODUCTS))


def _no_utf8(server: Server) -> None:
    table = pq.read_table(server.path(RAW_PRODUCTS))
    bad = pa.StringArray.from_buffers(1, pa.py_buffer(b"\0\0\0\0\1\0\0\0"), pa.py_buffer(b"\xff"))
    pq.write_table(table.set_column(1, "name", bad), server.path(RAW_PRODUCTS))


def _twice(server: Server) -> None:
    server.serve(RAW_PRODUCTS, SHOP[RAW_PRODUCTS] * 2)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (_missing, "404"),
        (_truncated, "no end. Gave up after 2 attempts"),
        (_no_footer, "raw_products: the file cannot be read as parquet"),
        (_empty, "raw_products.parquet"),
        (_a_page, "not parquet"),
        (_half_a_cent, "raw_products.price: expected int64"),
        (_no_utf8, "raw_products.name: expected string"),
        (_twice, "raw_products.sku: expected unique values"),
    ],
)
def test_a_table_that_fails_does_not_stop_the_others(fetched, server, spoil, said):
    spoil(server)
    results = fetched()
    assert isinstance(results[RAW_PRODUCTS], Failed)
    assert said in results[RAW_PRODUCTS].reason
    others = [result for table, result in results.items() if table != RAW_PRODUCTS]
    assert all(isinstance(result, AuditedTable) for result in others)


def test_items_fail_with_their_orders_and_say_that_it_is_the_orders(fetched, server):
    server.path(RAW_ORDERS).unlink()
    results = fetched()
    assert {table for table, result in results.items() if isinstance(result, Failed)} == {
        RAW_ORDERS,
        RAW_ITEMS,
    }
    assert results[RAW_ITEMS].reason == "raw_items is dated by raw_orders, which could not be loaded."


def test_orders_that_come_twice_do_not_double_their_items(fetched, server):
    server.serve(RAW_ORDERS, SHOP[RAW_ORDERS] * 2)
    (result,) = fetched([RAW_ITEMS]).values()
    assert isinstance(result, Failed)
    assert "raw_orders.id: expected unique values" in result.reason


def test_an_orphan_item_fails_the_items_alone(fetched, server):
    server.serve(RAW_ITEMS, [*SHOP[RAW_ITEMS], ("i4", "o9", "p1")])
    results = fetched()
    assert {table for table, result in results.items() if isinstance(result, Failed)} == {RAW_ITEMS}
    assert "'o9'" in results[RAW_ITEMS].reason
