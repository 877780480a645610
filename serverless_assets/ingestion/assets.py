"""The raw tables as assets: one step, so that all of them download at the same time."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass
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
from serverless_assets.ingestion.fetch_result import Failed, Missing, ends_run, failure_sentence
from serverless_assets.ingestion.load import LoadResult, decide_reuse, load_tables, loads_text
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
# The data version of a month that has none.
NO_ROWS = "no rows"


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
        warehouse = publisher.warehouse
        checks = CheckRunner(context, warehouse, first_month.replace(day=1))
        with as_failure(), warehouse.connected():
            if selected:
                stored = warehouse.read_states().items()
                states = {name: TableState.from_json(state) for name, state in stored}
                step = _Step(context, selected, checks, months, states)
                if isinstance(run_inputs.ingestion, Reuse):
                    yield from step.reuse(source)
                else:
                    opened = source_of_run(run_inputs.ingestion.address, source).open()
                    with scratch_folder(publisher.home, "ingestion") as scratch:
                        yield from step.reload(opened, scratch, run_inputs.rebuild_all)
            yield from checks.without_loading(table for table in tables if table not in selected)

    return ingestion


@dataclass(frozen=True)
class _Step:
    """One run of the step over the tables that it selected.

    states: what each table held before anything was fetched.
    """

    context: dg.AssetExecutionContext
    tables: Sequence[RawTable]
    checks: CheckRunner
    months: dg.TimeWindowPartitionsDefinition
    states: Mapping[str, TableState]

    def reload(
        self, source: AbstractContextManager[HttpSource], scratch: Path, force: bool
    ) -> Iterator[dg.MaterializeResult | dg.Output[None]]:
        """Load what changed at the source since it was last loaded; everything by `force`."""
        context, warehouse, states = self.context, self.checks.warehouse, self.states
        window, log = window_of_run(context), context.log.info
        failed, results = list[Failed](), list[LoadResult]()
        with (
            source as opened,
            closing(
                load_tables(
                    self.tables, opened, warehouse, window, scratch, log, states, context.run.run_id, force
                )
            ) as loads,
        ):
            for loaded in loads:
                if isinstance(loaded, LoadResult):
                    results.append(loaded)
                    yield self._loaded(loaded, window, opened)
                else:
                    if not loaded.is_optional:
                        failed.append(loaded)
                    yield from self._not_loaded(loaded)
        log(loads_text(results))
        if not window:
            self._log_first_month([loaded for loaded in results if loaded.fetched.table.name not in states])
        is_last = not context.job_def.has_node_named(TRANSFORMATION)
        if failed and (is_last or ends_run(failed, self.tables)):
            # What is transient was already requested several times.
            raise dg.Failure(failure_sentence(table.reason for table in failed), allow_retries=False)

    def reuse(self, source: Source) -> Iterator[dg.MaterializeResult | dg.Output[None]]:
        """Leave the tables as they are, with the data versions that they have."""
        absent = {failed.table.name: failed for failed in decide_reuse(self.tables, self.states, source)}
        if required := [name for name, failed in absent.items() if not failed.is_optional]:
            raise dg.Failure(
                f"There is nothing to reuse yet for {', '.join(required)}: choose `reload` under ingestion, "
                "on the command line by leaving out --reuse.",
                allow_retries=False,
            )
        for table in self.tables:
            if table.name in absent:
                yield from self._not_loaded(absent[table.name])
            else:
                yield self._kept(table, KEPT_AS_IT_IS)

    def _not_loaded(self, failed: Failed) -> Iterator[dg.MaterializeResult | dg.Output[None]]:
        """Record why a table stays as it was; without one that is missing, the next step may begin."""
        name, key = failed.table.name, asset_key(failed.table.name)
        if failed.is_optional:
            self.context.log.warning(f"{name} is left out: {failed.reason}")
            if name in self.states:
                yield self._kept(failed.table, failed.reason)
                return
        status: Literal["failed", "skipped"] = "skipped" if failed.is_optional else "failed"
        self.context.log_event(metadata.not_built(key, status, failed.reason, failed.is_optional))
        if isinstance(failed, Missing):
            not_materialized = {SYSTEM_METADATA_KEY_SOURCE_ASSET_OBSERVATION: True}
            yield dg.Output(None, key.to_python_identifier(), metadata=not_materialized)

    def _record_months(self, loaded: LoadResult, window: Window | None) -> None:
        """Show the rows of each month of the run, and as materialized each other month that was loaded.

        A run of all months also shows each that the table has: Dagster's history may have begun later.
        """
        context, table, key = self.context, loaded.fetched.table, asset_key(loaded.fetched.table.name)
        if window:
            rows = {month: part.rows for month, part in loaded.months.items()}
            if not loaded.audited:
                rows = {month.start.date(): month.rows + month.later for month in self.checks.months(table)}
            for month in window.months():
                # Other metadata of the asset goes to all months.
                context.add_asset_metadata(
                    {metadata.PARTITION_ROWS: rows.get(month, 0)}, key, month.isoformat()
                )
            if empty := [month.isoformat() for month in window.months() if not rows.get(month)]:
                log = context.log.info if any(rows.values()) else context.log.warning
                log(f"{table.name}: the source has no rows of {name_months(empty)}.")
        status: Literal["built", "reused"] = "built"
        parts = loaded.months
        reason = f"loaded with {loaded.fetched.scope.window or 'the whole history'}"
        if not loaded.decision.load:
            status, reason = "reused", loaded.decision.reason
            parts = {} if window else self.states[table.name].months or {}
        elif loaded.fetched.scope.since:
            reason = f"loaded with the changes since {loaded.fetched.scope.since}"
        recorded = context.instance.get_materialized_partitions(key)
        new = {month for month in parts if month.isoformat() not in recorded}
        partitions = set(self.months.get_partition_keys())
        for month in sorted(new.union(loaded.decision.months)):
            if month.isoformat() in partitions and not (window and month in window):
                part = parts.get(month)
                month_metadata = metadata.outcome(status, reason, rows=loaded.rows)
                month_metadata[metadata.PARTITION_ROWS] = part.rows if part else 0
                context.log_event(
                    dg.AssetMaterialization(
                        key,
                        partition=month.isoformat(),
                        metadata=month_metadata,
                        tags={DATA_VERSION_TAG: part.hash if part else NO_ROWS},
                    )
                )

    def _log_first_month(self, first_loads: Sequence[LoadResult]) -> None:
        """Say what to set if the source begins later than the partitions: Dagster shows the months before as
        missing, and which they are is known only now."""
        firsts = [min(loaded.months) for loaded in first_loads if loaded.months]
        if firsts and min(firsts) > self.months.start.date():
            begins = f"{min(firsts):%Y-%m}"
            self.context.log.info(
                f"The source begins in {begins}. The UI shows the months from {self.months.start:%Y-%m} "
                f"until then as missing: SERVERLESS_FIRST_MONTH={begins} leaves them out."
            )

    def _loaded(self, loaded: LoadResult, window: Window | None, source: HttpSource) -> dg.MaterializeResult:
        decision, fetched, download = loaded.decision, loaded.fetched, loaded.fetched.download
        table, served = fetched.table, loaded.audited.served if loaded.audited else None
        row_loss = None
        if decision.load:
            emptied = [month for month in decision.months if month not in loaded.months]
            row_loss = row_loss_warning(loaded.rows_before, loaded.rows, emptied)
        # Read before the months are recorded, whose materializations carry no observation.
        observation = self.checks.last_observation(table).updated(served, self.checks.now, row_loss)
        if served and (columns := observation.not_loaded(table)):
            self.context.log.info(
                f"{table.name}: columns that its entry does not declare are not loaded: {columns}."
            )
        if table.has_months:
            # One by one, the months of ten years take longer than their rows.
            with one_batch(self.context.instance):
                self._record_months(loaded, window)
        outcome = metadata.outcome(
            "built" if decision.load else "reused",
            decision.reason,
            rows=loaded.rows,
            size=download.bytes,
            seconds=download.seconds,
        )
        more = {
            **metadata.job_metadata(loaded.work, self.checks.warehouse),
            metadata.BUILT_BY: loaded.built_by,
            "content_hash": decision.version,
            **({"url": dg.MetadataValue.url(download.url)} if source.keeps_address(download.url) else {}),
        }
        return self._materialized(table, decision.version, outcome, observation, more)

    def _kept(self, table: RawTable, reason: str) -> dg.MaterializeResult:
        last = metadata.latest_materialization(self.context.instance, asset_key(table.name))
        version = (last.tags or {}).get(DATA_VERSION_TAG) if last else None
        outcome = metadata.outcome("reused", reason, rows=self.checks.warehouse.row_count(table.name))
        built_by = self.states[table.name].built_by
        observation = self.checks.last_observation(table)
        return self._materialized(table, version, outcome, observation, {metadata.BUILT_BY: built_by})

    def _materialized(
        self,
        table: RawTable,
        version: str | None,
        outcome: Mapping[str, Any],
        observation: SourceObservation,
        more: Mapping[str, Any],
    ) -> dg.MaterializeResult:
        lineage = {}
        if table.dated_by and table.event_time:
            # The event time is the parent's.
            dated = dg.TableColumnDep(asset_key(table.dated_by.parent.name), table.event_time)
            lineage[COLUMN_LINEAGE] = dg.TableColumnLineage({table.event_time: [dated]})
        return dg.MaterializeResult(
            asset_key=asset_key(table.name),
            data_version=None if version is None else dg.DataVersion(version),
            metadata={**outcome, **lineage, **observation.as_metadata(table), **more},
            check_results=self.checks.results(table, observation),
        )
