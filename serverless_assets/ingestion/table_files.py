"""What `serverless add-table` writes: an entry under `sources:`, and a staging model that reads the table."""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from modal_forecast.report.formats import counted
from serverless_assets.files import write_atomically
from serverless_assets.ingestion.catalog import is_raw_table
from serverless_assets.ingestion.table_sample import AddTableError, Sample

NEW_SOURCE = """sources:
  - name: raw
    schema: "{{ env_var('SERVERLESS_SOURCE_SCHEMA', target.schema) }}"
    tables:
"""


def write_files(
    directory: Path,
    manifest: Mapping[str, Any],
    table: str,
    model: str,
    location: str,
    sample: Sample,
    rest: Mapping[str, Any],
) -> tuple[Path, Path, Path]:
    """Write the entry of a table and a model. Returns the sources file, and the model's .sql and .yml.

    Raises:
        AddTableError: nothing was written.
    """
    file, source_name = directory / "models" / "staging" / "raw.yml", "raw"
    for source in manifest["sources"].values():
        # The file that declares the project's raw tables.
        if is_raw_table(source) and source["package_name"] == manifest["metadata"]["project_name"]:
            file, source_name = directory / source["original_file_path"], source["source_name"]
            break
    text = file.read_text() if file.exists() else NEW_SOURCE
    content = _add_entry(text, source_name, table, _entry(table, location, sample, rest), file)
    sql, yml = (file.parent / f"{model}.{suffix}" for suffix in ("sql", "yml"))
    if existing := [path for path in (sql, yml) if path.exists()]:
        raise AddTableError(f"{existing[0]} exists: choose another name with --name.")
    file.parent.mkdir(parents=True, exist_ok=True)
    # The model last: without the entry that it reads, dbt could not parse the project.
    write_atomically(file, content.encode())
    write_atomically(sql, _model_sql(table, source_name, sample).encode())
    write_atomically(yml, _model_yml(model, table, sample).encode())
    return file, sql, yml


def _entry(table: str, location: str, sample: Sample, rest: Mapping[str, Any]) -> str:
    """Return the table as YAML, indented as an item of a list."""
    meta = [f"key: [{', '.join(map(as_yaml, sample.key))}]  # a guess, from {counted(sample.rows, 'row')}"]
    if sample.event_time:
        meta.append(f"event_time: {as_yaml(sample.event_time)}  # a guess")
    if sample.not_event_time:
        column, doubt = sample.not_event_time
        meta.append(f"# event_time: {as_yaml(column)}  # only if the rows are events: {doubt}")
    if rest:
        meta += yaml.safe_dump(
            {"rest": rest}, sort_keys=False, default_flow_style=None, width=110
        ).splitlines()
    elif location != table:
        meta.append(f"path: {as_yaml(location)}")
    lines = [f"- name: {table}", '  description: ""', "  config:", "    meta:"]
    lines += [f"      {line}" for line in meta]
    lines.append("  columns:")
    for name, kind in sample.columns.items():
        hint = "  # looks like numbers: double loads them as such" if rest and name in sample.decimals else ""
        lines += [f"    - name: {as_yaml(name)}", '      description: ""', f"      data_type: {kind}{hint}"]
    return "\n".join(lines)


def _add_entry(text: str, source_name: str, table: str, entry: str, file: Path) -> str:
    """Return a sources file with one entry more, and otherwise to the letter as it was."""
    tables = _tables_node(text, source_name)
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
    if _table_names(_tables_node(result, source_name)) != [*_table_names(tables), table]:
        raise AddTableError(f"{file} is written in a way that cannot be added to. Add it by hand:\n\n{entry}")
    return result


def _tables_node(text: str, source_name: str) -> Any:
    """Return the node of the tables of a source; None if there is none that can be added to."""
    try:
        sources = _value(yaml.compose(text), "sources")
    except yaml.YAMLError:
        return None
    for source in sources.value if sources else ():
        name, tables = _value(source, "name"), _value(source, "tables")
        if name and name.value == source_name and isinstance(tables, yaml.SequenceNode):
            return None if tables.flow_style or not tables.value else tables
    return None


def _table_names(tables: Any) -> list[str]:
    names = [_value(table, "name") for table in tables.value] if tables else []
    return [str(name.value) for name in names if name]


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


def _model_sql(table: str, source_name: str, sample: Sample) -> str:
    columns = ",\n".join(
        # As JSON, for Jinja to take the name as text whatever is in it.
        f"            {{{{ adapter.quote({json.dumps(name)}) }}}}"
        if _needs_quotes(name)
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
        lines += [f"      - name: {as_yaml(name)}", '        description: ""']
        if _needs_quotes(name):
            lines.append("        quote: true")
        if name in sample.key:
            lines.append(f"        data_tests: {tests}")
    return "\n".join(lines) + "\n"


def _needs_quotes(name: str) -> bool:
    """Say whether DuckDB or BigQuery would take an unquoted column for something else, as they do `at`."""
    # sqlglot takes a second to import.
    from sqlglot.dialects import BigQuery, DuckDB

    reserved = BigQuery.Generator.RESERVED_KEYWORDS | DuckDB.Generator.RESERVED_KEYWORDS
    return not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name) or name.lower() in {
        word.lower() for word in reserved
    }


def as_yaml(value: object) -> str:
    """Return a value as YAML of one line, text quoted where it must be."""
    return (
        yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=10**6)
        .removesuffix("\n")
        .removesuffix("\n...")
    )
