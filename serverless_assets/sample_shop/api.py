"""The sample shop as a REST API: one parquet file for each table.

    GET /                   the tables, as JSON
    GET /{table}.parquet    a table; facts also take ?start=YYYY-MM-DD&end=YYYY-MM-DD (end exclusive)

`Last-Modified` is the midnight (UTC) after the last day that changed the answer. Like the ETag it follows
from the content and not from the clock, so a server that was restarted, or another one, says the same.
"""

import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, date, datetime, time
from email.utils import format_datetime, parsedate_to_datetime
from functools import lru_cache
from pathlib import Path
from threading import Thread

import pyarrow as pa
import pyarrow.parquet as pq
import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from serverless_assets.hashing import digest
from serverless_assets.ingestion.http_client import SAMPLE_HEADER
from serverless_assets.sample_shop.catalogue import FACTS, TABLES
from serverless_assets.sample_shop.shop import ONE_DAY, SampleShop

PARQUET = "application/vnd.apache.parquet"

# Two facts by month over two years, the snapshots, and a few whole tables: some 10 MB.
BODIES_REMEMBERED = 64

# A client that never reads its answer must not keep a run from ending.
SECONDS_TO_FINISH = 1


def create_app(shop_today: Callable[[], SampleShop]) -> Starlette:
    """Return the API of the shop that `shop_today` gives, called at every request."""

    def index(_: Request) -> Response:
        shop = shop_today()
        tables = [
            {
                "name": name,
                "path": f"/{name}.parquet",
                "columns": {
                    field.name: str(field.type) for field in shop.table(name, shop.start, shop.start).schema
                },
                "parameters": ["start", "end"] if name in FACTS else [],
            }
            for name in TABLES
        ]
        return JSONResponse(
            {"first_day": shop.start.isoformat(), "last_day": shop.end.isoformat(), "tables": tables}
        )

    def table(request: Request) -> Response:
        name = request.path_params["table"]
        start, end = _requested_window(name, request.query_params)
        return _respond(request.headers, shop_today(), name, start, end)

    return Starlette(routes=[Route("/", index), Route("/{table}.parquet", table)])


@contextmanager
def serve(app: ASGIApp, port: int = 0) -> Iterator[str]:
    """Serve `app` on loopback in a thread while the context lasts; port 0 picks a free port.

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
def _parquet(shop: SampleShop, name: str, window: tuple[date, date]) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(shop.table(name, *window), sink)
    return sink.getvalue().to_pybytes()


def _respond(
    headers: Mapping[str, str], shop: SampleShop, name: str, start: date | None, end: date | None
) -> Response:
    """Return the table, or 304 if the request headers describe a copy that is still current."""
    window, changed = shop.clip(start, end), shop.changed_on(name, start, end)
    # The tag covers all that the file depends on, so a file need not be made to tell that it is the same.
    made_from = (shop.seed, name, window[0], changed, type(shop).__name__, _code_hash(), pa.__version__)
    etag = f'"{digest(repr(made_from), 64)}"'
    modified = datetime.combine(changed + ONE_DAY, time(), UTC) if changed else None
    validators = {"ETag": etag, "Cache-Control": "no-cache"}
    if modified:
        validators["Last-Modified"] = format_datetime(modified, usegmt=True)
    if _is_current(headers, etag, modified):
        return Response(status_code=304, headers=validators)
    return Response(_parquet(shop, name, window), headers=validators, media_type=PARQUET)


@lru_cache(1)
def _code_hash() -> str:
    """Return a hash of the code that makes the shop's tables."""
    files = sorted(Path(__file__).parent.glob("*.py"))
    return digest(b"".join(file.read_bytes() for file in files), 64)


def _is_current(headers: Mapping[str, str], etag: str, modified: datetime | None) -> bool:
    """Whether the copy that a client describes in its request headers is still good (RFC 9110, 13.2.2)."""
    if "if-none-match" in headers:
        etags = [tag.strip().removeprefix("W/") for tag in headers["if-none-match"].split(",")]
        return etag in etags or etags == ["*"]
    try:
        # An HTTP date is in GMT by definition.
        since = parsedate_to_datetime(headers.get("if-modified-since", "")).replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        return False
    return modified is not None and modified <= since


def _requested_window(name: str, query: Mapping[str, str]) -> tuple[date | None, date | None]:
    """Return the start and end that a request for table `name` asks for; None where it leaves one open.

    Raises:
        HTTPException: 404 if there is no such table, 400 if the window makes no sense.
    """
    if name not in TABLES:
        message = f"There is no table {name}. There are {', '.join(TABLES)}."
        raise HTTPException(404, message, {SAMPLE_HEADER: "yes"})
    start, end = _parse_day(query, "start"), _parse_day(query, "end")
    if name not in FACTS and (start or end):
        raise HTTPException(400, f"{name} is a snapshot, without a start or end.")
    if start and end and start > end:
        raise HTTPException(400, f"The start, {start}, is after the end, {end}.")
    return start, end


def _parse_day(query: Mapping[str, str], parameter: str) -> date | None:
    if parameter not in query:
        return None
    text = query[parameter]
    try:
        day = date.fromisoformat(text)
    except ValueError:
        day = None
    # Python also reads 20260131 and 2026-W05-6.
    if day is None or day.isoformat() != text:
        raise HTTPException(400, f"The {parameter}, {text!r}, is not a date such as 2026-01-31.")
    return day
