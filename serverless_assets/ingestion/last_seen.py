"""What the source was last seen to serve, and when: carried in the metadata of a table's materializations."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import dagster as dg

from serverless_assets.ingestion.checks import Columns, schema_change

COLUMNS, CHANGE, CONFIRMED = "source_schema", "source_schema_change", "source_confirmed_at"


@dataclass(frozen=True)
class LastSeen:
    """Columns and types of the last file, None if nobody knows; what was then new of them, empty if nothing;
    and when the source last said that the table is as it has it, in UTC."""

    columns: Columns | None = None
    change: str = ""
    confirmed_at: datetime | None = None

    @classmethod
    def in_metadata(cls, found: Mapping[str, dg.MetadataValue]) -> "LastSeen":
        """What a materialization tells; nothing if it is not one of these."""
        columns, change, confirmed = (found.get(name) for name in (COLUMNS, CHANGE, CONFIRMED))
        return cls(
            {column.name: column.type for column in columns.value.columns}
            if isinstance(columns, dg.TableSchemaMetadataValue)
            else None,
            str(change.value) if change else "",
            datetime.fromtimestamp(float(confirmed.value), UTC).replace(tzinfo=None)
            if isinstance(confirmed, dg.TimestampMetadataValue)
            else None,
        )

    def seen(self, served: Columns | None, now: datetime) -> "LastSeen":
        """What there is to say after the source answered; `served` is None if there was nothing new."""
        if served is None:
            return replace(self, confirmed_at=now)
        return LastSeen(served, schema_change(self.columns, served), now)

    def as_metadata(self) -> dict[str, Any]:
        told: dict[str, Any] = {}
        if self.columns is not None:
            told[COLUMNS] = dg.TableSchema([dg.TableColumn(*column) for column in self.columns.items()])
        if self.change:
            told[CHANGE] = self.change
        if self.confirmed_at is not None:
            told[CONFIRMED] = dg.MetadataValue.timestamp(self.confirmed_at.replace(tzinfo=UTC))
        return told
