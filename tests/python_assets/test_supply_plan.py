"""The supply plan of the bundled shop, from frames to a frame."""

from datetime import date, timedelta

import pandas as pd

from serverless_assets.defs.supply_plan import COLUMNS, supply_plan

FORECAST = pd.DataFrame(
    [
        # Two dollars a day for 40 days, of which 30 count.
        {
            "location_id": "s1",
            "location_name": "Austin",
            "ds": date(2026, 1, 1) + timedelta(days=n),
            "yhat": 2.0,
        }
        for n in range(40)
    ]
)
SOLD = pd.DataFrame(
    [
        {"location_id": "s1", "product_id": "cup", "nr_items": 50, "revenue_usd": 100.0},
        {"location_id": "s1", "product_id": "jaffle", "nr_items": 7, "revenue_usd": 100.0},
        {"location_id": "closed", "product_id": "cup", "nr_items": 9, "revenue_usd": 0.0},
    ]
)
SUPPLIES = pd.DataFrame(
    [
        {"supply_id": "u1", "product_id": "cup", "supply_name": "lid", "supply_cost": 0.5},
        {"supply_id": "u2", "product_id": "cup", "supply_name": "napkin", "supply_cost": 0.1},
        {"supply_id": "u2", "product_id": "jaffle", "supply_name": "napkin", "supply_cost": 0.1},
    ]
).assign(is_perishable_supply=False)


def test_a_store_needs_what_it_used_for_each_dollar_for_the_dollars_of_30_days():
    plan = supply_plan(FORECAST, SOLD, SUPPLIES)
    assert list(plan.columns) == list(COLUMNS)
    # 60 dollars: 30 cups, and 4.2 jaffles, with a napkin each.
    needs = {row["supply_name"]: (row["quantity"], row["cost_usd"]) for row in plan.to_dict("records")}
    assert needs == {"lid": (30, 15.0), "napkin": (35, 3.42)}


def test_without_a_forecast_or_sales_the_plan_is_empty():
    for frames in ((FORECAST.head(0), SOLD, SUPPLIES), (FORECAST, SOLD.head(0), SUPPLIES)):
        plan = supply_plan(*frames)
        assert list(plan.columns) == list(COLUMNS) and plan.empty
