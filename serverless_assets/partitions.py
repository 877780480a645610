"""The months of assets as partitions in Dagster, and those that a run is for."""

from collections.abc import Mapping
from datetime import date

import dagster as dg

from serverless_assets.dagster_internals import ASSET_PARTITION_RANGE_END_TAG, ASSET_PARTITION_RANGE_START_TAG
from serverless_assets.months import Window


def partitions_by_month(first_month: date) -> dg.MonthlyPartitionsDefinition:
    """Return the partitions from `first_month` to the month that has begun."""
    return dg.MonthlyPartitionsDefinition(start_date=f"{first_month:%Y-%m-01}", end_offset=1)


def window_of_run(context: dg.AssetExecutionContext) -> Window | None:
    """Return the months that a run is for; None means all."""
    if context.has_partition_key_range:
        keys = context.partition_key_range
        return Window.of_months(date.fromisoformat(keys.start), date.fromisoformat(keys.end))
    if context.has_partition_key:
        month = date.fromisoformat(context.partition_key)
        return Window.of_months(month, month)
    return None


def month_tags(first: date, last: date) -> Mapping[str, str]:
    """Return the tags that have one run load the months from `first` to `last`, both included."""
    return {
        ASSET_PARTITION_RANGE_START_TAG: f"{first:%Y-%m}-01",
        ASSET_PARTITION_RANGE_END_TAG: f"{last:%Y-%m}-01",
    }


def months_of(job: dg.JobDefinition) -> dg.PartitionsDefinition | None:
    """Return the months of the assets of a job; None if none of them has any."""
    assets = map(job.asset_layer.get, job.asset_layer.selected_asset_keys)
    return next((asset.partitions_def for asset in assets if asset.partitions_def), None)
