"""What is used of Dagster outside of its public API; tests/test_dagster_internals.py checks it.

Each import says which public API would replace it. Dagster is pinned to a patch release in pyproject.toml, so
an upgrade, not a run, is when one of them may be gone.
"""

# The tags are documented as strings; constants in `dagster` would replace these.
from dagster._core.definitions.data_version import DATA_VERSION_TAG
from dagster._core.storage.event_log.sqlite import SqliteEventLogStorage
from dagster._core.storage.tags import (
    ASSET_PARTITION_RANGE_END_TAG,
    ASSET_PARTITION_RANGE_START_TAG,
    ROOT_RUN_ID_TAG,
    WILL_RETRY_TAG,
)

# The type of an event's `error`: an export from `dagster` would replace it.
from dagster._utils.error import SerializableErrorInfo

__all__ = [
    "ASSET_PARTITION_RANGE_END_TAG",
    "ASSET_PARTITION_RANGE_START_TAG",
    "DATA_VERSION_TAG",
    "ROOT_RUN_ID_TAG",
    "WILL_RETRY_TAG",
    "SerializableErrorInfo",
    "SqliteEventLogStorage",
]
