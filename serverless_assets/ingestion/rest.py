"""Read the rows of a REST API into one parquet file, page by page.

dlt's RESTClient asks for one page after the other. All columns of the file are text, as the API wrote the
values: the contract reads them. No more than one page of JSON is in memory at a time.
"""

import hashlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from itertools import islice
from json import dumps
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as pc
import pyarrow.parquet as pq
from dlt.sources.helpers.rest_client import RESTClient, paginators

from serverless_assets.addresses import without_credentials
from serverless_assets.ingestion.dlt_internals import RuntimeConfiguration, detect_paginator
from serverless_assets.ingestion.fetch_result import Download, NotModified
from serverless_assets.ingestion.http import NO_VALIDATORS, Validators, printable
from serverless_assets.ingestion.http_client import HttpClient, Log, MissingPage, MissingTable, SourceError
from serverless_assets.ingestion.raw_table import RawTable
from serverless_assets.ingestion.rest_session import NotModifiedAnswer, Page, PageSession

PAGINATORS: Mapping[str, Callable[..., paginators.BasePaginator]] = {
    "page_number": paginators.PageNumberPaginator,
    "offset": paginators.OffsetPaginator,
    "cursor": paginators.JSONResponseCursorPaginator,
    "json_link": paginators.JSONLinkPaginator,
    "header_link": paginators.HeaderLinkPaginator,
    "none": paginators.SinglePagePaginator,
}
# A row group is written once there is so much.
ROW_GROUP_BYTES = 1 << 23
ABSENT = object()


def fetch_rows(
    client: HttpClient,
    base_url: str,
    table: RawTable,
    path: Path,
    log: Log,
    validators: Validators = NO_VALIDATORS,
    since: str = "",
    pages: int | None = None,
) -> Download | NotModified:
    """Write the table's rows to a parquet file at `path`, unless they are still those with these validators.

    Args:
        base_url: the address of the source, for a table whose entry has no `url`.
        since: asks only for rows that changed since; an API is free to ignore it.
        pages: how many to read at most; None reads all.

    Raises:
        SourceError: the API cannot give all of the rows.
    """
    assert table.rest is not None
    started, page = time.monotonic(), 1
    url = table.rest.address(base_url, table.location)
    address = without_credentials(url)
    schema = pa.schema([(name, pa.string()) for name in table.columns])
    try:
        with (
            closing(PageSession(client, url, table, path.parent, log, validators)) as session,
            pq.ParquetWriter(path, schema, compression="zstd") as file,
        ):
            reader, params = PageReader(session, table, file), dict(table.rest.params)
            if since and table.rest.updated_since_param:
                params[table.rest.updated_since_param] = since
            for _ in islice(reader.paginate(url, params=params), pages):
                page += 1
            reader.finish()
    except NotModifiedAnswer:
        path.unlink(missing_ok=True)
        return NotModified(address, time.monotonic() - started)
    except SourceError as error:
        if page == 1:
            raise
        kind = MissingPage if isinstance(error, MissingTable) else SourceError
        raise kind(f"Page {page} of {table.name}: {error}") from None
    except (ValueError, TypeError) as error:
        # dlt's own, such as a total that is no number. Its message repeats the answer.
        raise SourceError(
            f"Page {page} of {table.name}: the answer of {address} does not have what `paginator` or `auth` "
            f"names ({type(error).__name__})."
        ) from None
    except OSError as error:
        raise SourceError(
            f"The rows of {address} cannot be written to {path}: {error.strerror or error}. "
            "Free space there, then run again."
        ) from None
    return Download(path, address, session.received, time.monotonic() - started, session.validators)


class PageReader(RESTClient):
    """Reads the pages of an API, and writes their rows to a file as they come."""

    def __init__(self, session: PageSession, table: RawTable, file: pq.ParquetWriter) -> None:
        assert table.rest is not None
        self.table, self.endpoint, self.file = table, table.rest, file
        self.log, self.page, self.digests = session.log, 0, dict[bytes, int]()
        self.waiting, self.bytes_waiting = list[pa.RecordBatch](), 0
        # Of each column of JSON that had a value so far: whether its values are objects or lists.
        self.nested: dict[str, bool] = {}
        super().__init__(
            base_url="",
            headers=dict(self.endpoint.headers),
            auth=session.authentication,
            paginator=self._paginator(),
            # Without any, dlt guesses one.
            data_selector=self.endpoint.data_selector or "$",
            session=session,
            config=RuntimeConfiguration(),
        )

    def _paginator(self) -> paginators.BasePaginator:
        options = dict(self.endpoint.paginator or {"type": "none"})
        return PAGINATORS[options.pop("type")](**options)

    def extract_response(self, response: Any, data_selector: Any) -> list[int]:
        """Write the rows of a page. Returns how many, or nothing for none: with that some paginators end."""
        self.page += 1
        if self.page == 1:
            self._refuse_overlooked_pages(response)
        read = self._read_csv if self.endpoint.format == "csv" else self._read_json
        rows, content = 0, hashlib.blake2b(digest_size=16)
        for batch in read(response):
            rows += batch.num_rows
            content.update(batch.serialize())
            self.waiting.append(batch)
            self.bytes_waiting += batch.nbytes
            if self.bytes_waiting > ROW_GROUP_BYTES:
                self._write()
        earlier = self.digests.setdefault(content.digest(), self.page)
        if rows and earlier != self.page:
            raise SourceError(
                f"The answer has the same rows as page {earlier}: the API does not take the parameters of "
                "`paginator`, or counts from another number."
            )
        response.close()
        return [rows] if rows else []

    def finish(self) -> None:
        """Write what is still waiting."""
        self._write()
        if self.endpoint.omits_empty and self.endpoint.format == "json":
            empty = [self._field(name) for name in self.table.columns if name not in self.nested]
            if empty:
                self.log(f"{self.table.name}: no row has {', '.join(empty)}.")

    def _write(self) -> None:
        if self.waiting:
            self.file.write_table(pa.Table.from_batches(self.waiting))
        self.waiting, self.bytes_waiting = [], 0

    def _field(self, column: str) -> str:
        return self.endpoint.fields.get(column, column)

    def _read_json(self, page: Page) -> Iterator[pa.RecordBatch]:
        """Yield the rows of a page of JSON, each value as text."""
        selector = self.endpoint.data_selector
        rows = _value(page.body, selector.split(".")) if selector else page.body
        if rows is None and self.page > 1:
            rows = []
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            place = f"at {selector!r}" if selector else "of its own"
            raise SourceError(
                f"The answer of {without_credentials(page.url)} has no list of objects {place}: check the "
                f"`data_selector` of `rest`. The answer is {_shape(page.body)}."
            )
        if not rows:
            return
        columns = []
        for name in self.table.columns:
            field = self._field(name)
            values = [
                _value(row, field.split(".") if name in self.endpoint.fields else [name]) for row in rows
            ]
            if not self.endpoint.omits_empty and all(value is ABSENT for value in values):
                raise SourceError(
                    f"The answer has no {field!r} in any row; the first is {_shape(rows[0])}. If the API "
                    "leaves out what is empty, say `omits_empty: true` under `rest`."
                )
            filled = [value for value in values if value is not None and value is not ABSENT]
            nested = {isinstance(value, dict | list) for value in filled}
            if nested and nested != {self.nested.setdefault(name, True in nested)}:
                raise SourceError(f"The answer has objects in {field!r}, and other values here or before.")
            try:
                columns.append(pa.array([_text(value) for value in values], pa.string()))
            except (pa.ArrowException, UnicodeError):
                raise SourceError(f"The answer has text in {field!r} that is not Unicode.") from None
        yield pa.record_batch(columns, names=list(self.table.columns))

    def _read_csv(self, page: Page) -> Iterator[pa.RecordBatch]:
        """Yield the rows of a page of CSV, each value as text; an empty one is null unless it is quoted."""
        file, fields = page.raw, [self._field(name) for name in self.table.columns]
        if not file.read(1) and self.page > 1:
            return
        reading = pc.ReadOptions(encoding=self.endpoint.encoding)
        parsing = pc.ParseOptions(delimiter=self.endpoint.delimiter, newlines_in_values=True)
        converting = pc.ConvertOptions(
            column_types=dict.fromkeys(fields, pa.string()),
            include_columns=fields,
            null_values=[""],
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
        )
        try:
            file.seek(0)
            with pc.open_csv(file, reading, parsing) as reader:
                header = reader.schema.names
            if wrong := [field for field in fields if header.count(field) != 1]:
                times = "twice" if wrong[0] in header else "not at all"
                raise SourceError(
                    f"The answer of {without_credentials(page.url)} has the column {wrong[0]!r} {times}, "
                    f"among {printable(', '.join(header), 500)}."
                )
            file.seek(0)
            with pc.open_csv(file, reading, parsing, converting) as reader:
                for batch in reader:
                    yield batch.rename_columns(list(self.table.columns))
        except (pa.ArrowException, LookupError, UnicodeError) as error:
            if "Empty CSV file" in str(error) and file.seek(0, 2):
                # A header without a line after it.
                return
            problem = printable(str(error).splitlines()[0], 200)
            raise SourceError(
                f"The answer of {without_credentials(page.url)} is not CSV: {problem}"
            ) from None

    def _refuse_overlooked_pages(self, page: Page) -> None:
        """Raise `SourceError` if the first page leads to a next one, and the entry's paginator does not."""
        if self.endpoint.paginator and self.endpoint.paginator.type not in ("cursor", "json_link"):
            return
        detected = detect_paginator(page, self.endpoint.format)
        if detected.get("type") not in ("header_link", "json_link"):
            return
        hint = ", ".join(f"{option}: {value}" for option, value in detected.items())
        declared = self._paginator()
        declared.update_state(page, [1])
        if not declared.has_next_page:
            raise SourceError(
                f"The answer of {without_credentials(page.url)} leads to a next page, which {{{hint}}} as "
                "the `paginator` of `rest` follows, and the entry does not."
            )


def _value(value: Any, keys: Sequence[str]) -> Any:
    """Return what the keys lead to in objects of JSON; nothing is in what is null."""
    for key in keys:
        if value is not None:
            value = value.get(key, ABSENT) if isinstance(value, dict) else ABSENT
    return value


def _shape(value: Any) -> str:
    """Return what a value of JSON is, without the values in it."""
    if isinstance(value, dict):
        return f"an object of {', '.join(printable(key) for key in list(value)[:20]) or 'nothing'}"
    return "a list" if isinstance(value, list) else "a single value"


def _text(value: Any) -> str | None:
    """Return a value of JSON as text; objects and lists stay JSON."""
    if value is None or value is ABSENT:
        return None
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict | list):
        return dumps(value, ensure_ascii=False, default=str)
    return str(value)
