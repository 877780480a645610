"""The table and files of a forecast never take the place of others."""

import re
from pathlib import Path
from typing import Any

import duckdb
import pytest

from serverless_assets.automation.plan import dry_run
from serverless_assets.definitions import build
from serverless_assets.environments import environment
from serverless_assets.errors import UserError
from serverless_assets.forecasting.component import refuse_choices, refuse_owned_tables, table_owners
from serverless_assets.forecasting.declaration import ForecastDeclaration
from serverless_assets.run_inputs import ChoiceError, CustomisedStyle, RunForecast, RunInputs
from serverless_assets.settings import Settings, SettingsError
from serverless_assets.warehouse.duckdb import DuckDBWarehouse
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
        ("forecast_accuracy_by_store", "the asset forecast_accuracy_by_store"),
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


def test_the_default_has_no_owner_in_the_project_and_nothing_is_planned_with_an_owned_name(green):
    manifest = green.parts.project.read_manifest()
    assert {"orders", "daily_revenue", "stg_orders", "raw_items"} <= set(table_owners(manifest))
    variables = {**green.variables, "SERVERLESS_HOME": str(green.home)}
    settings = Settings.from_environ({**variables, "SERVERLESS_FORECAST_TABLE": "Daily_Revenue"})
    with pytest.raises(SettingsError, match="the table of the model daily_revenue"):
        build(settings)
    with pytest.raises(SettingsError, match="the table of the model daily_revenue"):
        dry_run(environment(settings), RunInputs().checked())


GUESTS = ForecastDeclaration(name="guests", title="Guests", relation="days", date="day", value="guests")


@pytest.fixture
def warehouse(tmp_path: Path) -> DuckDBWarehouse:
    return DuckDBWarehouse(tmp_path / "warehouse.duckdb", "dwh")


def choose(warehouse: DuckDBWarehouse, planned: list[str], **names: str) -> None:
    inputs = RunInputs(forecast=RunForecast(style=CustomisedStyle(**names)))
    refuse_choices([SHOP, GUESTS], planned, inputs, MANIFEST, ["supply_plan"], warehouse)


@pytest.mark.parametrize(
    ("table", "owner"),
    [
        ("Orders", "the model orders"),
        ("raw_orders", "the source raw.orders"),
        ("store_forecast", "the asset store_forecast"),
        ("guests", "the asset guests"),
        ("supply_plan", "the asset supply_plan"),
    ],
)
def test_a_run_cannot_choose_a_table_that_something_else_owns(warehouse, table, owner):
    refusal = f"forecast_table is {table!r}, which is the table of {owner}"
    with pytest.raises(ChoiceError, match=re.escape(refusal)):
        choose(warehouse, ["order_forecast"], forecast_table=table)


def test_a_run_cannot_choose_a_table_that_the_forecast_has_not_made(warehouse):
    with duckdb.connect(str(warehouse.path)) as connection:
        connection.execute("create schema dwh; create table dwh.budget as select 1 as one")
    with pytest.raises(UserError, match="'Budget', which is there already and was not made by the forecast"):
        choose(warehouse, ["order_forecast"], forecast_table="Budget")
    choose(warehouse, ["order_forecast"], forecast_table="october")
    choose(warehouse, ["raw_orders"], forecast_table="Budget")


@pytest.mark.parametrize("name", [{"html_report": "mine.html"}, {"forecast_table": "mine"}])
def test_one_name_for_several_forecasts_is_refused_before_the_run(warehouse, name):
    [(field, value)] = name.items()
    with pytest.raises(UserError, match=f"{field} is {value!r}, and this run makes 2 forecasts"):
        choose(warehouse, ["guests_report", "forecast_report"], **name)
    choose(warehouse, ["guests_report"], **name)
    choose(warehouse, ["guests_report", "forecast_report"])


@pytest.mark.parametrize("name", [{"html_report": "forecast.html"}, {"forecast_file": "forecast.parquet"}])
def test_a_file_of_another_forecast_is_not_replaced(warehouse, name):
    [(field, value)] = name.items()
    with pytest.raises(UserError, match=f"{field} is '{value}', which is that of the forecast forecast."):
        choose(warehouse, ["guests_report"], **name)
    choose(warehouse, ["forecast_report"], **name)
