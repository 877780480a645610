"""Guess from the first answer of an API what an entry says of it, and save its rows as a sample."""

import csv
import re
from collections.abc import Mapping
from contextlib import closing
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pyarrow as pa
import pyarrow.csv as pc
import pyarrow.parquet as pq
from dlt.sources.helpers.rest_client import RESTClient

from serverless_assets.addresses import without_credentials
from serverless_assets.ingestion.dlt_internals import (
    RuntimeConfiguration,
    detect_paginator,
    find_response_page_data,
)
from serverless_assets.ingestion.http import printable
from serverless_assets.ingestion.http_client import HttpClient, SourceError
from serverless_assets.ingestion.raw_table import LARGEST_INTEGER, RawTable
from serverless_assets.ingestion.rest_endpoint import read_endpoint
from serverless_assets.ingestion.rest_session import Page, PageSession

SECRET_NAME = re.compile(r"(key|token|secret|password|passwd|auth|signature|sig)$", re.I)


def sample_endpoint(client: HttpClient, url: str, token: str | None, path: Path) -> Mapping[str, Any]:
    """Save the rows of the first page as parquet at `path`. Returns what an entry says under `rest`.

    Args:
        token: the environment variable with a bearer token, if the API needs one.

    Raises:
        SourceError: the API gives no rows, or the address has a secret in it.
    """
    parts = urlsplit(url)
    params = dict(parse_qsl(parts.query, keep_blank_values=True))
    if secrets := [name for name in params if SECRET_NAME.search(name)]:
        raise SourceError(
            f"{without_credentials(url)} has {secrets[0]!r} in its query; the entry would hold its value. "
            "Give a bearer token by --token VARIABLE, or write the entry by hand."
        )
    rest: dict[str, Any] = {"url": parts._replace(query="", fragment="").geturl()}
    if params:
        rest["params"] = params
    if token:
        rest["auth"] = {"type": "bearer", "token": {"env": token}}
    try:
        table = RawTable(path.stem, "", {}, rest=read_endpoint(rest))
    except ValueError as problem:
        raise SourceError(f"{without_credentials(url)} cannot be asked: {problem}.") from None
    with closing(PageSession(client, rest["url"], table, path.parent, lambda line: None)) as session:
        reader = RESTClient(
            base_url="", auth=session.authentication, session=session, config=RuntimeConfiguration()
        )
        page = reader.get(session.url, params=params)
    assert isinstance(page, Page)
    if "csv" in page.headers.get("Content-Type", "") or parts.path.endswith(".csv"):
        rest.update(_save_csv(page, path))
    else:
        rest.update(_save_json(page, path))
    if paginator := detect_paginator(page, rest.get("format", "json")):
        rest["paginator"] = paginator
    return rest


def _save_json(page: Page, path: Path) -> Mapping[str, Any]:
    keys, rows = find_response_page_data(page.body)
    if rows == []:
        raise SourceError(
            f"The list of rows in the answer of {without_credentials(page.url)} is empty, so its columns "
            "cannot be read from it: give an address that has rows."
        )
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise SourceError(f"The answer of {without_credentials(page.url)} has no list of objects to load.")
    columns, renamed = {}, {}
    for key in dict.fromkeys(key for row in rows for key in row):
        values = [row.get(key) for row in rows]
        objects = [value for value in values if value is not None]
        if objects and all(isinstance(value, dict) for value in objects):
            # The keys of an object become columns; what is deeper stays JSON.
            inner = dict.fromkeys(inner for value in objects for inner in value)
            nested = {f"{key}.{name}": [value and value.get(name) for value in values] for name in inner}
        else:
            nested = {key: values}
        for place, of_place in nested.items():
            name = re.sub(r"\W", "_", place)
            columns[name] = _column(of_place)
            if name != place:
                renamed[name] = place
    pq.write_table(pa.table(columns), path)
    return {
        **({"data_selector": ".".join(keys)} if keys != ("$",) else {}),
        **({"fields": renamed} if renamed else {}),
    }


def _column(values: list[Any]) -> pa.Array:
    """Return values of JSON in the narrowest type that has all of them."""
    filled = [value for value in values if value is not None]
    if filled and all(isinstance(value, bool) for value in filled):
        return pa.array(values, pa.bool_())
    if filled and all(type(value) is int and abs(value) <= LARGEST_INTEGER for value in filled):
        return pa.array(values, pa.int64())
    if filled and all(isinstance(value, Decimal) or type(value) is int for value in filled):
        return pa.array([None if value is None else float(value) for value in values], pa.float64())
    texts = [None if value is None else str(value) for value in values]
    try:
        times = [None if text is None or len(text) < 10 else datetime.fromisoformat(text) for text in texts]
    except ValueError:
        times = []
    if filled and sum(time is not None for time in times) == len(filled):
        return pa.array([time and time.replace(tzinfo=None) for time in times], pa.timestamp("us"))
    return pa.array(texts, pa.string())


def _save_csv(page: Page, path: Path) -> Mapping[str, Any]:
    head = page.raw.read(1 << 16)
    page.raw.seek(0)
    try:
        delimiter = csv.Sniffer().sniff(head.decode("utf-8", "replace").splitlines()[0], ",;\t|").delimiter
    except (csv.Error, IndexError):
        delimiter = ","
    try:
        rows = pc.read_csv(
            page.raw, parse_options=pc.ParseOptions(delimiter=delimiter, newlines_in_values=True)
        )
    except (pa.ArrowException, UnicodeError) as error:
        problem = printable(str(error).splitlines()[0], 200)
        raise SourceError(f"The answer of {without_credentials(page.url)} is not CSV: {problem}") from None
    fields = {re.sub(r"\W", "_", name): name for name in rows.column_names}
    kinds = [pa.string() if pa.types.is_null(kind) else kind for kind in rows.schema.types]
    rows = rows.rename_columns(list(fields)).cast(pa.schema(zip(fields, kinds, strict=True)))
    pq.write_table(rows, path)
    renamed = {name: field for name, field in fields.items() if name != field}
    return {
        "format": "csv",
        **({"delimiter": delimiter} if delimiter != "," else {}),
        **({"fields": renamed} if renamed else {}),
    }
