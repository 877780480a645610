"""Which names the forecast's table may not have: those of tables that something else writes."""

from collections.abc import Mapping
from typing import Any

from serverless_assets.forecasting.accuracy_asset import TABLE as ACCURACY
from serverless_assets.forecasting.store_asset import TABLE as STORES
from serverless_assets.ingestion.catalog import TABLES
from serverless_assets.settings import SettingsError

DBT_RELATIONS = ("model", "seed", "snapshot")


def refuse_owned_name(table: str, manifest: Mapping[str, Any]) -> None:
    """Raise SettingsError if the forecast's table would replace another table.

    DuckDB takes names that differ in case for the same. manifest: of the dbt project.
    """
    owner = owners(manifest).get(table.lower())
    if owner:
        raise SettingsError(
            f"SERVERLESS_FORECAST_TABLE is {table!r}, which is the table of {owner}. Set it to a name that "
            "no model, seed, snapshot, source or other asset has, such as order_forecast."
        )


def owners(manifest: Mapping[str, Any]) -> Mapping[str, str]:
    """Who owns each table, by its name in lower case. Pure."""
    found: dict[str, str] = {}
    for node in manifest["nodes"].values():
        if node["resource_type"] in DBT_RELATIONS:
            owner = f"the {node['resource_type']} {node['name']} ({node['original_file_path']})"
            found |= {name.lower(): owner for name in (node["name"], node.get("alias")) if name}
    for source in manifest["sources"].values():
        found[source["identifier"].lower()] = f"the source {source['source_name']}.{source['name']}"
    found |= {table.name.lower(): f"the raw table {table.name}" for table in TABLES}
    return found | {name: f"the asset {name}" for name in (STORES, ACCURACY)}
