"""The raw tables as assets: one step, so that all of them download at the same time."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import dagster as dg

from serverless_assets import metadata
from serverless_assets.failures import in_words
from serverless_assets.ingestion.download import TableSource
from serverless_assets.ingestion.prepare import Failed, Prepared, prepare
from serverless_assets.ingestion.source import HttpSource, Source
from serverless_assets.ingestion.tables import TABLES, Table
from serverless_assets.ingestion.window import Window
from serverless_assets.publishing.release import Release
from serverless_assets.run_inputs import IngestionChoice, RunInputs
from serverless_assets.warehouse import Warehouse, WarehouseError, Work

GROUP = "ingestion"


def ingestion_assets(first_month: date, tables: Sequence[Table] = TABLES) -> dg.AssetsDefinition:
    """An asset for each table of the catalogue; facts are partitioned by month from `first_month` on."""
    # The month that has begun is a partition too.
    months = dg.MonthlyPartitionsDefinition(start_date=f"{first_month:%Y-%m-01}", end_offset=1)

    @dg.multi_asset(
        name=GROUP,
        specs=[_spec(table, months) for table in tables],
        can_subset=True,
        # A range of months is one run: one download and one statement per table.
        backfill_policy=dg.BackfillPolicy.single_run(),
    )
    def ingestion(
        context: dg.AssetExecutionContext,
        run_inputs: RunInputs,
        source: dg.ResourceParam[Source],
        release: dg.ResourceParam[Release],
    ) -> Iterator[dg.MaterializeResult]:
        choice = run_inputs.choices().ingestion
        selected = [table for table in tables if dg.AssetKey(table.name) in context.selected_asset_keys]
        if choice is None:
            with in_words():
                yield from _reuse(context, selected, release.warehouse)
            return
        window = _window(context)
        failures = []
        with TemporaryDirectory(prefix="ingestion-") as scratch, _opened(source, choice) as opened:
            for prepared in prepare(selected, opened, window, Path(scratch), context.log.info):
                result = _load(release.warehouse, prepared, window)
                if isinstance(result, Failed):
                    failures.append(result)
                    context.log_event(
                        metadata.not_built(dg.AssetKey(result.table.name), "failed", result.reason)
                    )
                    continue
                _record_months(context, result.prepared, window, months)
                yield _materialized(release.warehouse, result)
        if failures:
            raise _failure(failures)

    return ingestion


def _spec(table: Table, months: dg.PartitionsDefinition) -> dg.AssetSpec:
    return dg.AssetSpec(
        table.name,
        description=table.description,
        group_name=GROUP,
        kinds={"parquet"},
        partitions_def=months if table.event_time else None,
    )


def _opened(source: Source, choice: IngestionChoice) -> AbstractContextManager[TableSource]:
    return HttpSource(choice.dataset_url).open() if choice.dataset_url else source.open()


def _window(context: dg.AssetExecutionContext) -> Window | None:
    """The months that the run asks for; None means the whole history that the source has."""
    if not context.has_partition_key_range and not context.has_partition_key:
        return None
    keys = context.partition_key_range if context.has_partition_key_range else None
    first = keys.start if keys else context.partition_key
    last = keys.end if keys else context.partition_key
    return Window.of_months(date.fromisoformat(first), date.fromisoformat(last))


@dataclass(frozen=True)
class Loaded:
    """A table that is in the warehouse, and what that took."""

    prepared: Prepared
    work: Work


def _load(warehouse: Warehouse, prepared: Prepared | Failed, window: Window | None) -> Loaded | Failed:
    if isinstance(prepared, Failed):
        return prepared
    table = prepared.table
    try:
        if window and table.event_time:
            work = warehouse.replace_between(table.shape, prepared.path, window.start, window.end)
        else:
            work = warehouse.replace(table.shape, prepared.path, {"content": prepared.content.hash})
    except WarehouseError as error:
        return Failed(table, str(error))
    return Loaded(prepared, work)


def _record_months(
    context: dg.AssetExecutionContext,
    prepared: Prepared,
    window: Window | None,
    months: dg.TimeWindowPartitionsDefinition,
) -> None:
    """Show every month of a whole history as materialized; a run over partitions does so by itself."""
    if window is not None:
        return
    key = dg.AssetKey(prepared.table.name)
    known = set(months.get_partition_keys())
    for month, part in prepared.content.months.items():
        if month.isoformat() in known:
            described = metadata.outcome("built", "loaded with the whole history", rows=part.rows)
            tags = {"dagster/data_version": part.hash}
            context.log_event(
                dg.AssetMaterialization(key, partition=month.isoformat(), metadata=described, tags=tags)
            )


def _materialized(warehouse: Warehouse, loaded: Loaded) -> dg.MaterializeResult:
    table, content, download = loaded.prepared.table, loaded.prepared.content, loaded.prepared.download
    return dg.MaterializeResult(
        asset_key=table.name,
        data_version=dg.DataVersion(content.hash),
        metadata={
            **metadata.outcome(
                "built",
                "loaded from the source",
                rows=content.rows,
                size=download.bytes,
                seconds=download.seconds,
            ),
            **_table_metadata(warehouse, table),
            **metadata.work(loaded.work),
            "content_hash": content.hash,
            "url": dg.MetadataValue.url(download.url),
        },
    )


def _reuse(
    context: dg.AssetExecutionContext, tables: Iterable[Table], warehouse: Warehouse
) -> Iterator[dg.MaterializeResult]:
    tables = list(tables)
    present = warehouse.tables()
    missing = [table.name for table in tables if table.name not in present]
    if missing:
        raise dg.Failure(
            f"There is nothing to reuse yet for {', '.join(missing)}: choose reload for ingestion.",
            allow_retries=False,
        )
    for table in tables:
        yield dg.MaterializeResult(
            asset_key=table.name,
            data_version=_last_data_version(context, table.name),
            metadata={
                **metadata.outcome("reused", "ingestion: reuse", rows=warehouse.row_count(table.name)),
                **_table_metadata(warehouse, table),
            },
        )


def _last_data_version(context: dg.AssetExecutionContext, name: str) -> dg.DataVersion | None:
    event = context.instance.get_latest_materialization_event(dg.AssetKey(name))
    found = event.asset_materialization if event else None
    version = (found.tags or {}).get("dagster/data_version") if found else None
    return dg.DataVersion(version) if version else None


def _table_metadata(warehouse: Warehouse, table: Table) -> dict[str, Any]:
    columns = [dg.TableColumn(field.name, str(field.type)) for field in table.schema]
    return {
        "dagster/column_schema": dg.TableSchema(columns),
        "dagster/table_name": warehouse.label(table.name),
    }


def _failure(failures: Sequence[Failed]) -> dg.Failure:
    reasons = " ".join(failure.reason for failure in failures)
    return dg.Failure(
        f"{len(failures)} of the raw tables could not be loaded and stay as they were. {reasons}",
        # What may pass was already asked for several times.
        allow_retries=False,
    )
