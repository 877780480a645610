"""`serverless add-table`: declare a raw table from a sample, with a staging model that reads it.

A sample is a parquet file, or the first answer of a REST API.
"""

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from modal_forecast.report.formats import counted
from serverless_assets.addresses import is_http_address, without_credentials
from serverless_assets.ingestion.http_client import MissingTable
from serverless_assets.ingestion.raw_table import RawTable
from serverless_assets.ingestion.source import HttpSource
from serverless_assets.ingestion.table_files import as_yaml, write_files
from serverless_assets.ingestion.table_sample import AddTableError, read_sample


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
    try:
        if is_file:
            reader.fetch(RawTable(location, "", {}), None, path, lambda line: None)
        else:
            # dlt takes seconds to import.
            from serverless_assets.ingestion.rest_sample import sample_endpoint

            rest = dict(sample_endpoint(reader, url, token, path))
    except MissingTable as error:
        # Its own advice is about an entry, which there is not yet.
        raise AddTableError(
            f"{without_credentials(url)} answers {error.status}: check the address."
        ) from None
    sample = read_sample(path, table, has_all_rows="paginator" not in rest)
    file, sql, yml = write_files(directory, manifest, table, model, location, sample, rest)
    yield f"Read {counted(sample.rows, 'row')} of {without_credentials(url)}."
    yield f"Added {table} to {file}, with {counted(len(sample.columns), 'column')}."
    yield f"  key: {', '.join(sample.key)}, a guess: no two rows of the sample have the same."
    if sample.event_time:
        yield f"  event_time: {sample.event_time}, a guess: delete it if the rows are no events."
    if sample.not_event_time:
        column, doubt = sample.not_event_time
        yield f"  no event_time: {column} is not like that of events ({doubt}). If it is, uncomment it."
    for column in sample.decimals if rest else ():
        yield f"  {column} is text that looks like numbers: `data_type: double` loads it as numbers."
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
