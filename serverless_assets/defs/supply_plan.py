"""What each store needs for the next 30 days."""

from typing import Any

import dagster as dg

DAYS = 30
COLUMNS = {
    "location_id": ("string", "The store."),
    "location_name": ("string", "The city that the store is in."),
    "supply_id": ("string", "The supply."),
    "supply_name": ("string", "What the supply is."),
    "is_perishable": ("boolean", "Whether the supply goes off."),
    "quantity": ("bigint", "Portions that the store needs, rounded up."),
    "cost_usd": ("double", "What they cost, in dollars."),
}


@dg.asset(
    io_manager_key="pandas",
    group_name="forecasting",
    kinds={"pandas"},
    description=f"What each store needs for the next {DAYS} days, by its forecast and what it sold lately.",
    metadata={
        # A project without the shop's tables goes without this asset.
        "optional": True,
        "dagster/column_schema": dg.TableSchema(
            [dg.TableColumn(name, type, description) for name, (type, description) in COLUMNS.items()]
        ),
    },
    ins={
        "store_forecast": dg.AssetIn(metadata={"columns": ["location_id", "location_name", "ds", "yhat"]}),
    },
)
# The frames are not annotated: to import pandas takes a second, which every command would wait for.
def supply_plan(store_forecast: Any, store_products: Any, stg_supplies: Any) -> Any:
    days = sorted(store_forecast["ds"].unique())[:DAYS]
    stores = (
        store_forecast[store_forecast["ds"].isin(days)]
        .groupby(["location_id", "location_name"], as_index=False)["yhat"]
        .sum()
    )
    # As many items for each dollar as in the last 90 days; a store that sold nothing then needs nothing.
    sold = store_products[store_products["revenue_usd"] > 0].merge(stores, on="location_id")
    sold["quantity"] = sold["nr_items"] * (sold["yhat"] / sold["revenue_usd"].astype(float)).clip(lower=0)
    needed = sold.merge(stg_supplies, on="product_id")
    needed["cost_usd"] = needed["quantity"] * needed["supply_cost"].astype(float)
    needed = needed.rename(columns={"is_perishable_supply": "is_perishable"})
    supply = ["location_id", "location_name", "supply_id", "supply_name", "is_perishable"]
    plan = needed.groupby(supply, as_index=False, dropna=False)[["quantity", "cost_usd"]].sum()
    # Rounded before it is rounded up, as a sum of floats may be above a whole number by a hair.
    plan["quantity"] = (-(-plan["quantity"].round(6) // 1)).astype("int64")
    return plan[list(COLUMNS)].round({"cost_usd": 2})
