"""What the source was last seen to serve, and when: carried in the metadata of a table's materializations."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import dagster as dg

from serverless_assets.ingestion.catalog import RawTable
from serverless_assets.ingestion.checks import Columns, schema_change

COLUMNS, CHANGE, CONFIRMED = "source_schema", "source_schema_change", "source_confirmed_at"
ROW_LOSS, NOT_LOADED = "row_loss", "columns_not_loaded"


@dataclass(frozen=True)
class SourceObservation:
    """Columns and types of the last file, None if nobody knows; what was then new of them, empty if nothing;
    when the source last said that the table is as it has it, in UTC; and what to warn of about the rows that
    the last load removed, empty if nothing."""

    columns: Columns | None = None
    change: str = ""
    confirmed_at: datetime | None = None
    row_loss: str = ""

    @classmethod
    def in_metadata(cls, found: Mapping[str, dg.MetadataValue]) -> "SourceObservation":
        """What a materialization tells; nothing if it is not one of these."""
        columns, change, confirmed, loss = map(found.get, (COLUMNS, CHANGE, CONFIRMED, ROW_LOSS))
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

    def seen(self, served: Columns | None, now: datetime, row_loss: str | None = None) -> "SourceObservation":
        """What there is to say after the source answered; `served` is None if there was nothing new.

        row_loss: of the load that followed; None if there was none.
        """
        loss = self.row_loss if row_loss is None else row_loss
        if served is None:
            return replace(self, confirmed_at=now, row_loss=loss)
        return SourceObservation(served, schema_change(self.columns, served), now, loss)

    def not_loaded(self, table: RawTable) -> str:
        """The columns of the last file that the catalogue does not have, with their types."""
        beyond = {name: kind for name, kind in (self.columns or {}).items() if name not in table.columns}
        return ", ".join(f"{name} ({kind})" for name, kind in beyond.items())

    def as_metadata(self) -> dict[str, Any]:
        told: dict[str, Any] = {}
        if self.columns is not None:
            told[COLUMNS] = dg.TableSchema([dg.TableColumn(*column) for column in self.columns.items()])
        if self.change:
            told[CHANGE] = self.change
        if self.row_loss:
            told[ROW_LOSS] = self.row_loss
        if self.confirmed_at is not None:
            told[CONFIRMED] = dg.MetadataValue.timestamp(self.confirmed_at.replace(tzinfo=UTC))
        return told
