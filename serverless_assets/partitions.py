"""The months of assets as partitions in Dagster, and those that a run is for."""

from datetime import date

import dagster as dg

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
