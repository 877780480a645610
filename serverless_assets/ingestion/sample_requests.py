"""What a request to the sample API asks for, and whether it needs an answer: pure functions of its words."""

from collections.abc import Mapping
from datetime import UTC, date, datetime
from email.utils import parsedate_to_datetime

from starlette.exceptions import HTTPException

from serverless_assets.ingestion.sample_catalogue import FACTS, SCHEMAS


def asked_window(name: str, query: Mapping[str, str]) -> tuple[date | None, date | None]:
    """The start and end that a request for table `name` asks for; None where it leaves one open.

    Raises:
        HTTPException: 404 if there is no such table, 400 if the window makes no sense.
    """
    if name not in SCHEMAS:
        raise HTTPException(404, f"There is no table {name}. There are {', '.join(SCHEMAS)}.")
    start, end = _asked_day(query, "start"), _asked_day(query, "end")
    if name not in FACTS and (start or end):
        raise HTTPException(400, f"{name} is a snapshot, without a start or end.")
    if start and end and start > end:
        raise HTTPException(400, f"The start, {start}, is after the end, {end}.")
    return start, end


def is_current(headers: Mapping[str, str], etag: str, modified: datetime | None) -> bool:
    """Whether the copy that a client describes in its request headers is still good (RFC 9110, 13.2.2)."""
    if "if-none-match" in headers:
        held = [tag.strip().removeprefix("W/") for tag in headers["if-none-match"].split(",")]
        return etag in held or held == ["*"]
    since = _http_date(headers.get("if-modified-since", ""))
    return since is not None and modified is not None and modified <= since


def _asked_day(query: Mapping[str, str], parameter: str) -> date | None:
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


def _http_date(text: str) -> datetime | None:
    try:
        # An HTTP date is in GMT by definition.
        return parsedate_to_datetime(text).replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        return None
