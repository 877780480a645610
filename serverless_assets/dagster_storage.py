"""What is used of Dagster's storages outside of their public API; tests/test_dagster_internals.py checks it.

Apart from dagster_internals.py, as they bring SQLAlchemy and Alembic, which take a quarter of a second to
import: commands that look into no history, such as `plan`, need none of this.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import dagster as dg
from alembic.config import Config
from alembic.script import ScriptDirectory

# event_log.py writes batches of events with the first ones: batches in Dagster's own storage would replace
# them. The SQLite storages create their engines in the modules after them: an option to keep engines would
# replace those.
from dagster._core.storage.asset_check_execution_record import (
    AssetCheckExecutionRecordStatus as AssetCheckStatus,
)
from dagster._core.storage.event_log.schema import SqlEventLogStorageMetadata
from dagster._core.storage.event_log.sql_event_log import SqlEventLogStorage
from dagster._core.storage.event_log.sqlite import SqliteEventLogStorage, sqlite_event_log
from dagster._core.storage.runs.sqlite import sqlite_run_storage
from dagster._core.storage.schedules.sqlite import sqlite_schedule_storage
from dagster._core.storage.sql import ALEMBIC_SCRIPTS_LOCATION
from sqlalchemy import Connection, Engine, Pool, create_engine

__all__ = [
    "AssetCheckStatus",
    "EventRows",
    "SqlEventLogStorage",
    "SqlEventLogStorageMetadata",
    "SqliteEventLogStorage",
    "adapt_storages",
]


class EventRows(SqlEventLogStorage):
    """A storage of events with access to the rows that it writes. A public way to store a batch would replace
    it."""

    def row_of(self, event: dg.EventLogEntry) -> dict[str, Any]:
        """Return the row of an event."""
        return self._event_to_row(event)

    def store_tags(self, connection: Connection, events: Sequence[dg.EventLogEntry], ids: list[int]) -> None:
        """Store the tags of events of assets, of which each has its id."""
        self._store_asset_event_tags(connection, events, ids)


def adapt_storages() -> None:
    """Have Dagster's SQLite storages in this process use one engine for each database, and read the scripts
    of their migrations once.

    By themselves they create an engine for each access, a thousand in a run, and SQLAlchemy compiles a
    statement once for each engine: 3 of the 11 s of cpu of a run that reuses everything. And they read all
    90 scripts for each database, to compare its revision with the last one.
    """
    for module in (sqlite_event_log, sqlite_run_storage, sqlite_schedule_storage):
        vars(module)["create_engine"] = _kept_engine
    ScriptDirectory.from_config = _scripts  # type: ignore[method-assign]


def _kept_engine(url: str, *, poolclass: type[Pool], connect_args: dict[str, Any] | None = None) -> Engine:
    # mypy checks that objects of the class can be hashed, and it is the class that is.
    return _engine(url, poolclass, tuple((connect_args or {}).items()))  # type: ignore[arg-type]


# There are databases of the index, the runs and the schedules, and one for the events of each run.
@lru_cache(maxsize=16)
def _engine(url: str, poolclass: type[Pool], connect_args: tuple[tuple[str, Any], ...]) -> Engine:
    return create_engine(url, poolclass=poolclass, connect_args=dict(connect_args))


_read_scripts = ScriptDirectory.from_config
_dagsters_scripts: list[ScriptDirectory] = []


def _scripts(config: Config) -> ScriptDirectory:
    if config.get_main_option("script_location") != ALEMBIC_SCRIPTS_LOCATION:
        return _read_scripts(config)
    # Each storage has its own config, and all have the same scripts.
    if not _dagsters_scripts:
        _dagsters_scripts.append(_read_scripts(config))
    return _dagsters_scripts[0]
