"""The checks of raw tables in Dagster: what they say of a table as it now is."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

import dagster as dg

from serverless_assets.ingestion.checks import (
    SCHEMA,
    VOLUME,
    Finding,
    Month,
    checks_of,
    described,
    freshness,
    months_of,
    months_query,
    schema,
    volume,
)
from serverless_assets.ingestion.last_seen import LastSeen
from serverless_assets.ingestion.tables import Table
from serverless_assets.warehouse import Warehouse, WarehouseError


def check_specs(tables: Iterable[Table]) -> list[dg.AssetCheckSpec]:
    """The checks beside each table."""
    return [
        dg.AssetCheckSpec(name, asset=table.name, description=described(table, kind))
        for table in tables
        for name, kind in checks_of(table).items()
    ]


@dataclass(frozen=True)
class Checking:
    """The checks that a run asks for, at the time `now`, which is in UTC and does not say so."""

    context: dg.AssetExecutionContext
    warehouse: Warehouse
    now: datetime

    @classmethod
    def now_in(cls, context: dg.AssetExecutionContext, warehouse: Warehouse) -> "Checking":
        return cls(context, warehouse, datetime.now(UTC).replace(tzinfo=None))

    def last_seen(self, table: Table) -> LastSeen:
        """What the source served when the table was last materialized."""
        event = self.context.instance.get_latest_materialization_event(dg.AssetKey(table.name))
        found = event.asset_materialization if event else None
        return LastSeen.in_metadata(found.metadata) if found else LastSeen()

    def of(self, table: Table, seen: LastSeen) -> list[dg.AssetCheckResult]:
        """What the table's checks say: they warn, and never fail a run."""
        asked = {key.name for key in self.context.selected_asset_check_keys}
        kinds = {name: kind for name, kind in checks_of(table).items() if name in asked}
        try:
            months = self._months(table) if {*kinds.values()} - {SCHEMA} else []
        except WarehouseError as error:
            could_not = Finding(False, f"The table could not be looked at. {error}")
            return [_result(table, name, could_not) for name in kinds]
        return [
            _result(table, name, self._finding(table, kind, seen, months)) for name, kind in kinds.items()
        ]

    def without_loading(self, tables: Iterable[Table]) -> Iterator[dg.AssetCheckResult]:
        """What the checks say of tables that the run does not load: somebody asked for the checks alone."""
        asked = {key.asset_key.to_user_string() for key in self.context.selected_asset_check_keys}
        for table in tables:
            if table.name in asked:
                yield from self.of(table, self.last_seen(table))

    def _months(self, table: Table) -> list[Month]:
        if not table.event_time:
            return []
        answer = self.warehouse.query(months_query(table, self.warehouse.relation(table.name)))
        return list(months_of(answer.to_pylist()))

    def _finding(self, table: Table, kind: str, seen: LastSeen, months: list[Month]) -> Finding:
        if kind == VOLUME:
            return volume(months)
        if kind == SCHEMA:
            return schema(seen.change)
        if table.event_time:
            newest = max((month.last for month in months), default=None)
            return freshness(newest, self.now, "Newest row")
        return freshness(seen.confirmed_at, self.now, "Last confirmed by the source")


def _result(table: Table, name: str, found: Finding) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(
        passed=found.passed,
        asset_key=table.name,
        check_name=name,
        severity=dg.AssetCheckSeverity.WARN,
        description=found.words,
        metadata=dict(found.numbers),
    )
