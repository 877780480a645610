"""The raw tables as assets: one step, so that all of them download at the same time."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing
from datetime import date
from pathlib import Path
from typing import Any, Literal

import dagster as dg

from serverless_assets import metadata
from serverless_assets.asset_keys import asset_key
from serverless_assets.dagster_internals import (
    DATA_VERSION_TAG,
    SYSTEM_METADATA_KEY_SOURCE_ASSET_OBSERVATION,
)
from serverless_assets.failures import as_failure
from serverless_assets.files import scratch_folder
from serverless_assets.ingestion.audit import row_loss_warning
from serverless_assets.ingestion.checks import CheckRunner, SourceObservation, check_specs
from serverless_assets.ingestion.content import NO_ROWS, parts_in
from serverless_assets.ingestion.fetch import fetch_tables
from serverless_assets.ingestion.fetch_result import Failed, Missing, Unchanged, ends_run, failure_sentence
from serverless_assets.ingestion.load import LoadResult, decide_reuse, load_table, loads_text
from serverless_assets.ingestion.raw_table import RawTable
from serverless_assets.ingestion.source import HttpSource, Source, source_of_run
from serverless_assets.ingestion.state import TableState
from serverless_assets.instance import one_batch
from serverless_assets.months import Window, name_months
from serverless_assets.names import COLUMN_LINEAGE, RAW_TABLE_TAG, TRANSFORMATION
from serverless_assets.partitions import partitions_by_month, window_of_run
from serverless_assets.publishing.publisher import Publisher
from serverless_assets.run_inputs import Reuse, RunInputs

GROUP = "ingestion"
KEPT_AS_IT_IS = "kept as it is (ingestion: reuse)"


def ingestion_assets(tables: Sequence[RawTable], first_month: date, pool: str) -> dg.AssetsDefinition:
    """Return an asset for each table of the catalogue; facts are partitioned by month from `first_month`."""
    months = partitions_by_month(first_month)

    @dg.multi_asset(
        name=GROUP,
        specs=[
            dg.AssetSpec(
                asset_key(table.name),
                description=table.description,
                group_name=GROUP,
                kinds={table.format},
                tags={RAW_TABLE_TAG: table.format},
                partitions_def=months if table.has_months else None,
            )
            for table in tables
        ],
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
    ) -> Iterator[dg.MaterializeResult | dg.AssetCheckResult | dg.Output[None]]:
        selected = [table for table in tables if asset_key(table.name) in context.selected_asset_keys]
        checks = CheckRunner(context, publisher.warehouse, first_month.replace(day=1))
        with as_failure(), publisher.warehouse.connected():
            if isinstance(run_inputs.ingestion, Reuse):
                yield from _reuse(context, selected, source, checks)
            elif selected:
                opened = source_of_run(run_inputs.ingestion.address, source).open()
                force = run_inputs.rebuild_all
                with scratch_folder(publisher.home, "ingestion") as scratch:
                    yield from _reload(context, publisher, selected, opened, checks, months, scratch, force)
            yield from checks.without_loading(table for table in tables if table not in selected)

    return ingestion


def _reload(
    context: dg.AssetExecutionContext,
    publisher: Publisher,
    tables: Sequence[RawTable],
    source: AbstractContextManager[HttpSource],
    checks: CheckRunner,
    months: dg.TimeWindowPartitionsDefinition,
    scratch: Path,
    force: bool,
) -> Iterator[dg.MaterializeResult | dg.Output[None]]:
    """Load what changed at the source since it was last loaded; everything by `force`."""
    window, failed, warehouse = window_of_run(context), list[Failed](), checks.warehouse
    results: list[LoadResult] = []
    stored_states = warehouse.read_states()
    states = {name: TableState.from_json(stored_state) for name, stored_state in stored_states.items()}
    with (
        source as opened,
        # An interrupted step ends its downloads before the folder is removed that they write to.
        closing(
            fetch_tables(tables, opened, warehouse, window, scratch, context.log.info, states, force)
        ) as fetched_tables,
    ):
        for fetched in fetched_tables:
            table = fetched.table
            loaded = load_table(warehouse, fetched, stored_states.get(table.name), context.run.run_id, force)
            if isinstance(loaded, Failed):
                if not loaded.is_optional:
                    failed.append(loaded)
                yield from _not_loaded(context, loaded, stored_states, checks)
                continue
            results.append(loaded)
            # Before the months are recorded, which say nothing of it.
            observation = _observe(loaded, checks)
            if loaded.audited and (columns := observation.not_loaded(table)):
                context.log.info(f"{table.name}: not loaded, as the catalogue does not have them: {columns}.")
            if table.has_months:
                # One by one, the months of ten years take longer than their rows.
                with one_batch(context.instance):
                    _record_months(context, loaded, states.get(table.name), window, months, checks)
            yield _materialized(loaded, observation, checks, opened)
    context.log.info(loads_text(results))
    first_loads = [loaded for loaded in results if loaded.fetched.table.name not in states]
    if not window and (hint := _first_month_hint(first_loads, months)):
        context.log.info(hint)
    is_last = not context.job_def.has_node_named(TRANSFORMATION)
    if failed and (is_last or ends_run(failed, tables)):
        # What is transient was already requested several times.
        raise dg.Failure(failure_sentence(table.reason for table in failed), allow_retries=False)


def _first_month_hint(
    first_loads: Sequence[LoadResult], months: dg.TimeWindowPartitionsDefinition
) -> str | None:
    """Return what to set if the source begins later than the partitions: Dagster shows the months before as
    missing, and which they are is known only now."""
    firsts = [min(loaded.months) for loaded in first_loads if loaded.months]
    if not firsts or min(firsts) <= months.start.date():
        return None
    begins = f"{min(firsts):%Y-%m}"
    return (
        f"The source begins in {begins}. The UI shows the months from {months.start:%Y-%m} until then as "
        f"missing: SERVERLESS_FIRST_MONTH={begins} leaves them out."
    )


def _not_loaded(
    context: dg.AssetExecutionContext,
    failed: Failed,
    stored_states: Mapping[str, Mapping[str, Any]],
    checks: CheckRunner,
) -> Iterator[dg.MaterializeResult | dg.Output[None]]:
    """Record why a table stays as it was; without one that is missing, the next step may begin."""
    name, key = failed.table.name, asset_key(failed.table.name)
    if failed.is_optional:
        context.log.warning(f"{name} is left out: {failed.reason}")
        if name in stored_states:
            yield _kept(context, failed.table, stored_states[name], checks, failed.reason)
            return
    status: Literal["failed", "skipped"] = "skipped" if failed.is_optional else "failed"
    context.log_event(metadata.not_built(key, status, failed.reason, failed.is_optional))
    if isinstance(failed, Missing):
        not_materialized = {SYSTEM_METADATA_KEY_SOURCE_ASSET_OBSERVATION: True}
        yield dg.Output(None, key.to_python_identifier(), metadata=not_materialized)


def _observe(loaded: LoadResult, checks: CheckRunner) -> SourceObservation:
    row_loss = None
    if loaded.decision.load:
        emptied = [month for month in loaded.decision.months if month not in loaded.months]
        row_loss = row_loss_warning(loaded.rows_before, loaded.rows, emptied)
    served = loaded.audited.served if loaded.audited else None
    return checks.last_observation(loaded.fetched.table).updated(served, checks.now, row_loss)


def _record_months(
    context: dg.AssetExecutionContext,
    loaded: LoadResult,
    before: TableState | None,
    window: Window | None,
    months: dg.TimeWindowPartitionsDefinition,
    checks: CheckRunner,
) -> None:
    """Show the rows of each month of the run, and as materialized each other month that was loaded.

    A run of all months also shows each that the table has: Dagster's history may have begun later.
    """
    table, key = loaded.fetched.table, asset_key(loaded.fetched.table.name)
    rows = {month: part.rows for month, part in loaded.months.items()}
    if window and not loaded.audited:
        rows = {month.start.date(): month.rows + month.later for month in checks.months(table)}
    for month in window.months() if window else []:
        # Other metadata of the asset goes to all months.
        context.add_asset_metadata({metadata.PARTITION_ROWS: rows.get(month, 0)}, key, month.isoformat())
    if window and (empty := [month.isoformat() for month in window.months() if not rows.get(month)]):
        log = context.log.info if any(rows.values()) else context.log.warning
        log(f"{table.name}: the source has no rows of {name_months(empty)}.")
    status: Literal["built", "reused"] = "built"
    parts = loaded.months
    reason = f"loaded with {loaded.fetched.window or 'the whole history'}"
    if not loaded.decision.load:
        parts, status, reason = {} if window else parts_in(before), "reused", loaded.decision.reason
    elif loaded.audited and loaded.audited.since:
        reason = f"loaded with the changes since {loaded.audited.since}"
    recorded = context.instance.get_materialized_partitions(key)
    new = {month for month in parts if month.isoformat() not in recorded}
    partitions = set(months.get_partition_keys())
    for month in sorted(new.union(loaded.decision.months)):
        if month.isoformat() in partitions and not (window and month in window):
            part = parts.get(month, NO_ROWS)
            month_metadata = metadata.outcome(status, reason, rows=loaded.rows)
            month_metadata[metadata.PARTITION_ROWS] = part.rows
            context.log_event(
                dg.AssetMaterialization(
                    key,
                    partition=month.isoformat(),
                    metadata=month_metadata,
                    tags={DATA_VERSION_TAG: part.hash},
                )
            )


def _materialized(
    loaded: LoadResult, observation: SourceObservation, checks: CheckRunner, source: HttpSource
) -> dg.MaterializeResult:
    decision, fetched, table = loaded.decision, loaded.fetched, loaded.fetched.table
    answer = fetched.response if isinstance(fetched, Unchanged) else fetched.download
    return dg.MaterializeResult(
        asset_key=asset_key(table.name),
        data_version=dg.DataVersion(decision.version),
        metadata={
            **metadata.outcome(
                "built" if decision.load else "reused",
                decision.reason,
                rows=loaded.rows,
                size=answer.bytes,
                seconds=answer.seconds,
            ),
            **_lineage(table),
            **observation.as_metadata(table),
            **metadata.job_metadata(loaded.work, checks.warehouse),
            metadata.BUILT_BY: loaded.built_by,
            "content_hash": decision.version,
            **({"url": dg.MetadataValue.url(answer.url)} if source.keeps_address(answer.url) else {}),
        },
        check_results=checks.results(table, observation),
    )


def _reuse(
    context: dg.AssetExecutionContext, tables: Sequence[RawTable], source: Source, checks: CheckRunner
) -> Iterator[dg.MaterializeResult | dg.Output[None]]:
    """Leave the tables as they are, with the data versions that they have."""
    stored_states = checks.warehouse.read_states()
    absent = {failed.table.name: failed for failed in decide_reuse(tables, stored_states, source)}
    if required := [name for name, failed in absent.items() if not failed.is_optional]:
        raise dg.Failure(
            f"There is nothing to reuse yet for {', '.join(required)}: choose reload for ingestion.",
            allow_retries=False,
        )
    for table in tables:
        if table.name in absent:
            yield from _not_loaded(context, absent[table.name], stored_states, checks)
        else:
            yield _kept(context, table, stored_states[table.name], checks, KEPT_AS_IT_IS)


def _kept(
    context: dg.AssetExecutionContext,
    table: RawTable,
    stored_state: Mapping[str, Any],
    checks: CheckRunner,
    reason: str,
) -> dg.MaterializeResult:
    observation = checks.last_observation(table)
    last = metadata.latest_materialization(context.instance, asset_key(table.name))
    version = (last.tags or {}).get(DATA_VERSION_TAG) if last else None
    return dg.MaterializeResult(
        asset_key=asset_key(table.name),
        data_version=dg.DataVersion(version) if version else None,
        metadata={
            **metadata.outcome("reused", reason, rows=checks.warehouse.row_count(table.name)),
            **_lineage(table),
            **observation.as_metadata(table),
            metadata.BUILT_BY: TableState.from_json(stored_state).built_by,
        },
        check_results=checks.results(table, observation),
    )


def _lineage(table: RawTable) -> dict[str, Any]:
    """Return the column lineage of a fact whose event time is its parent's."""
    if table.dated_by is None or table.event_time is None:
        return {}
    parent = table.dated_by.parent
    dated = [dg.TableColumnDep(asset_key(parent.name), str(parent.event_time))]
    return {COLUMN_LINEAGE: dg.TableColumnLineage({table.event_time: dated})}
