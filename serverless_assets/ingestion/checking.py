"""The checks of raw tables in Dagster: what they say of a table as it now is."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import Self

import dagster as dg

from serverless_assets.ingestion.catalog import RawTable
from serverless_assets.ingestion.checks import (
    EVENT_TIME,
    SCHEMA,
    VOLUME,
    Finding,
    Month,
    checks_of,
    described,
    event_times,
    freshness,
    months_of,
    months_query,
    row_count,
    schema,
    volume,
)
from serverless_assets.ingestion.source_observation import SourceObservation
from serverless_assets.warehouse import Warehouse, WarehouseError


def check_specs(tables: Iterable[RawTable]) -> list[dg.AssetCheckSpec]:
    """The checks beside each table."""
    return [
        dg.AssetCheckSpec(name, asset=table.name, description=described(table, kind))
        for table in tables
        for name, kind in checks_of(table).items()
    ]


@dataclass(frozen=True)
class CheckRunner:
    """The checks that a run asks for, at the time `now`, which is in UTC and does not say so.

    `first_month` is the first that runs over months load. What was asked of a table is kept.
    """

    context: dg.AssetExecutionContext
    warehouse: Warehouse
    first_month: date
    now: datetime
    _months: dict[str, list[Month]] = field(default_factory=dict)

    @classmethod
    def now_in(cls, context: dg.AssetExecutionContext, warehouse: Warehouse, first_month: date) -> Self:
        return cls(context, warehouse, first_month, datetime.now(UTC).replace(tzinfo=None))

    def source_observation(self, table: RawTable) -> SourceObservation:
        """What the source served when the table was last materialized."""
        event = self.context.instance.get_latest_materialization_event(dg.AssetKey(table.name))
        found = event.asset_materialization if event else None
        return SourceObservation.in_metadata(found.metadata) if found else SourceObservation()

    def of(self, table: RawTable, seen: SourceObservation) -> list[dg.AssetCheckResult]:
        """What the table's checks say: they warn, and never fail a run."""
        asked = {key.name for key in self.context.selected_asset_check_keys}
        kinds = {name: kind for name, kind in checks_of(table).items() if name in asked}
        try:
            return [_result(table, name, self._finding(table, kind, seen)) for name, kind in kinds.items()]
        except WarehouseError as error:
            could_not = Finding(False, f"The table could not be looked at. {error}")
            return [_result(table, name, could_not) for name in kinds]

    def without_loading(self, tables: Iterable[RawTable]) -> Iterator[dg.AssetCheckResult]:
        """What the checks say of tables that the run does not load: somebody asked for the checks alone."""
        asked = {key.asset_key.to_user_string() for key in self.context.selected_asset_check_keys}
        for table in tables:
            if table.name in asked:
                yield from self.of(table, self.source_observation(table))

    def months(self, table: RawTable) -> list[Month]:
        """The months of a fact as the warehouse has them."""
        if table.name not in self._months:
            query = months_query(table, self.warehouse.quoted_name(table.name), self.now)
            self._months[table.name] = list(months_of(self.warehouse.query(query).to_pylist()))
        return self._months[table.name]

    def _finding(self, table: RawTable, kind: str, seen: SourceObservation) -> Finding:
        if kind == SCHEMA:
            return schema(seen.change)
        if kind == EVENT_TIME:
            return event_times(self.months(table), self.first_month, self.now)
        if kind == VOLUME:
            found = row_count(self.warehouse.row_count(table.name), seen.row_loss)
            return volume(self.months(table)) if found.passed and table.event_time else found
        if table.event_time:
            newest = max((month.last for month in self.months(table) if month.last), default=None)
            return freshness(newest, self.now, "Newest row")
        return freshness(seen.confirmed_at, self.now, "Last confirmed by the source")


def _result(table: RawTable, name: str, found: Finding) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(
        passed=found.passed,
        asset_key=table.name,
        check_name=name,
        severity=dg.AssetCheckSeverity.WARN,
        description=found.words,
        metadata=dict(found.numbers),
    )
