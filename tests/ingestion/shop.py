"""A small shop on a socket that counts what it serves, and says what did not change if it is told to."""

import hashlib
import io
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pyarrow as pa
import pyarrow.parquet as pq

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

Row = tuple[Any, ...]


def order(key: str, at: datetime, cents: int = 100) -> Row:
    return (key, "c1", at, "s1", cents, 0, cents)


@dataclass
class Shop:
    """Three months of orders. `etags` are sent and taken; without `windows` every answer is whole.

    `more` names a further column of a table, and `missing` the tables that it does not have.
    """

    url: str = ""
    etags: bool = True
    windows: bool = True
    # What HEAD is answered with; GET works all the same.
    head_status: int = 200
    served: Counter[str] = field(default_factory=Counter)
    asked: list[str] = field(default_factory=list)
    queries: list[str] = field(default_factory=list)
    more: dict[str, str] = field(default_factory=dict)
    missing: set[str] = field(default_factory=set)
    rows: dict[str, list[Row]] = field(
        default_factory=lambda: {
            RAW_CUSTOMERS.name: [("c1", "ann")],
            RAW_ORDERS.name: [order(f"o{month}", datetime(2026, month, 14)) for month in (9, 10, 11)],
            RAW_ITEMS.name: [(f"i{month}", f"o{month}", "p1") for month in (9, 10, 11)],
            RAW_PRODUCTS.name: [("p1", "jaffle", "food", 100, None)],
            RAW_STORES.name: [("s1", "Philadelphia", datetime(2024, 9, 1), 0.06)],
            RAW_SUPPLIES.name: [("u1", "cup", 7, False, "p1")],
        }
    )

    def forget(self) -> None:
        """Count from nothing."""
        self.served.clear()
        self.asked.clear()
        self.queries.clear()

    def answer(self, name: str, window: tuple[str, str] | None) -> bytes:
        rows, schema = self.rows[name], {table.name: table for table in TABLES}[name].source_schema
        if window and self.windows:
            start, end = map(datetime.fromisoformat, window)
            orders = {row[0] for row in self.rows[RAW_ORDERS.name] if start <= row[2] < end}
            rows = [row for row in rows if row[1 if name == RAW_ITEMS.name else 0] in orders]
        columns = [pa.array([row[n] for row in rows], kind) for n, kind in enumerate(schema.types)]
        sink = io.BytesIO()
        table = pa.table(columns, schema=schema)
        if name in self.more:
            table = table.append_column(self.more[name], pa.array([1] * len(rows), pa.int64()))
        pq.write_table(table, sink)
        return sink.getvalue()


@contextmanager
def shop(reopened: Shop | None = None) -> Iterator[Shop]:
    """A shop that is open while the context lasts; one that was open before has its address again."""
    found = reopened or Shop()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked = urlsplit(self.path)
            query, name = parse_qs(asked.query), asked.path.rpartition("/")[2].removesuffix(".parquet")
            found.asked.append(name)
            found.queries.append(asked.query)
            status = 404 if name in found.missing else found.head_status if self.command == "HEAD" else 200
            if status != 200:
                self.send_response(status)
                self.end_headers()
                return
            content = found.answer(name, (query["start"][0], query["end"][0]) if "start" in query else None)
            etag = f'W/"{hashlib.sha256(content).hexdigest()}"'
            same = found.etags and self.headers.get("If-None-Match") == etag
            self.send_response(304 if same else 200)
            if found.etags:
                self.send_header("ETag", etag)
            self.end_headers()
            if not same and self.command == "GET":
                found.served[name] += len(content)
                self.wfile.write(content)

        do_HEAD = do_GET

        def log_message(self, *_: object) -> None:
            pass

    with listening(Handler, urlsplit(found.url).port or 0) as server:
        found.url = f"http://127.0.0.1:{server.server_port}"
        yield found
