"""The raw tables as assets: one step, so that all of them download at the same time."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import dagster as dg

from serverless_assets import metadata
from serverless_assets.failures import in_words
from serverless_assets.ingestion.audit import NO_ROWS
from serverless_assets.ingestion.download import TableSource
from serverless_assets.ingestion.holding import Holding
from serverless_assets.ingestion.load import Brought, bring_in
from serverless_assets.ingestion.prepare import Failed, prepare
from serverless_assets.ingestion.source import HttpSource, Source
from serverless_assets.ingestion.tables import TABLES, Table
from serverless_assets.ingestion.window import Window
from serverless_assets.publishing.release import Release
from serverless_assets.run_inputs import IngestionChoice, RunInputs
from serverless_assets.warehouse import Warehouse

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
        choices = run_inputs.choices()
        choice = choices.ingestion
        selected = [table for table in tables if dg.AssetKey(table.name) in context.selected_asset_keys]
        if choice is None:
            with in_words():
                yield from _reuse(context, selected, release.warehouse)
            return
        with in_words():
            opened = _opened(source, choice)
            yield from _reload(context, selected, opened, release.warehouse, months, choices.rebuild_all)

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


def _reload(
    context: dg.AssetExecutionContext,
    tables: Sequence[Table],
    source: AbstractContextManager[TableSource],
    warehouse: Warehouse,
    months: dg.TimeWindowPartitionsDefinition,
    force: bool = False,
) -> Iterator[dg.MaterializeResult]:
    """Load what changed at the source since it was last loaded; everything by `force`."""
    window, failures = _window(context), []
    notes = warehouse.notes()
    held = {name: Holding.from_note(note) for name, note in notes.items()}
    with TemporaryDirectory(prefix="ingestion-") as scratch, source as opened:
        for found in prepare(tables, opened, window, Path(scratch), context.log.info, held, force):
            note = notes.get(found.table.name)
            brought = bring_in(warehouse, found, note, window, context.run.run_id, force)
            if isinstance(brought, Failed):
                failures.append(brought)
                key = dg.AssetKey(brought.table.name)
                context.log_event(metadata.not_built(key, "failed", brought.reason))
                continue
            if window is None and brought.decision.load:
                _record_months(context, brought, months)
            yield _materialized(warehouse, brought)
    if failures:
        raise _failure(failures)


def _record_months(
    context: dg.AssetExecutionContext, brought: Brought, months: dg.TimeWindowPartitionsDefinition
) -> None:
    """Show each month of a whole history as materialized; a run over partitions does so by itself."""
    if not brought.table.event_time:
        return
    key = dg.AssetKey(brought.table.name)
    shown = context.instance.get_materialized_partitions(key)
    new = {month for month in brought.months if month.isoformat() not in shown}
    known = set(months.get_partition_keys())
    for month in sorted(new.union(brought.decision.months)):
        if month.isoformat() in known:
            part = brought.months.get(month, NO_ROWS)
            described = metadata.outcome("built", "loaded with the whole history", rows=part.rows)
            tags = {"dagster/data_version": part.hash}
            context.log_event(
                dg.AssetMaterialization(key, partition=month.isoformat(), metadata=described, tags=tags)
            )


def _materialized(warehouse: Warehouse, brought: Brought) -> dg.MaterializeResult:
    decision = brought.decision
    return dg.MaterializeResult(
        asset_key=brought.table.name,
        data_version=dg.DataVersion(decision.version),
        metadata={
            **metadata.outcome(
                "built" if decision.load else "reused",
                decision.reason,
                rows=brought.rows,
                size=brought.size,
                seconds=brought.seconds,
            ),
            **_table_metadata(warehouse, brought.table),
            **metadata.work(brought.work),
            metadata.BUILT_BY: brought.built_by,
            "content_hash": decision.version,
            "url": dg.MetadataValue.url(brought.url),
        },
    )


def _reuse(
    context: dg.AssetExecutionContext, tables: Iterable[Table], warehouse: Warehouse
) -> Iterator[dg.MaterializeResult]:
    tables = list(tables)
    notes = warehouse.notes()
    missing = [table.name for table in tables if table.name not in notes]
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
                metadata.BUILT_BY: Holding.from_note(notes[table.name]).built_by,
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
