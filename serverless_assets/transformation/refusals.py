"""What a dbt project may declare that a run cannot build: refused as soon as the project is parsed. Pure."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from serverless_assets.asset_keys import asset_name
from serverless_assets.dagster_internals import RESERVED_NAMES
from serverless_assets.errors import UserError
from serverless_assets.ingestion.catalog import is_raw_table
from serverless_assets.names import NAMES_IN_A_LINE, name_some
from serverless_assets.transformation.manifest import dbt_asset_key, has_relation, relation_key, tested_nodes

# DuckDB's own, and that of staged rows.
RESERVED_DATABASES = ("main", "memory", "system", "temp", "_staging")


class ProjectRefused(UserError):
    """The dbt project declares what cannot be built; the message names each file."""


def refuse_project(
    manifest: Mapping[str, Any], variables: Mapping[str, str], attached: Mapping[str, str]
) -> None:
    """Refuse a project that dbt parses, and that runs could not build.

    Args:
        manifest: that of the project.
        variables: those that dbt is run with, which say where its warehouse is.
        attached: the type of each database that the project's own profile attaches, by name in lower case.

    Raises:
        ProjectRefused: with a sentence for each mistake.
    """
    mistakes = [
        *_names(manifest),
        *_checks(manifest),
        *_raw_tables(manifest),
        *_functions(manifest),
        *_materialized_views(manifest),
        *_raw_tables_elsewhere(manifest, variables["SERVERLESS_DATABASE"]),
        *(_databases(manifest, attached) if "SERVERLESS_DUCKDB_PATH" in variables else ()),
    ]
    if mistakes:
        raise ProjectRefused(name_some(mistakes, NAMES_IN_A_LINE, "\n"))


def _described(node: Mapping[str, Any]) -> str:
    return f"{node['original_file_path']}: the {node['resource_type']} {node['name']}"


def _models(manifest: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The models that are assets, in the order of their files."""
    for node in sorted(manifest["nodes"].values(), key=lambda node: str(node["original_file_path"])):
        if has_relation(node):
            yield node


def _names(manifest: Mapping[str, Any]) -> Iterator[str]:
    """Names that Dagster does not take, and those that it does not tell apart."""
    by_identifier: dict[str, Mapping[str, Any]] = {}
    for node in _models(manifest):
        key = dbt_asset_key(node)
        identifier = key.to_python_identifier()
        if not re.fullmatch(r"\w+", identifier, re.ASCII):
            yield (
                f"{_described(node)} has the asset key {asset_name(key)!r}, and Dagster takes "
                "letters of ASCII, digits, `_`, `-` and `.`. Rename it; `alias` keeps the name of its table."
            )
        elif identifier in RESERVED_NAMES:
            yield (
                f"{_described(node)} has the asset key {asset_name(key)!r}, a word that Dagster or Python "
                "reserves. Give it another, such as "
                f"`config: {{meta: {{dagster: {{asset_key: [model, {node['name']}]}}}}}}`."
            )
        elif other := by_identifier.get(identifier):
            yield (
                f"{_described(node)} and the {other['resource_type']} {other['name']} are "
                f"both {identifier!r} to Dagster. Rename one of them; `alias` keeps the name of its table."
            )
        by_identifier.setdefault(identifier, node)


def _checks(manifest: Mapping[str, Any]) -> Iterator[str]:
    """Tests of one model that would be one check to Dagster."""
    models = {node["unique_id"] for node in _models(manifest)}
    by_name: dict[tuple[str, str], Mapping[str, Any]] = {}
    for node in manifest["nodes"].values():
        if node["resource_type"] != "test":
            continue
        # A test of several models is not a check.
        parents = tested_nodes(node)
        if len(parents) == 1 and models.issuperset(parents):
            other = by_name.setdefault((parents[0], node["name"]), node)
            if other is not node:
                yield (
                    f"{_described(node)} and another test of the same model, {other['unique_id']}, have one "
                    "name to Dagster, which takes letters of ASCII, digits and `_`. Rename one of them."
                )


def _raw_tables(manifest: Mapping[str, Any]) -> Iterator[str]:
    """Raw tables whose names Dagster does not take, or that would replace a model or have its asset key."""
    relations = {relation_key(node): node for node in _models(manifest)}
    keys = {dbt_asset_key(node): node for node in _models(manifest)}
    for source in filter(is_raw_table, manifest["sources"].values()):
        identifier = dbt_asset_key(source).to_python_identifier()
        if identifier in RESERVED_NAMES or not re.fullmatch(r"\w+", identifier, re.ASCII):
            yield (
                f"{source['original_file_path']}: the raw table {source['identifier']} has a name that "
                "Dagster does not take. Name its table otherwise as `identifier`: letters of ASCII, digits "
                "and `_`, and no word that Dagster or Python reserves."
            )
        if model := relations.get(relation_key(source)) or keys.get(dbt_asset_key(source)):
            yield (
                f"{source['original_file_path']}: the raw table {source['identifier']} has the name of the "
                f"{model['resource_type']} {model['name']} ({model['original_file_path']}). Rename the "
                "latter, or remove the `key` of the source, if something else loads it."
            )


def _functions(manifest: Mapping[str, Any]) -> Iterator[str]:
    """Models that call a function of the folder functions/, which runs do not create."""
    functions = manifest.get("functions") or {}
    for node in manifest["nodes"].values():
        called = [functions[id] for id in node["depends_on"].get("nodes", ()) if id in functions]
        for function in called:
            yield (
                f"{_described(node)} calls the function {function['name']} "
                f"({function['original_file_path']}), and runs do not create functions. "
                "Write it as a macro, or create it in `on-run-start`."
            )


def _materialized_views(manifest: Mapping[str, Any]) -> Iterator[str]:
    """Models that the warehouse keeps up to date by itself, over the tables that runs write to."""
    for node in _models(manifest):
        if node["config"].get("materialized") == "materialized_view":
            yield (
                f"{_described(node)} is a materialized_view, which would go on to show what runs write and "
                "have not published. Make it a table or a view."
            )


def _raw_tables_elsewhere(manifest: Mapping[str, Any], database: str) -> Iterator[str]:
    """Raw tables outside of the one database that runs load them into."""
    for source in filter(is_raw_table, manifest["sources"].values()):
        if str(source["database"] or database).lower() != database.lower():
            yield (
                f"{_described_source(source)} has the database {source['database']!r}, and raw tables are "
                f"loaded into {database!r}. Remove its `database`, or its `key` if another tool loads it."
            )


def _databases(manifest: Mapping[str, Any], attached: Mapping[str, str]) -> Iterator[str]:
    """Models in databases that cannot be DuckDB files of the environment, and sources in those that are."""
    models = {relation_key(node): node for node in _models(manifest)}
    by_database: dict[str, Mapping[str, Any]] = {}
    for (database, _, _), node in models.items():
        if not re.fullmatch(r"[\w-]*", database, re.ASCII) or database in RESERVED_DATABASES:
            yield (
                f"{_described(node)} has the database {node['database']!r}, which cannot be the name of a "
                "DuckDB file. Give it another: letters of ASCII, digits, `_` and `-`, and not "
                f"{', '.join(RESERVED_DATABASES)}."
            )
        elif (kind := attached.get(database, "duckdb").lower()) != "duckdb":
            yield (
                f"{_described(node)} has the database {node['database']!r}, which profiles.yml attaches as "
                f"{kind}, and runs write to DuckDB files alone. Give it another database."
            )
        by_database.setdefault(database, node)
    for source in manifest["sources"].values():
        database = relation_key(source)[0]
        if database in attached and database in by_database and relation_key(source) not in models:
            yield (
                f"{_described_source(source)} is in the database {database!r}, which profiles.yml attaches "
                f"and in which the model {by_database[database]['name']} is built: runs have a file of their "
                "own for it. Give the model another database, or the attached one another `alias`."
            )


def _described_source(source: Mapping[str, Any]) -> str:
    return f"{source['original_file_path']}: the source {source['source_name']}.{source['name']}"
