"""`serverless add-table`: declare a raw table from a sample, with a staging model that reads it.

A sample is a parquet file, or the first answer of a REST API.
"""

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from serverless_assets.addresses import is_http_address, without_credentials
from serverless_assets.errors import UserError
from serverless_assets.files import write_atomically
from serverless_assets.ingestion.catalog import is_raw_table
from serverless_assets.ingestion.contract import declared_type
from serverless_assets.ingestion.http_client import MissingTable
from serverless_assets.ingestion.source import HttpSource

SAMPLE_ROWS = 10_000
# A pair of columns is looked for among the first ones alone.
COLUMNS_OF_A_PAIR = 8
NEW_SOURCE = """sources:
  - name: raw
    schema: "{{ env_var('SERVERLESS_SOURCE_SCHEMA', target.schema) }}"
    tables:
"""


class AddTableError(UserError):
    """A table that cannot be declared; the message says why and what to do."""


@dataclass(frozen=True)
class Sample:
    """What a file says of a table. `columns` maps names to data types; those of `others` cannot be loaded."""

    columns: Mapping[str, str]
    others: Mapping[str, str]
    key: Sequence[str]
    event_time: str | None
    rows: int


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
            reader.fetch(location, None, path, lambda line: None)
        except MissingTable:
            raise AddTableError(f"{without_credentials(url)} does not exist: check the address.") from None
    else:
        # dlt takes seconds to import.
        from serverless_assets.ingestion.rest_sample import sample_endpoint

        rest = dict(sample_endpoint(reader, url, token, path))
    sample = read_sample(path, table)
    file, source_name = _sources_file(directory, manifest)
    entry = _entry(table, location, sample, rest)
    text = file.read_text() if file.exists() else NEW_SOURCE
    content = _with_entry(text, source_name, table, entry, file)
    sql, yml = (file.parent / f"{model}.{suffix}" for suffix in ("sql", "yml"))
    if existing := [path for path in (sql, yml) if path.exists()]:
        raise AddTableError(f"{existing[0]} exists: choose another name with --name.")
    file.parent.mkdir(parents=True, exist_ok=True)
    # The model last: without the entry that it reads, dbt could not parse the project.
    write_atomically(file, content.encode())
    write_atomically(sql, _model_sql(table, source_name, sample).encode())
    write_atomically(yml, _model_yml(model, table, sample).encode())
    yield f"Read {sample.rows:,} rows of {without_credentials(url)}."
    yield f"Added {table} to {file}, with {len(sample.columns)} columns."
    yield f"  key: {', '.join(sample.key)}, a guess: no two rows of the sample have the same."
    if sample.event_time:
        yield f"  event_time: {sample.event_time}, a guess: delete it if no row is an event."
    for column, kind in sample.others.items():
        yield f"  {column} is left out: {kind} cannot be loaded. Have the source serve it as text."
    if "paginator" in rest:
        yield f"  paginator: {_yaml(rest['paginator'])}, a guess from the first page."
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


def _sources_file(directory: Path, manifest: Mapping[str, Any]) -> tuple[Path, str]:
    """Return the file that declares the project's raw tables, and the name of their source."""
    for source in manifest["sources"].values():
        if is_raw_table(source) and source["package_name"] == manifest["metadata"]["project_name"]:
            return directory / source["original_file_path"], source["source_name"]
    return directory / "models" / "staging" / "raw.yml", "raw"


def _entry(table: str, location: str, sample: Sample, rest: Mapping[str, Any]) -> str:
    """Return the table as YAML, indented as an item of a list."""
    meta = [f"key: [{', '.join(map(_yaml, sample.key))}]  # a guess, from {sample.rows:,} rows"]
    if sample.event_time:
        meta.append(f"event_time: {_yaml(sample.event_time)}  # a guess")
    if rest:
        meta += yaml.safe_dump(
            {"rest": rest}, sort_keys=False, default_flow_style=None, width=110
        ).splitlines()
    elif location != table:
        meta.append(f"path: {_yaml(location)}")
    lines = [f"- name: {table}", '  description: ""', "  config:", "    meta:"]
    lines += [f"      {line}" for line in meta]
    lines.append("  columns:")
    for name, kind in sample.columns.items():
        lines += [f"    - name: {_yaml(name)}", '      description: ""', f"      data_type: {kind}"]
    return "\n".join(lines)


def _with_entry(text: str, source_name: str, table: str, entry: str, file: Path) -> str:
    """Return a sources file with one entry more, and otherwise to the letter as it was."""
    try:
        tables = _tables_node(yaml.compose(text), source_name)
    except yaml.YAMLError as error:
        raise AddTableError(f"{file} cannot be read as YAML: {error}") from None
    lines = text.splitlines()
    if tables is None and text != NEW_SOURCE:
        raise AddTableError(
            f"{file} has no list `tables:` of several lines under the source {source_name}. Add the entry by "
            f"hand:\n\n{entry}"
        )
    last = max(_ends(tables)) if tables else len(lines) - 1
    # A list begins at its first dash.
    indent = " " * (tables.start_mark.column if tables else 6)
    added = [indent + line for line in entry.splitlines()]
    space = [""] if tables and not lines[tables.value[-1].start_mark.line - 1].strip() else []
    result = "\n".join([*lines[: last + 1], *space, *added, *lines[last + 1 :]]) + "\n"
    written = [item["name"] for item in _load_tables(result, source_name)]
    if table not in written or len(written) != (len(tables.value) if tables else 0) + 1:
        raise AddTableError(f"{file} is written in a way that cannot be added to. Add it by hand:\n\n{entry}")
    return result


def _tables_node(document: Any, source_name: str) -> Any:
    """Return the node of the tables of a source; None if there is none that can be added to."""
    for source in _value(document, "sources").value if _value(document, "sources") else ():
        name, tables = _value(source, "name"), _value(source, "tables")
        if name and name.value == source_name and isinstance(tables, yaml.SequenceNode):
            return None if tables.flow_style or not tables.value else tables
    return None


def _value(node: Any, key: str) -> Any:
    pairs = node.value if isinstance(node, yaml.MappingNode) else ()
    return next((value for name, value in pairs if name.value == key), None)


def _ends(node: Any) -> Iterator[int]:
    """Yield the last line of each value; that of a block itself may be after comments that follow it."""
    if isinstance(node, yaml.ScalarNode) or node.flow_style:
        yield node.end_mark.line - (1 if node.end_mark.column == 0 and node.end_mark.line else 0)
        return
    for child in node.value:
        for part in child if isinstance(child, tuple) else (child,):
            yield from _ends(part)


def _load_tables(text: str, source_name: str) -> Sequence[Mapping[str, Any]]:
    try:
        sources = yaml.safe_load(text)["sources"]
        return [table for source in sources if source["name"] == source_name for table in source["tables"]]
    except (yaml.YAMLError, KeyError, TypeError):
        return []


def _model_sql(table: str, source_name: str, sample: Sample) -> str:
    columns = ",\n".join(
        # As JSON, for Jinja to take the name as text whatever is in it.
        f"            {{{{ adapter.quote({json.dumps(name)}) }}}}"
        if needs_quotes(name)
        else f"            {name}"
        for name in sample.columns
    )
    return f"""with
    source as (select * from {{{{ source("{source_name}", "{table}") }}}}),

    final as (
        select
{columns}
        from source
    )

select *
from final
"""


def _model_yml(model: str, table: str, sample: Sample) -> str:
    tests = "[unique, not_null]" if len(sample.key) == 1 else "[not_null]"
    lines = ["models:", f"  - name: {model}", f"    description: The rows of {table}."]
    if sample.event_time:
        lines += [
            "    config:",
            "      # The rows of a month come from those of that month: what reads it may be built by month.",
            "      meta: {follows_months: true}",
        ]
    lines.append("    columns:")
    for name in sample.columns:
        lines += [f"      - name: {_yaml(name)}", '        description: ""']
        if needs_quotes(name):
            lines.append("        quote: true")
        if name in sample.key:
            lines.append(f"        data_tests: {tests}")
    return "\n".join(lines) + "\n"


def needs_quotes(name: str) -> bool:
    """Say whether DuckDB or BigQuery would take an unquoted column for something else, as they do `at`."""
    # sqlglot takes a second to import.
    from sqlglot.dialects import BigQuery, DuckDB

    reserved = BigQuery.Generator.RESERVED_KEYWORDS | DuckDB.Generator.RESERVED_KEYWORDS
    return not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name) or name.lower() in {
        word.lower() for word in reserved
    }


def _yaml(value: object) -> str:
    """Return a value as YAML of one line, text quoted where it must be."""
    return (
        yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=10**6)
        .removesuffix("\n")
        .removesuffix("\n...")
    )
