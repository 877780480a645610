"""`serverless add-table`: declare a raw table from a sample, with a staging model that reads it.

A sample is a parquet file, or the first answer of a REST API.
"""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pyarrow as pa
import pyarrow.parquet as pq

from serverless_assets.addresses import is_http_address, without_credentials
from serverless_assets.ingestion.contract import declared_type
from serverless_assets.ingestion.http_client import MissingTable
from serverless_assets.ingestion.raw_table import RawTable
from serverless_assets.ingestion.source import HttpSource
from serverless_assets.ingestion.table_files import AddTableError, Sample, as_yaml, write_files

SAMPLE_ROWS = 10_000
# A pair of columns is looked for among the first ones alone.
COLUMNS_OF_A_PAIR = 8


def add_table(
    url: str,
    name: str | None,
    directory: Path,
    manifest: Mapping[str, Any],
    source: HttpSource | None,
    folder: Path,
    token: str | None = None,
) -> Iterator[str]:
    """Write an entry under `sources:` and a staging model. Yields what was done, in sentences.

    Args:
        url: the address of a parquet file, or of rows as JSON or CSV.
        name: of the table; that of the file, if None.
        directory: of the dbt project, and `manifest` is its.
        source: the one that runs load from, if it has an address.
        folder: for the sample file.
        token: the environment variable with the bearer token of an API.

    Raises:
        UserError: nothing was written.
    """
    if not is_http_address(url):
        raise AddTableError(
            f"{without_credentials(url)!r} is not an http or https address, such as "
            "https://example.com/data/raw_visits.parquet or https://api.example.com/v1/visits."
        )
    if token and token not in os.environ:
        # Not repeated: it may be the token itself.
        raise AddTableError(
            "--token takes the name of the environment variable that has the bearer token, and no "
            "variable of the name that you gave is set, neither in the environment nor in .env."
        )
    is_file = urlsplit(url).path.endswith(".parquet")
    if is_file:
        base, location = _split(url, source)
    else:
        base, location = url, unquote(urlsplit(url).path).rstrip("/").rpartition("/")[2].partition(".")[0]
    prefix = "" if is_file or location.lower().startswith("raw_") else "raw_"
    table = name or f"{prefix}{location.rpartition('/')[2].lower().replace('-', '_')}"
    model = f"stg_{table.removeprefix('raw_')}"
    _refuse_name(table, model, manifest)
    path, rest = folder / "sample.parquet", dict[str, Any]()
    reader = replace(source or HttpSource(base), base_url=base)
    if is_file:
        try:
            reader.fetch(RawTable(location, "", {}), None, path, lambda line: None)
        except MissingTable:
            raise AddTableError(f"{without_credentials(url)} does not exist: check the address.") from None
    else:
        # dlt takes seconds to import.
        from serverless_assets.ingestion.rest_sample import sample_endpoint

        rest = dict(sample_endpoint(reader, url, token, path))
    sample = read_sample(path, table)
    file, sql, yml = write_files(directory, manifest, table, model, location, sample, rest)
    yield f"Read {sample.rows:,} rows of {without_credentials(url)}."
    yield f"Added {table} to {file}, with {len(sample.columns)} columns."
    yield f"  key: {', '.join(sample.key)}, a guess: no two rows of the sample have the same."
    if sample.event_time:
        yield f"  event_time: {sample.event_time}, a guess: delete it if no row is an event."
    for column, kind in sample.others.items():
        yield f"  {column} is left out: {kind} cannot be loaded. Have the source serve it as text."
    if "paginator" in rest:
        yield f"  paginator: {as_yaml(rest['paginator'])}, a guess from the first page."
    elif rest:
        yield "  no paginator: the first answer leads to no other page. If there are more, add one."
    yield f"Added the model {model} in {sql} and {yml.name}."
    if source is None and is_file:
        yield f"Set SERVERLESS_DATASET_URL to {without_credentials(base)}, for runs to load it from there."
    yield "Next: check the guesses and write the descriptions, then `serverless plan` and `serverless run`."


def read_sample(path: Path, table: str) -> Sample:
    """Return what the schema and the first rows of a file say of a table.

    Raises:
        AddTableError: the file cannot be read, or no columns identify its rows.
    """
    try:
        with pq.ParquetFile(path) as file:
            kinds = {field.name: declared_type(field.type) for field in file.schema_arrow}
            others = {field.name: str(field.type) for field in file.schema_arrow if not kinds[field.name]}
            columns = {name: kind for name, kind in kinds.items() if kind}
            batch = next(file.iter_batches(SAMPLE_ROWS, columns=list(columns)), None)
    except (pa.ArrowException, OSError) as error:
        raise AddTableError(f"The file of {table} cannot be read as parquet ({error}).") from None
    if batch is None or not batch.num_rows or not columns:
        raise AddTableError(f"The file of {table} has no rows or columns to load: give one that has some.")
    if quoted := [name for name in columns if '"' in name or "`" in name]:
        raise AddTableError(
            f"The column {quoted[0]!r} of {table} has a quotation mark in its name, which dbt does not "
            "quote: have the source serve it under another name."
        )
    rows = pa.Table.from_batches([batch])
    filled = [name for name in columns if not rows[name].null_count]
    key = _guess_key([name for name in filled if columns[name] in ("string", "bigint")], rows, table)
    times = [name for name in filled if columns[name] == "timestamp" and name not in key]
    return Sample(columns, others, key, times[0] if times else None, rows.num_rows)


def _guess_key(columns: Sequence[str], rows: pa.Table, table: str) -> Sequence[str]:
    """Return the column, or else the pair, of which no two rows have the same values."""
    likely = sorted(
        columns, key=lambda name: (name.lower() != "id", not re.search(r"_?(id|key)$", name, re.I))
    )
    groups: list[tuple[str, ...]] = [(name,) for name in likely]
    groups += combinations(columns[:COLUMNS_OF_A_PAIR], 2)
    for group in groups:
        if rows.group_by(list(group)).aggregate([]).num_rows == rows.num_rows:
            return group
    raise AddTableError(
        f"No column of {table}, nor two of them, identifies its rows. Add the entry by hand, with the `key` "
        "that does: docs/raw-tables.md shows one."
    )


def _split(url: str, source: HttpSource | None) -> tuple[str, str]:
    """Return the base URL and the location of the table below it."""
    parts = urlsplit(url)
    if source is None:
        folder, _, file = parts.path.rpartition("/")
        return parts._replace(path=folder).geturl(), unquote(file).removesuffix(".parquet")
    base = urlsplit(source.base_url)
    below = f"{base.path.rstrip('/')}/"
    if (parts.scheme, parts.hostname, parts.port) != (base.scheme, base.hostname, base.port) or (
        not parts.path.startswith(below)
    ):
        raise AddTableError(
            f"{without_credentials(url)} is not below {source.name} (SERVERLESS_DATASET_URL), which all raw "
            "tables are loaded from."
        )
    return source.base_url, unquote(parts.path.removeprefix(below)).removesuffix(".parquet")


def _refuse_name(table: str, model: str, manifest: Mapping[str, Any]) -> None:
    if not re.fullmatch(r"[a-z_][a-z0-9_]*", table):
        raise AddTableError(
            f"{table!r} is no name of a table: expected lower-case letters, digits and underscores. "
            "Choose one with --name."
        )
    taken = {source["identifier"].lower() for source in manifest["sources"].values()}
    taken |= {str(node["name"]).lower() for node in manifest["nodes"].values()}
    for name in (table, model):
        if name in taken:
            raise AddTableError(f"The dbt project has a {name} already: choose another name with --name.")
