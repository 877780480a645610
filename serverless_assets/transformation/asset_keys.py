"""The asset keys of what a dbt project has. Without dagster-dbt, which takes long to import."""

from collections.abc import Mapping
from typing import Any

import dagster as dg

from serverless_assets.ingestion.catalog import is_raw_table
from serverless_assets.transformation.manifest import is_model


def asset_key(properties: Mapping[str, Any]) -> dg.AssetKey:
    """Return the key of a model or source, given its properties in the manifest.

    That of a raw table is the one that ingestion gives it; all others are as dagster-dbt has them.
    """
    if properties["resource_type"] == "source" and is_raw_table(properties):
        return dg.AssetKey(properties["identifier"])
    config = properties.get("config") or {}
    meta = config.get("meta") or properties.get("meta") or {}
    if chosen := (meta.get("dagster") or {}).get("asset_key"):
        return dg.AssetKey(chosen)
    if properties["resource_type"] == "source":
        return dg.AssetKey([properties["source_name"], properties["name"]])
    if properties.get("version"):
        return dg.AssetKey(properties["alias"])
    schema = config.get("schema")
    return dg.AssetKey([*([schema] if schema is not None else []), properties["name"]])


def asset_names(manifest: Mapping[str, Any]) -> Mapping[str, str]:
    """Return the name of the asset of each model of a manifest, by dbt's unique id."""
    return {id: asset_key(node).to_user_string() for id, node in manifest["nodes"].items() if is_model(node)}
