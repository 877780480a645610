"""The raw tables as assets: one step, so that all of them download at the same time."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, closing
from datetime import date
from pathlib import Path
from typing import Any

import dagster as dg

from serverless_assets import metadata
from serverless_assets.failures import as_failure
from serverless_assets.files import scratch_folder
from serverless_assets.ingestion.audit import NO_ROWS
from serverless_assets.ingestion.catalog import TABLES, RawTable, Window
from serverless_assets.ingestion.checking import CheckRunner, check_specs
from serverless_assets.ingestion.download import TableSource
from serverless_assets.ingestion.load import LoadResult, load_table
from serverless_assets.ingestion.prepare import Failed, prepare
from serverless_assets.ingestion.row_loss import row_loss
from serverless_assets.ingestion.source import HttpSource, Source
from serverless_assets.ingestion.source_observation import NOT_LOADED, SourceObservation
from serverless_assets.ingestion.state import TableState
from serverless_assets.publishing.publisher import Publisher
from serverless_assets.run_inputs import IngestionChoice, RunInputs

GROUP = "ingestion"


def ingestion_assets(
    first_month: date, pool: str, tables: Sequence[RawTable] = TABLES
) -> dg.AssetsDefinition:
    """An asset for each table of the catalogue; facts are partitioned by month from `first_month` on."""
    # The month that has begun is a partition too.
    months = dg.MonthlyPartitionsDefinition(start_date=f"{first_month:%Y-%m-01}", end_offset=1)

    @dg.multi_asset(
        name=GROUP,
        specs=[_spec(table, months) for table in tables],
        check_specs=check_specs(tables),
        can_subset=True,
        # A range of months is one run: one download and one statement per table.
        backfill_policy=dg.BackfillPolicy.single_run(),
        pool=pool,
    )
    def ingestion(
        context: dg.AssetExecutionContext,
        run_inputs: RunInputs,
        source: dg.ResourceParam[Source],
        publisher: dg.ResourceParam[Publisher],
    ) -> Iterator[dg.MaterializeResult | dg.AssetCheckResult]:
        choices = run_inputs.choices()
        choice = choices.ingestion
        selected = [table for table in tables if dg.AssetKey(table.name) in context.selected_asset_keys]
        checking = CheckRunner.now_in(context, publisher.warehouse, first_month.replace(day=1))
        with as_failure():
            if choice is None:
                yield from _reuse(context, selected, checking)
            elif selected:
                opened = _opened(source, choice)
                yield from _reload(
                    context, selected, opened, checking, months, publisher.home, choices.rebuild_all
                )
            yield from checking.without_loading(table for table in tables if table not in selected)

    return ingestion


def _spec(table: RawTable, months: dg.PartitionsDefinition) -> dg.AssetSpec:
    return dg.AssetSpec(
        table.name,
        description=table.description,
        group_name=GROUP,
        kinds={"parquet"},
        partitions_def=months if table.event_time else None,
    )


def _opened(source: Source, choice: IngestionChoice) -> AbstractContextManager[TableSource]:
    return HttpSource(choice.dataset_url, source.limits).open() if choice.dataset_url else source.open()


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
    tables: Sequence[RawTable],
    source: AbstractContextManager[TableSource],
    checking: CheckRunner,
    months: dg.TimeWindowPartitionsDefinition,
    home: Path,
    force: bool = False,
) -> Iterator[dg.MaterializeResult]:
    """Load what changed at the source since it was last loaded; everything by `force`."""
    window, failures, warehouse = _window(context), [], checking.warehouse
    notes = warehouse.read_states()
    held = {name: TableState.from_note(note) for name, note in notes.items()}
    with (
        scratch_folder(home, "ingestion") as scratch,
        source as opened,
        # An interrupted step ends its downloads before the folder is removed that they write to.
        closing(
            prepare(tables, opened, warehouse, window, scratch, context.log.info, held, force)
        ) as prepared,
    ):
        for found in prepared:
            note = notes.get(found.table.name)
            brought = load_table(warehouse, found, note, context.run.run_id, force)
            if isinstance(brought, Failed):
                failures.append(brought)
                key = dg.AssetKey(brought.table.name)
                context.log_event(metadata.not_built(key, "failed", brought.reason))
                continue
            # Before the months are recorded, which say nothing of it.
            gone = [month for month in brought.decision.months if month not in brought.months]
            loss = row_loss(brought.rows_before, brought.rows, gone) if brought.decision.load else None
            seen = checking.source_observation(brought.table).seen(brought.served, checking.now, loss)
            if brought.served and (beyond := seen.not_loaded(brought.table)):
                name = brought.table.name
                context.log.info(f"{name}: not loaded, as the catalogue does not have them: {beyond}.")
            if brought.table.event_time and window:
                _describe_partitions(context, brought, window, checking)
            if brought.table.event_time and brought.decision.load:
                _record_months(context, brought, window, months)
            yield _materialized(checking, brought, seen)
    if failures:
        raise _failure(failures)


def _describe_partitions(
    context: dg.AssetExecutionContext, brought: LoadResult, window: Window, checking: CheckRunner
) -> None:
    """Give each month of the run its own number of rows: what else the asset is told goes to all months."""
    rows = {month: part.rows for month, part in brought.months.items()}
    if brought.served is None:
        rows = {month.start.date(): month.rows + month.later for month in checking.months(brought.table)}
    for month in window.months():
        context.add_asset_metadata(
            {metadata.PARTITION_ROWS: rows.get(month, 0)}, brought.table.name, month.isoformat()
        )


def _record_months(
    context: dg.AssetExecutionContext,
    brought: LoadResult,
    window: Window | None,
    months: dg.TimeWindowPartitionsDefinition,
) -> None:
    """Show each month that was loaded as materialized; those of a run over partitions show by themselves."""
    key = dg.AssetKey(brought.table.name)
    shown = context.instance.get_materialized_partitions(key)
    new = {month for month in brought.months if month.isoformat() not in shown}
    known = set(months.get_partition_keys())
    reason = f"loaded with {brought.window or 'the whole history'}"
    for month in sorted(new.union(brought.decision.months)):
        if month.isoformat() in known and not (window and month in window):
            part = brought.months.get(month, NO_ROWS)
            described = metadata.outcome("built", reason, rows=brought.rows)
            described[metadata.PARTITION_ROWS] = part.rows
            tags = {"dagster/data_version": part.hash}
            context.log_event(
                dg.AssetMaterialization(key, partition=month.isoformat(), metadata=described, tags=tags)
            )


def _materialized(
    checking: CheckRunner, brought: LoadResult, seen: SourceObservation
) -> dg.MaterializeResult:
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
            **_lineage(brought.table),
            **seen.as_metadata(),
            **_not_loaded(brought.table, seen),
            **metadata.work(brought.work, checking.warehouse),
            metadata.BUILT_BY: brought.built_by,
            "content_hash": decision.version,
            "url": dg.MetadataValue.url(brought.url),
        },
        check_results=checking.of(brought.table, seen),
    )


def _reuse(
    context: dg.AssetExecutionContext, tables: Sequence[RawTable], checking: CheckRunner
) -> Iterator[dg.MaterializeResult]:
    warehouse = checking.warehouse
    notes = warehouse.read_states()
    missing = [table.name for table in tables if table.name not in notes]
    if missing:
        raise dg.Failure(
            f"There is nothing to reuse yet for {', '.join(missing)}: choose reload for ingestion.",
            allow_retries=False,
        )
    for table in tables:
        seen = checking.source_observation(table)
        yield dg.MaterializeResult(
            asset_key=table.name,
            data_version=_last_data_version(context, table.name),
            metadata={
                **metadata.outcome("reused", "ingestion: reuse", rows=warehouse.row_count(table.name)),
                **_lineage(table),
                **seen.as_metadata(),
                **_not_loaded(table, seen),
                metadata.BUILT_BY: TableState.from_note(notes[table.name]).built_by,
            },
            check_results=checking.of(table, seen),
        )


def _last_data_version(context: dg.AssetExecutionContext, name: str) -> dg.DataVersion | None:
    event = context.instance.get_latest_materialization_event(dg.AssetKey(name))
    found = event.asset_materialization if event else None
    version = (found.tags or {}).get("dagster/data_version") if found else None
    return dg.DataVersion(version) if version else None


def _not_loaded(table: RawTable, seen: SourceObservation) -> dict[str, Any]:
    """The columns that the source serves and the catalogue does not have."""
    beyond = seen.not_loaded(table)
    return {NOT_LOADED: beyond} if beyond else {}


def _lineage(table: RawTable) -> dict[str, Any]:
    """The column that is another table's, as Dagster shows it."""
    if table.dated_by is None or table.event_time is None:
        return {}
    parent = table.dated_by.parent
    dated = [dg.TableColumnDep(dg.AssetKey(parent.name), str(parent.event_time))]
    return {"dagster/column_lineage": dg.TableColumnLineage({table.event_time: dated})}


def _failure(failures: Sequence[Failed]) -> dg.Failure:
    # A table that is dated by one that failed has the same reason.
    reasons = " ".join(dict.fromkeys(failure.reason for failure in failures))
    return dg.Failure(
        f"{len(failures)} of the raw tables could not be loaded and stay as they were. {reasons}",
        # What may pass was already asked for several times.
        allow_retries=False,
    )
