"""What dbt's manifest says of the project: its models and tests, their relations and asset keys. Pure."""

import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import dagster as dg

from serverless_assets.asset_keys import KEY_PREFIX, asset_key, asset_name
from serverless_assets.ingestion.catalog import is_raw_table
from serverless_assets.warehouse import published_schema


def is_model(node: Mapping[str, Any]) -> bool:
    """Whether an entry of the manifest is a model, a seed or a snapshot."""
    return node["resource_type"] in ("model", "seed", "snapshot")


def has_relation(node: Mapping[str, Any]) -> bool:
    """Whether an entry of the manifest is a model that has a relation: not an ephemeral one."""
    return is_model(node) and node["config"].get("materialized") != "ephemeral"


def selected_from(node: Mapping[str, Any], manifest: Mapping[str, Any]) -> Iterator[str]:
    """The unique ids of what a model selects from, each ephemeral one followed by what that selects from."""
    for id in node["depends_on"].get("nodes", ()):
        yield id
        parent = manifest["nodes"].get(id)
        if parent and parent["config"].get("materialized") == "ephemeral":
            yield from selected_from(parent, manifest)


def tested_nodes(test: Mapping[str, Any]) -> Sequence[str]:
    """The unique ids of what a data test is about: the model it is declared with, or all that it reads."""
    return [test["attached_node"]] if test.get("attached_node") else test["depends_on"]["nodes"]


def seeds_of_sources(manifest: Mapping[str, Any]) -> Mapping[str, str]:
    """The unique id of the seed that is the relation of a source, by the source's unique id.

    Many a project keeps sample data as seeds and reads them as a source. dbt does not see that the one is
    the other.
    """
    nodes, sources = manifest["nodes"].items(), manifest["sources"].items()
    seeds = {relation_key(node): id for id, node in nodes if node["resource_type"] == "seed"}
    return {id: seeds[relation_key(source)] for id, source in sources if relation_key(source) in seeds}


def relation_key(properties: Mapping[str, Any]) -> tuple[str, ...]:
    """Database, schema and name of a relation in lower case, as DuckDB ignores case."""
    name = properties.get("alias") or properties.get("identifier")
    parts = (properties["database"], properties["schema"], name)
    return tuple(str(part or "").lower() for part in parts)


class TargetSchema(NamedTuple):
    """The database and the schema of dbt's target, in which models without any of their own are built."""

    database: str
    schema: str

    @classmethod
    def of(cls, variables: Mapping[str, str]) -> "TargetSchema":
        """Return that of the variables that dbt is run with."""
        return cls(variables.get("SERVERLESS_DATABASE", ""), variables.get("DBT_SCHEMA", ""))


def relation_name(properties: Mapping[str, Any], target: TargetSchema) -> str:
    """The name of a model's or a source's relation: with its schema and its database as far as these are not
    the target's."""
    name = str(properties.get("alias") or properties.get("identifier"))
    database = str(properties.get("database") or target.database)
    schema = str(properties.get("schema") or target.schema)
    if database.lower() != target.database.lower() != "":
        return f"{database}.{published_schema(schema)}.{name}"
    return name if schema.lower() == target.schema.lower() else f"{published_schema(schema)}.{name}"


def schemas_of_models(manifest: Mapping[str, Any]) -> Collection[tuple[str, str]]:
    """The database and the schema of each model that has a relation."""
    return {
        (str(node["database"] or ""), str(node["schema"]))
        for node in manifest["nodes"].values()
        if has_relation(node)
    }


# A command asks for it a few times, and a manifest of 1,000 models takes half a second.
@lru_cache(maxsize=1)
def parsed_manifest(content: bytes) -> Mapping[str, Any]:
    """Return what a manifest.json says. Callers share it, so it is for reading alone.

    What reads a source that is a seed reads that seed. The name of a test is that of its check: letters of
    ASCII, digits and `_`, where that of a test of `my-model` has a dash.
    """
    manifest: Mapping[str, Any] = json.loads(content)
    for node in manifest["nodes"].values():
        if node["resource_type"] == "test":
            node["name"] = re.sub(r"\W", "_", node["name"], flags=re.ASCII)
    seeds = seeds_of_sources(manifest)
    for node in manifest["nodes"].values() if seeds else ():
        parents = node["depends_on"].get("nodes", [])
        parents[:] = dict.fromkeys(seeds.get(id, id) for id in parents)
    return manifest


def dbt_asset_key(properties: Mapping[str, Any]) -> dg.AssetKey:
    """Return the key of a model or source, given its properties in the manifest.

    That of a raw table is the one that ingestion gives it; all others are as dagster-dbt has them.
    """
    if properties["resource_type"] == "source" and is_raw_table(properties):
        return asset_key(properties["identifier"])
    dagster = _dagster_meta(properties)
    if chosen := dagster.get("asset_key"):
        # `key_prefix: false` is for a source that another code location writes.
        has_prefix = dagster.get(KEY_PREFIX, True)
        return asset_key("/".join(dg.AssetKey(chosen).path)) if has_prefix else dg.AssetKey(chosen)
    if properties["resource_type"] == "source":
        return asset_key(f"{properties['source_name']}/{properties['name']}")
    if properties.get("version"):
        return asset_key(properties["alias"])
    schema = (properties.get("config") or {}).get("schema")
    return asset_key(properties["name"] if schema is None else f"{schema}/{properties['name']}")


def source_keys_of_others(manifest: Mapping[str, Any]) -> Collection[dg.AssetKey]:
    """Return the keys of the sources that another code location writes."""
    return {
        dbt_asset_key(source)
        for source in manifest["sources"].values()
        if _dagster_meta(source).get(KEY_PREFIX) is False
    }


def _dagster_meta(properties: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return what `meta: {dagster: ...}` of a model or source says."""
    meta = (properties.get("config") or {}).get("meta") or properties.get("meta") or {}
    return meta.get("dagster") or {}


def asset_names(manifest: Mapping[str, Any]) -> Mapping[str, str]:
    """Return the name of the asset of each model of a manifest, by dbt's unique id."""
    return {id: asset_name(dbt_asset_key(node)) for id, node in manifest["nodes"].items() if is_model(node)}
