"""What is resumed: the assets that earlier runs did not finish, in the order of a whole run."""

import pytest

from serverless_assets.asset_keys import asset_name
from serverless_assets.cli.resume import assets_to_resume
from serverless_assets.publishing.outcome import PendingAssets
from serverless_assets.settings import Settings


@pytest.mark.parametrize(
    ("pending", "in_order"),
    [
        ({"supply_plan", "forecast_report"}, set()),
        # The forecast waits for the models, whichever of them is not finished.
        ({"customers", "order_forecast"}, {"daily_revenue"}),
        ({"customers", "forecast_report"}, {"daily_revenue", "order_forecast", "supply_plan"}),
        ({"raw_customers", "sum_revenue_per_city"}, {"orders", "stg_orders", "raw_orders"}),
        ({"stg_orders", "orders", "customers"}, set()),
    ],
)
def test_a_step_waits_for_the_unfinished_steps_that_it_waits_for_in_a_whole_run(
    green, tmp_path, pending, in_order
):
    PendingAssets(tmp_path).replace(pending)
    job = green.definitions.resolve_job_def("serverless_pipeline")
    names = {*map(asset_name, assets_to_resume(Settings(home=tmp_path), job))}
    assert pending | in_order <= names
    assert in_order or names == pending
