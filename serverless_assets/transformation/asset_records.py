"""What Dagster's history gets beside the events of a build: reused models, their checks, and months."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import dagster as dg

from serverless_assets import metadata
from serverless_assets.dagster_internals import (
    CODE_VERSION_TAG,
    DATA_VERSION_IS_USER_PROVIDED_TAG,
    DATA_VERSION_TAG,
    INPUT_DATA_VERSION_TAG_PREFIX,
    INPUT_EVENT_POINTER_TAG_PREFIX,
    NULL_EVENT_POINTER,
)
from serverless_assets.instance import one_batch
from serverless_assets.months import Window
from serverless_assets.names import TABLE_NAME
from serverless_assets.transformation.lineage import ColumnLineage
from serverless_assets.transformation.manifest import dbt_asset_key
from serverless_assets.transformation.nodes import Materialization
from serverless_assets.transformation.rebuild_rules import BuildDecision
from serverless_assets.transformation.relation_states import warehouse_of
from serverless_assets.warehouse import Warehouse


@dataclass(frozen=True)
class AssetRecords:
    """Puts on record what became of models in a run.

    `partitions` are those of the models that are built by month, `window` the months that the run is for;
    None means all.
    """

    context: dg.AssetExecutionContext
    manifest: Mapping[str, Any]
    warehouse: Warehouse
    lineage: ColumnLineage
    partitions: dg.TimeWindowPartitionsDefinition
    window: Window | None

    def key(self, decision: BuildDecision) -> dg.AssetKey:
        """Return the key of a model's asset."""
        return dbt_asset_key(self.manifest["nodes"][decision.node.id])

    def reused(self, decisions: Sequence[BuildDecision]) -> Iterator[dg.MaterializeResult]:
        """Put on record the models that stay as they are.

        A model is an output of the step only if another step waits for it: Dagster takes longer for each
        output, the more of them there are.
        """
        assets = self.context.job_def.asset_layer
        keys = {decision.node.id: self.key(decision) for decision in decisions}
        parents = {key: assets.get(key).parent_keys for key in keys.values()}
        others = {key for of in parents.values() for key in of} - set(keys.values())
        unrecorded = {
            keys[decision.node.id]
            for decision in decisions
            if not self.lineage.is_recorded(decision.node.id, decision.state.version)
        }
        last = self._last_materializations(others | unrecorded)
        versions = {key: (event.tags or {}).get(DATA_VERSION_TAG) for key, event in last.items()}
        versions |= {keys[decision.node.id]: decision.state.version for decision in decisions}
        awaited: list[dg.MaterializeResult] = []
        with one_batch(self.context.instance):
            for decision in decisions:
                key = keys[decision.node.id]
                self.record_months(decision)
                facts = {
                    **metadata.outcome("reused", decision.reason, rows=decision.state.rows),
                    metadata.BUILT_BY: decision.state.built_by,
                    TABLE_NAME: warehouse_of(self.warehouse, decision.node).qualified_name(
                        decision.node.identifier
                    ),
                    **self.lineage.of_reused(decision.node.id, decision.state.version, last.get(key)),
                }
                if assets.get(key).child_keys - self.context.selected_asset_keys:
                    awaited.append(
                        dg.MaterializeResult(
                            asset_key=key, data_version=dg.DataVersion(decision.state.version), metadata=facts
                        )
                    )
                    continue
                known = [parent for parent in parents[key] if versions.get(parent)]
                # As Dagster tags an output: the UI compares these with what there is now, and takes a parent
                # without a pointer for a new one.
                tags = {
                    CODE_VERSION_TAG: str(assets.get(key).code_version),
                    DATA_VERSION_TAG: decision.state.version,
                    DATA_VERSION_IS_USER_PROVIDED_TAG: "true",
                    **{
                        f"{INPUT_DATA_VERSION_TAG_PREFIX}/{parent.to_user_string()}": str(versions[parent])
                        for parent in known
                    },
                    **{
                        f"{INPUT_EVENT_POINTER_TAG_PREFIX}/{parent.to_user_string()}": NULL_EVENT_POINTER
                        for parent in known
                    },
                }
                self.context.log_event(dg.AssetMaterialization(key, metadata=facts, tags=tags))
        yield from awaited

    def record_months(self, decision: BuildDecision) -> None:
        """Record each month that was built, or that Dagster has no record of, of a model built by month.

        Dagster does so itself for the months that the run is for, of a model that is built.
        """
        months = decision.state.months
        if decision.node.kind != Materialization.BY_MONTH or months is None:
            return
        key = self.key(decision)
        recorded = self.context.instance.get_materialized_partitions(key)
        built = (months if decision.months is None else decision.months) if decision.build else ()
        partitions = {*self.partitions.get_partition_keys()}
        with one_batch(self.context.instance):
            for month in sorted({*built, *(months.keys() - recorded)} & partitions):
                if decision.build and self.window and month in self.window:
                    continue
                self.context.log_event(
                    dg.AssetMaterialization(
                        key,
                        partition=month,
                        metadata=metadata.outcome("built" if decision.build else "reused", decision.reason),
                        tags={DATA_VERSION_TAG: months.get(month, "")},
                    )
                )

    def _last_materializations(
        self, keys: Collection[dg.AssetKey]
    ) -> Mapping[dg.AssetKey, dg.AssetMaterialization]:
        if not keys:
            return {}
        entries = [record.asset_entry for record in self.context.instance.get_asset_records([*keys])]
        return {
            entry.asset_key: entry.last_materialization.asset_materialization
            for entry in entries
            if entry.last_materialization and entry.last_materialization.asset_materialization
        }

    def reused_checks(self, decisions: Iterable[BuildDecision]) -> None:
        """Log the last results of the tests of reused models, except of those that ran now."""
        tested = {
            dg.AssetCheckKey(self.key(decision), test.name): decision
            for decision in decisions
            for test in decision.tests
            if not test.is_due
        }
        with one_batch(self.context.instance):
            for check in sorted(self.context.selected_asset_check_keys & tested.keys()):
                decision = tested[check]
                self.context.log_event(
                    dg.AssetCheckEvaluation(
                        asset_key=check.asset_key,
                        check_name=check.name,
                        passed=check.name not in decision.state.warnings,
                        severity=dg.AssetCheckSeverity.WARN,
                        metadata={
                            metadata.STATUS: dg.TextMetadataValue("reused"),
                            metadata.BUILT_BY: dg.TextMetadataValue(decision.state.built_by),
                        },
                    )
                )
