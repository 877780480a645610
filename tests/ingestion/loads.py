"""The raw tables' assets on a warehouse of their own, run against a small shop."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path

import dagster as dg
import duckdb

from serverless_assets import metadata
from serverless_assets.ingestion.assets import ingestion_assets
from serverless_assets.ingestion.raw_table import RawTable
from serverless_assets.ingestion.source import Source
from serverless_assets.run_inputs import RunInputs
from serverless_assets.warehouse.duckdb import DuckDBWarehouse
from tests.ingestion.shop import Shop, order
from tests.raw_tables import TABLES

NAMES = [table.name for table in TABLES]
FACTS = ["raw_orders", "raw_items"]
NOT_DOWNLOADED = "unchanged at the source: not downloaded"
NOT_LOADED = "unchanged content: not loaded"
FIRST = "loaded from the source: first load"
DATES = {f"2026-{month}-01" for month in ("09", "10", "11")}


@dataclass(frozen=True)
class Target:
    """What ingestion uses of the publisher of a run that has its turn."""

    warehouse: DuckDBWarehouse

    @property
    def home(self) -> Path:
        return self.warehouse.path.parent


@dataclass
class Ingestion:
    """The raw tables' assets on a warehouse of their own, and what each run said of them."""

    warehouse: DuckDBWarehouse
    instance: dg.DagsterInstance
    source: Source
    tables: Sequence[RawTable] = TABLES

    def run(
        self, *tables: str, months: tuple[str, str] | None = None, inputs: RunInputs | None = None
    ) -> dict[str, dict[str, object]]:
        """Load the tables, or all; the metadata of each that is in the warehouse afterwards."""
        first, last = months or ("", "")
        tags = {"dagster/asset_partition_range_start": first, "dagster/asset_partition_range_end": last}
        self.result = dg.materialize(
            [ingestion_assets(self.tables, date(2026, 1, 1), "dwh")],
            selection=[dg.AssetKey(name) for name in tables or NAMES],
            resources={
                "run_inputs": inputs or RunInputs(),
                "source": self.source,
                "publisher": Target(self.warehouse),
            },
            instance=self.instance,
            tags=tags if months else {},
            raise_on_error=False,
        )
        found = [event.materialization for event in self.result.get_asset_materialization_events()]
        return {one.asset_key.to_user_string(): metadata.plain_values(one.metadata) for one in found}

    def shown(self) -> list[tuple[str, str]]:
        """The months that the last run recorded one by one, by table."""
        found = [event.materialization for event in self.result.get_asset_materialization_events()]
        return sorted((str(m.asset_key.path[-1]), m.partition) for m in found if m.partition)

    def partitions(self, table: str) -> dict[str, dict[str, object]]:
        """The metadata of the months that the last run recorded of a table."""
        found = [event.materialization for event in self.result.get_asset_materialization_events()]
        months = [one for one in found if one.partition and one.asset_key.path[-1] == table]
        return {str(one.partition): metadata.plain_values(one.metadata) for one in months}

    def failure(self) -> str:
        """Why the last run failed, in the words of its step."""
        (failed,) = self.result.get_failed_step_keys()
        (event,) = [e for e in self.result.events_for_node("ingestion") if e.is_step_failure]
        assert failed == "ingestion"
        return str(event.step_failure_data.user_failure_data.description)

    def checks(self) -> dict[str, dg.AssetCheckEvaluation]:
        return {one.check_name: one for one in self.result.get_asset_check_evaluations()}

    def by_hand(self, statement: str) -> None:
        with duckdb.connect(str(self.warehouse.path)) as connection:
            connection.execute(statement)

    def rows(self, table: str) -> list[dict[str, object]]:
        return self.warehouse.query(f"from {self.warehouse.quoted_name(table)} order by id").to_pylist()


def reasons(found: dict[str, dict[str, object]]) -> dict[str, object]:
    return {name: one["reason"] for name, one in found.items()}


def correct_october(source: Shop) -> None:
    source.rows["raw_orders"][1] = order("o10", datetime(2026, 10, 14), cents=999)
