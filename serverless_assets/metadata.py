"""The metadata that every materialization carries, and that a run's summary is made of."""

from collections.abc import Mapping
from typing import Any, Literal

import dagster as dg

from serverless_assets.artifacts import StoredFile
from serverless_assets.warehouse import JobStats, Warehouse

Status = Literal["built", "reused", "failed", "skipped"]

STATUS, REASON, ROWS, BYTES, SECONDS = "status", "reason", "dagster/row_count", "bytes", "seconds"
PARTITION_ROWS = "dagster/partition_row_count"
REPORT = "report"
# A page that shows the report, of a store that has one, or in a browser on this machine.
REPORT_LINK = f"{REPORT}_link"
BUILT_BY = "built_by"
OPTIONAL = "optional"
# Why a cost leaves out the warehouse: its price is not known.
COST_UNKNOWN = "cost_unknown"
SPENT = BYTES_BILLED, SLOT_SECONDS, COST_USD = "bytes_billed", "slot_seconds", "cost_usd"


def outcome(
    status: Status,
    reason: str,
    *,
    rows: int | None = None,
    size: int | None = None,
    seconds: float | None = None,
) -> dict[str, Any]:
    """Metadata that says what became of an asset in this run, and why. `size` is in bytes."""
    measured = {ROWS: rows, BYTES: size, SECONDS: None if seconds is None else round(seconds, 3)}
    return {STATUS: status, REASON: reason, **{k: v for k, v in measured.items() if v is not None}}


def job_metadata(stats: JobStats, warehouse: Warehouse) -> dict[str, Any]:
    """Metadata that says what the warehouse did and what that costs; empty for one that keeps no account."""
    if not stats.jobs:
        return {}
    usd = warehouse.price(stats.bytes_billed, stats.slot_milliseconds)
    return {
        "warehouse_jobs": ", ".join(stats.jobs),
        "bytes_processed": stats.bytes_processed,
        BYTES_BILLED: stats.bytes_billed,
        SLOT_SECONDS: stats.slot_milliseconds / 1000,
        **cost(usd),
        **({COST_UNKNOWN: warehouse.unknown_price} if usd is None and warehouse.unknown_price else {}),
    }


def cost(*usd: float | None) -> dict[str, float]:
    """Metadata that says what work costs in US dollars, all of it together; empty if nothing is charged."""
    charged = [amount for amount in usd if amount is not None]
    # As a float also if it is 0: the UI plots floats over time.
    return {COST_USD: round(float(sum(charged)), 8)} if charged else {}


def with_links(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values as metadata, addresses among them as links."""
    return {
        name: dg.MetadataValue.url(value) if str(value).startswith("https://") else value
        for name, value in values.items()
    }


def file_metadata(name: str, file: StoredFile) -> dict[str, Any]:
    """Metadata that leads to a file: where it is, and the page that shows it, if there is one."""
    values: dict[str, Any] = {name: dg.MetadataValue.path(file.address)}
    if file.link:
        values[f"{name}_link"] = dg.MetadataValue.url(file.link)
    return values


def latest_materialization(instance: dg.DagsterInstance, key: dg.AssetKey) -> dg.AssetMaterialization | None:
    """Return the last materialization of an asset; None if there is none yet."""
    event = instance.get_latest_materialization_event(key)
    return event.asset_materialization if event else None


def not_built(
    key: dg.AssetKey, status: Literal["failed", "skipped"], reason: str, is_optional: bool = False
) -> dg.AssetObservation:
    """What to log for an asset that this run leaves as it was; without an optional one, it succeeds."""
    values = outcome(status, reason) | ({OPTIONAL: True} if is_optional else {})
    return dg.AssetObservation(key, metadata=values, description=reason)


def plain_values(metadata: Mapping[str, dg.MetadataValue]) -> dict[str, Any]:
    """The values of an event's metadata as plain Python."""
    return {name: value.value for name, value in metadata.items()}
