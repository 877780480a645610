"""The asset keys of what a dbt project has. Without dagster-dbt, which takes long to import."""

from collections.abc import Mapping
from typing import Any

import dagster as dg

from serverless_assets.asset_keys import KEY_PREFIX, asset_key, asset_name
from serverless_assets.ingestion.catalog import is_raw_table
from serverless_assets.transformation.manifest import is_model


def dbt_asset_key(properties: Mapping[str, Any]) -> dg.AssetKey:
    """Return the key of a model or source, given its properties in the manifest.

    That of a raw table is the one that ingestion gives it; all others are as dagster-dbt has them.
    """
    if properties["resource_type"] == "source" and is_raw_table(properties):
        return asset_key(properties["identifier"])
    config = properties.get("config") or {}
    meta = config.get("meta") or properties.get("meta") or {}
    dagster = meta.get("dagster") or {}
    if chosen := dagster.get("asset_key"):
        # `key_prefix: false` is for a source that another code location writes.
        has_prefix = dagster.get(KEY_PREFIX, True)
        return asset_key("/".join(dg.AssetKey(chosen).path)) if has_prefix else dg.AssetKey(chosen)
    if properties["resource_type"] == "source":
        return asset_key(f"{properties['source_name']}/{properties['name']}")
    if properties.get("version"):
        return asset_key(properties["alias"])
    schema = config.get("schema")
    return asset_key(properties["name"] if schema is None else f"{schema}/{properties['name']}")


def asset_names(manifest: Mapping[str, Any]) -> Mapping[str, str]:
    """Return the name of the asset of each model of a manifest, by dbt's unique id."""
    return {id: asset_name(dbt_asset_key(node)) for id, node in manifest["nodes"].items() if is_model(node)}
