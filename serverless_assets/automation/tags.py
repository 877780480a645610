"""The tags of the runs that are launched here."""

from collections.abc import Mapping
from datetime import date

from dagster._core.storage.tags import ASSET_PARTITION_RANGE_END_TAG, ASSET_PARTITION_RANGE_START_TAG

# The change at the source that a run loads, and in words why it was launched.
SOURCE_CHANGE, REASON = "serverless/source_change", "serverless/reason"


def month_tags(first: date, last: date) -> Mapping[str, str]:
    """Have one run load the months from `first` to `last`, both included."""
    return {
        ASSET_PARTITION_RANGE_START_TAG: f"{first:%Y-%m}-01",
        ASSET_PARTITION_RANGE_END_TAG: f"{last:%Y-%m}-01",
    }
