"""The Dagster checks of raw tables: enough rows, plausible times, recent, the same columns.

A file that breaks the contract was refused before it was loaded. What differs from an expectation may be
wrong or just unusual, such as a sale or a holiday: it warns, and stops nothing.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime
from typing import Any

import dagster as dg

from serverless_assets.asset_keys import asset_key, asset_name
from serverless_assets.ingestion import check_rules as rules
from serverless_assets.ingestion.raw_table import RawTable
from serverless_assets.metadata import latest_materialization
from serverless_assets.warehouse import Warehouse, WarehouseError

# Metadata keys of what the source served.
COLUMNS, CHANGE, CONFIRMED = "source_schema", "source_schema_change", "source_confirmed_at"
ROW_LOSS, NOT_LOADED = "row_loss", "columns_not_loaded"


def check_specs(tables: Iterable[RawTable]) -> list[dg.AssetCheckSpec]:
    """Return the checks beside each table, each named for the table and the kind."""
    return [
        dg.AssetCheckSpec(f"{table.name}_{kind}", asset=asset_key(table.name), description=description)
        for table in tables
        for kind, description in rules.checks_of(table).items()
    ]


@dataclass(frozen=True)
class SourceObservation:
    """What the source served for a table, as kept in the metadata of the table's materializations.

    columns: columns and types of the last file; None if unknown.
    change: what was new of them, empty if nothing.
    confirmed_at: when the source last confirmed that the table is as it has it, in UTC without a zone.
    row_loss: the warning about rows that the last load removed, empty if there is none.
    """

    columns: rules.Columns | None = None
    change: str = ""
    confirmed_at: datetime | None = None
    row_loss: str = ""

    @classmethod
    def in_metadata(cls, metadata: Mapping[str, dg.MetadataValue]) -> "SourceObservation":
        """Return the observation in a materialization's metadata; an empty one if it has none."""
        columns, change, confirmed, loss = map(metadata.get, (COLUMNS, CHANGE, CONFIRMED, ROW_LOSS))
        return cls(
            {column.name: column.type for column in columns.value.columns}
            if isinstance(columns, dg.TableSchemaMetadataValue)
            else None,
            str(change.value) if change else "",
            datetime.fromtimestamp(float(confirmed.value), UTC).replace(tzinfo=None)
            if isinstance(confirmed, dg.TimestampMetadataValue)
            else None,
            str(loss.value) if loss else "",
        )

    def updated(
        self, served: rules.Columns | None, now: datetime, row_loss: str | None = None
    ) -> "SourceObservation":
        """Return the observation after a response; `served` is None if the table did not change.

        row_loss: of the load that followed; None if there was none.
        """
        loss = self.row_loss if row_loss is None else row_loss
        if served is None:
            return replace(self, confirmed_at=now, row_loss=loss)
        return SourceObservation(served, rules.schema_change(self.columns, served), now, loss)

    def not_loaded(self, table: RawTable) -> str:
        """Return the columns of the last file that the catalogue does not have, with their types."""
        columns = self.columns or {}
        return ", ".join(f"{name} ({kind})" for name, kind in columns.items() if name not in table.columns)

    def as_metadata(self, table: RawTable) -> dict[str, Any]:
        metadata: dict[str, Any] = {CHANGE: self.change, ROW_LOSS: self.row_loss}
        metadata[NOT_LOADED] = self.not_loaded(table)
        if self.columns is not None:
            metadata[COLUMNS] = dg.TableSchema([dg.TableColumn(*column) for column in self.columns.items()])
        if self.confirmed_at is not None:
            metadata[CONFIRMED] = dg.MetadataValue.timestamp(self.confirmed_at.replace(tzinfo=UTC))
        return {name: value for name, value in metadata.items() if value != ""}


@dataclass(frozen=True)
class CheckRunner:
    """Runs the checks that a run selected, at the time `now`, in UTC without a zone.

    `first_month` is the first that runs over months load. The months of a table are asked for once.
    """

    context: dg.AssetExecutionContext
    warehouse: Warehouse
    first_month: date
    now: datetime = field(default_factory=lambda: datetime.now(UTC).replace(tzinfo=None))
    _months: dict[str, list[rules.Month]] = field(default_factory=dict)

    def last_observation(self, table: RawTable) -> SourceObservation:
        """Return what the source served when the table was last materialized."""
        materialization = latest_materialization(self.context.instance, asset_key(table.name))
        return SourceObservation.in_metadata(materialization.metadata if materialization else {})

    def results(self, table: RawTable, observation: SourceObservation) -> list[dg.AssetCheckResult]:
        """Return the results of the table's selected checks: they warn, and never fail a run."""
        selected = {key.name for key in self.context.selected_asset_check_keys}
        kinds = {f"{table.name}_{kind}": kind for kind in rules.checks_of(table)}
        kinds = {name: kind for name, kind in kinds.items() if name in selected}
        try:
            outcomes = {name: self._run(table, kind, observation) for name, kind in kinds.items()}
        except WarehouseError as error:
            outcomes = dict.fromkeys(
                kinds, rules.CheckOutcome(False, f"The table could not be looked at. {error}")
            )
        return [
            dg.AssetCheckResult(
                passed=outcome.passed,
                asset_key=asset_key(table.name),
                check_name=name,
                severity=dg.AssetCheckSeverity.WARN,
                description=outcome.text,
                metadata=dict(outcome.numbers),
            )
            for name, outcome in outcomes.items()
        ]

    def without_loading(self, tables: Iterable[RawTable]) -> Iterator[dg.AssetCheckResult]:
        """Run the selected checks of tables that the run does not load."""
        selected = {asset_name(key.asset_key) for key in self.context.selected_asset_check_keys}
        for table in tables:
            if table.name in selected:
                yield from self.results(table, self.last_observation(table))

    def months(self, table: RawTable) -> list[rules.Month]:
        """Return the months of a fact: as its state has them if that is sure, else by a query."""
        if table.name not in self._months:
            self._months[table.name] = rules.months_of(table, self.warehouse, self.now)
        return self._months[table.name]

    def _run(self, table: RawTable, kind: str, observation: SourceObservation) -> rules.CheckOutcome:
        if kind == rules.SCHEMA:
            unchanged = "The source serves the columns and types that it served before."
            return rules.CheckOutcome(not observation.change, observation.change or unchanged)
        if kind == rules.EVENT_TIME:
            return rules.event_times(self.months(table), self.first_month, self.now)
        if kind == rules.VOLUME:
            outcome = rules.row_count(self.warehouse.row_count(table.name), observation.row_loss)
            return rules.volume(self.months(table)) if outcome.passed and table.event_time else outcome
        if table.event_time:
            newest = max((month.last for month in self.months(table) if month.last), default=None)
            return rules.freshness(newest, self.now, "Newest row", table.fresh)
        return rules.freshness(
            observation.confirmed_at, self.now, "Last confirmed by the source", table.fresh
        )
