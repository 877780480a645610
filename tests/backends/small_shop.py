"""The sample shop with a fortieth of its customers: as many days, months and stores, and far fewer rows."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from functools import cache
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, Router

from serverless_assets.environments import environment
from serverless_assets.sample_shop.api import create_app, serve
from serverless_assets.sample_shop.catalogue import TABLES
from serverless_assets.sample_shop.shop import SampleShop
from serverless_assets.settings import Settings

ONE_IN = 40


@dataclass(frozen=True, kw_only=True)
class SmallShop(SampleShop):
    """See `SampleShop`. Whole customers are kept, with all their orders and items."""

    def table(self, name: str, start: date | None = None, end: date | None = None) -> pa.Table:
        whole = super().table(name, start, end)
        if name == "raw_customers":
            return whole.filter(self._is_kept(whole["id"]))
        if name == "raw_orders":
            return whole.filter(self._is_kept(whole["customer"]))
        if name == "raw_items":
            orders = self.table("raw_orders", start, end)["id"]
            return whole.filter(pc.is_in(whole["order_id"], value_set=orders.combine_chunks()))
        return whole

    def _is_kept(self, customers: pa.ChunkedArray) -> list[bool]:
        kept = super().table("raw_customers")["id"].to_pylist()[::ONE_IN]
        return pc.is_in(customers, value_set=pa.array(kept, pa.string()))


@contextmanager
def serve_shop(shop_today: Callable[[], SampleShop]) -> Iterator[str]:
    """Serve the shop, and without rows what else the project declares: a further table breaks no test."""
    shop = create_app(shop_today)
    further = Router([Route("/{table}.parquet", _table_without_rows)])

    async def app(scope: Any, receive: Any, send: Any) -> None:
        name = scope["path"].strip("/").removesuffix(".parquet")
        await (further if name and name not in TABLES else shop)(scope, receive, send)

    with serve(app) as url:
        yield url


def _table_without_rows(request: Request) -> Response:
    schema = _declared_schemas().get(request.path_params["table"])
    if schema is None:
        return Response(status_code=404)
    sink = pa.BufferOutputStream()
    pq.write_table(schema.empty_table(), sink)
    return Response(sink.getvalue().to_pybytes())


@cache
def _declared_schemas() -> dict[str, pa.Schema]:
    with TemporaryDirectory() as home:
        tables = environment(Settings.from_environ({"SERVERLESS_HOME": home})).raw_tables
    return {table.location: table.source_schema for table in tables}
