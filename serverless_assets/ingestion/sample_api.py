"""The sample shop as a REST API: one parquet file for each table.

    GET /                   the tables, as JSON
    GET /{table}.parquet    a table; facts also take ?start=YYYY-MM-DD&end=YYYY-MM-DD (end exclusive)

`Last-Modified` is the midnight (UTC) after the last day that changed the answer. Like the ETag it follows
from the content and not from the clock, so a server that was restarted, or another one, says the same.
"""

import hashlib
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, date, datetime, time
from email.utils import format_datetime
from functools import lru_cache
from pathlib import Path
from threading import Thread

import pyarrow as pa
import pyarrow.parquet as pq
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from serverless_assets.ingestion.sample_catalogue import FACTS, SCHEMAS
from serverless_assets.ingestion.sample_requests import asked_window, is_current
from serverless_assets.ingestion.sample_shop import ONE_DAY, SampleShop

PARQUET = "application/vnd.apache.parquet"

# Two facts by month over two years, the snapshots, and a few whole tables: some 10 MB.
BODIES_REMEMBERED = 64

# A client that never reads its answer must not keep a run from ending.
SECONDS_TO_FINISH = 1


def create_app(shop_today: Callable[[], SampleShop]) -> Starlette:
    """The API of the shop that `shop_today` gives, asked at every request: it may gain a day at midnight."""

    def index(_: Request) -> Response:
        return JSONResponse(_index(shop_today()))

    def table(request: Request) -> Response:
        name = request.path_params["table"]
        start, end = asked_window(name, request.query_params)
        return _answer(request.headers, shop_today(), name, start, end)

    return Starlette(routes=[Route("/", index), Route("/{table}.parquet", table)])


@contextmanager
def serve(app: ASGIApp, port: int = 0) -> Iterator[str]:
    """Serve `app` on loopback while the context lasts, from any thread; 0 picks a free port.

    Yields:
        The base URL, such as `http://127.0.0.1:40123`; requests are taken from then on.

    Raises:
        OSError: the port is taken.
    """
    # The socket listens from here on: a request that comes before the thread is up waits in its queue.
    with socket.create_server(("127.0.0.1", port)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        server = uvicorn.Server(
            uvicorn.Config(
                app,
                lifespan="off",
                ws="none",
                log_config=None,
                log_level="error",
                access_log=False,
                timeout_graceful_shutdown=SECONDS_TO_FINISH,
            )
        )
        thread = Thread(target=server.run, args=([listener],), name="sample-api", daemon=True)
        thread.start()
        try:
            yield url
        finally:
            server.should_exit = True
            thread.join()


@lru_cache(BODIES_REMEMBERED)
def _body(shop: SampleShop, name: str, window: tuple[date, date]) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(shop.table(name, *window), sink)
    return sink.getvalue().to_pybytes()


def _etag(shop: SampleShop, name: str, window: tuple[date, date], changed: date | None) -> str:
    """All that the answer follows from, so that it need not be made to tell that it would be the same."""
    made_from = (shop.seed, name, window[0], changed, type(shop).__name__, _code(), pa.__version__)
    return f'"{hashlib.sha256(repr(made_from).encode()).hexdigest()}"'


@lru_cache(1)
def _code() -> str:
    """A hash of the code that makes the shop."""
    files = sorted(Path(__file__).parent.glob("sample_*.py"))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def _answer(
    asked: Mapping[str, str], shop: SampleShop, name: str, start: date | None, end: date | None
) -> Response:
    window, changed = shop.clip(start, end), shop.changed_on(name, start, end)
    etag, modified = _etag(shop, name, window, changed), _midnight_after(changed)
    headers = {"ETag": etag, "Cache-Control": "no-cache"}
    if modified:
        headers["Last-Modified"] = format_datetime(modified, usegmt=True)
    if is_current(asked, etag, modified):
        return Response(status_code=304, headers=headers)
    return Response(_body(shop, name, window), headers=headers, media_type=PARQUET)


def _index(shop: SampleShop) -> dict[str, object]:
    tables = [
        {
            "name": name,
            "path": f"/{name}.parquet",
            "columns": {field.name: str(field.type) for field in schema},
            "parameters": ["start", "end"] if name in FACTS else [],
        }
        for name, schema in SCHEMAS.items()
    ]
    return {"first_day": shop.start.isoformat(), "last_day": shop.end.isoformat(), "tables": tables}


def _midnight_after(day: date | None) -> datetime | None:
    return datetime.combine(day + ONE_DAY, time(), UTC) if day else None
