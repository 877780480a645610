"""The forecast's table never takes the place of another one."""

from typing import Any

import pytest

from serverless_assets.definitions import build
from serverless_assets.forecasting.assets import refuse_owned_tables, table_owners
from serverless_assets.settings import Settings, SettingsError
from tests.conftest import SHOP


def node(kind: str, name: str, alias: str, path: str) -> dict[str, Any]:
    return {"resource_type": kind, "name": name, "alias": alias, "original_file_path": path}


MANIFEST = {
    "nodes": {
        "model.shop.orders": node("model", "orders", "orders", "models/marts/orders.sql"),
        "model.shop.dim.v2": node("model", "dim", "dim_v2", "models/dim.sql"),
        "seed.shop.Rates": node("seed", "Rates", "Rates", "seeds/Rates.csv"),
        "snapshot.shop.was": node("snapshot", "was", "orders_was", "snapshots/was.sql"),
        "test.shop.unique": node("test", "unique_orders", "unique_orders", "models/orders.yml"),
    },
    "sources": {
        "source.shop.crm.people": {"source_name": "crm", "name": "people", "identifier": "crm_people"},
        "source.shop.raw.orders": {"source_name": "raw", "name": "orders", "identifier": "raw_orders"},
    },
}


@pytest.mark.parametrize(
    ("table", "owner"),
    [
        ("orders", "the model orders (models/marts/orders.sql)"),
        ("ORDERS", "the model orders"),
        ("dim_v2", "the model dim"),
        ("rates", "the seed Rates"),
        ("Orders_Was", "the snapshot was"),
        ("CRM_people", "the source crm.people"),
        ("raw_orders", "the source raw.orders"),
        ("Store_Forecast", "the asset store_forecast"),
        ("forecast_accuracy", "the asset forecast_accuracy"),
    ],
)
def test_a_name_that_something_else_owns_is_refused_with_its_owner(table, owner):
    with pytest.raises(SettingsError) as raised:
        refuse_owned_tables([SHOP.model_copy(update={"table": table})], MANIFEST)
    assert str(raised.value).startswith(
        f"SERVERLESS_FORECAST_TABLE is {table!r}, which is the table of {owner}"
    )


@pytest.mark.parametrize("table", ["order_forecast", "unique_orders", "orders_forecast"])
def test_any_other_name_is_taken(table):
    refuse_owned_tables([SHOP.model_copy(update={"table": table})], MANIFEST)


def test_the_default_has_no_owner_in_the_project_and_the_definitions_do_not_load_with_an_owned_name(green):
    manifest = green.parts.project.read_manifest()
    assert {"orders", "daily_revenue", "stg_orders", "raw_items"} <= set(table_owners(manifest))
    variables = {**green.variables, "SERVERLESS_HOME": str(green.home)}
    settings = Settings.from_environ({**variables, "SERVERLESS_FORECAST_TABLE": "Daily_Revenue"})
    with pytest.raises(SettingsError, match="the table of the model daily_revenue"):
        build(settings)
