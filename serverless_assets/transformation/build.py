"""One run of the transformation: reuse what is the same, build and test the rest, and keep account of it."""

from collections.abc import Collection, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any, cast

import dagster as dg
from dagster_dbt import DagsterDbtTranslator

from serverless_assets import metadata
from serverless_assets.artifacts import Artifacts
from serverless_assets.transformation import dbt_runner
from serverless_assets.transformation.dbt_message import DagsterEvent, dagster_events
from serverless_assets.transformation.deleted_models import (
    deleted_text,
    drop_deleted,
    find_deleted,
    record_deleted,
)
from serverless_assets.transformation.fingerprints import Materialization, is_model, seeds_of_sources
from serverless_assets.transformation.invocation import Results, batches_of, build_arguments, months_variable
from serverless_assets.transformation.lineage import ColumnLineage
from serverless_assets.transformation.project import Project
from serverless_assets.transformation.rebuild_rules import BuildDecision, in_turns
from serverless_assets.transformation.relation_states import State, rows_in, warehouse_of, write_states
from serverless_assets.warehouse import Warehouse


@dataclass(frozen=True)
class Step:
    """What the step works with."""

    context: dg.AssetExecutionContext
    project: Project
    manifest: Mapping[str, Any]
    translator: DagsterDbtTranslator
    warehouse: Warehouse
    variables: Mapping[str, str]

    def selected(self) -> set[str]:
        """The unique ids of the models that the run is about."""
        models = {id: node for id, node in self.manifest["nodes"].items() if is_model(node)}
        keys = self.context.selected_asset_keys
        return {id for id, node in models.items() if self.translator.get_asset_key(node) in keys}

    def carry_out(self, decisions: Sequence[BuildDecision]) -> Iterator[Any]:
        """Do what was decided, and yield what became of each model and test."""
        self.context.log.info(plan_text(decisions))
        # Dagster takes a model after its parents only: what hangs on one that is built comes last.
        first, building, last = in_turns(decisions)
        table = _table(decisions)
        results = Results(self.manifest)
        yield from self._reused(first, table)
        failure = (yield from self._build(decisions, building, results, table)) if building else None
        causes = {decision.node.id: results.reason(decision.node.id) for decision in [*building, *last]}
        yield from self._not_built([*building, *last], results, causes)
        last = [decision for decision in last if causes[decision.node.id] is None]
        yield from self._reused(last, table)
        yield from self._reused_checks([*first, *last], results.names())
        if failure:
            raise dbt_runner.DbtError(results.summary() or failure)

    def settle_deleted(self, artifacts: Artifacts, drop: bool) -> None:
        """Report the tables of models that the project has no more, or drop them."""
        deleted = find_deleted(self.manifest, artifacts, self.warehouse)
        for model in deleted:
            self.context.log.warning(deleted_text(model.qualified_name(self.warehouse), model.name, drop))
        if drop:
            drop_deleted(self.warehouse, deleted)
        record_deleted(artifacts, () if drop else deleted)

    @property
    def _lineage(self) -> ColumnLineage:
        return ColumnLineage(self.manifest, self.translator, self.project.runs / "compiled")

    def _key(self, decision: BuildDecision) -> dg.AssetKey:
        return self.translator.get_asset_key(self.manifest["nodes"][decision.node.id])

    def _reused(
        self, decisions: Sequence[BuildDecision], table: dg.TableMetadataValue
    ) -> Iterator[dg.MaterializeResult]:
        """The models that stay as they are, on record as such."""
        lineages = self._lineage.of_reused([d.node.id for d in decisions], self.context.instance)
        with self.warehouse.connected():
            places = [warehouse_of(self.warehouse, decision.node) for decision in decisions]
            rows = [place.row_count(d.node.identifier) for place, d in zip(places, decisions, strict=True)]
        for decision, place, count in zip(decisions, places, rows, strict=True):
            yield dg.MaterializeResult(
                asset_key=self._key(decision),
                data_version=dg.DataVersion(decision.state.version),
                metadata={
                    **metadata.outcome("reused", decision.reason, rows=count),
                    metadata.BUILT_BY: decision.state.built_by,
                    "dagster/table_name": place.qualified_name(decision.node.identifier),
                    **lineages[decision.node.id],
                    "plan": table,
                },
            )

    def _reused_checks(
        self, decisions: Iterable[BuildDecision], done: Collection[str]
    ) -> Iterator[dg.AssetCheckResult]:
        """What the tests of reused models said when these were built; but for those that ran again."""
        reused = {self._key(decision): decision for decision in decisions}
        for check in sorted(self.context.selected_asset_check_keys):
            decision = reused.get(check.asset_key)
            if decision and check.name not in done:
                yield dg.AssetCheckResult(
                    asset_key=check.asset_key,
                    check_name=check.name,
                    passed=check.name not in decision.state.warnings,
                    severity=dg.AssetCheckSeverity.WARN,
                    metadata={metadata.STATUS: "reused", metadata.BUILT_BY: decision.state.built_by},
                )

    def _not_built(
        self, decisions: Iterable[BuildDecision], results: Results, reasons: Mapping[str, str | None]
    ) -> Iterator[dg.AssetObservation]:
        """The models that failed or were skipped, each with a reason of its own."""
        for decision in decisions:
            reason = reasons[decision.node.id]
            if reason is not None:
                status = results.status(decision.node.id)
                yield metadata.not_built(self._key(decision), status, reason)

    def _build(
        self,
        decisions: Sequence[BuildDecision],
        building: Sequence[BuildDecision],
        results: Results,
        table: dg.TableMetadataValue,
    ) -> Generator[DagsterEvent, None, str | None]:
        """Build the models and run their tests; return dbt's error if it failed."""
        by_id = {decision.node.id: decision for decision in building}
        # Rows are replaced in place: until all is done, the relation is not what its state says.
        in_place = [
            d.node for d in building if d.months is not None or d.node.kind == Materialization.STATEFUL
        ]
        write_states(self.warehouse, [(node, State()) for node in in_place])
        events = dbt_runner.stream(
            build_arguments(building, self.manifest, datetime.now(UTC)),
            self.project.directory,
            self.project.runs,
            {**self.variables, "SERVERLESS_MONTHS": months_variable(building)},
            self.project.partial_parse,
            partial(rows_in, self.warehouse),
            batches_of(building),
            seeds_of_sources(self.manifest),
        )
        finished, failure = False, None
        try:
            for event in dbt_runner.with_results(events):
                results.see(event)
                self._log(event)
                for result in dagster_events(event, self.manifest, self.translator, self.context):
                    yield self._with_outcome(result, event, by_id, table)
            finished = True
        except dbt_runner.DbtError as error:
            finished, failure = True, error.words
        finally:
            # However it ended: what was built and found sound need not be built again.
            events.close()
            states = results.states(decisions, finished)
            write_states(
                self.warehouse, [(d.node, states[d.node.name]) for d in decisions if d.node.name in states]
            )
        return failure

    def _with_outcome(
        self,
        result: DagsterEvent,
        event: dbt_runner.Event,
        decisions: Mapping[str, BuildDecision],
        table: dg.TableMetadataValue,
    ) -> DagsterEvent:
        spent = metadata.work(dbt_runner.work(event), self.warehouse)
        if isinstance(result, dg.AssetCheckResult):
            # Tests read, too, and that is charged for.
            return result.with_metadata({**(result.metadata or {}), **spent})
        if not isinstance(result, dg.Output):
            return result
        decision = decisions[str(result.metadata["unique_id"].value)]
        described = metadata.outcome(
            "built",
            decision.reason,
            rows=event["data"].get("rows"),
            seconds=cast("float", result.metadata["Execution Duration"].value),
        )
        if decision.months is not None:
            described["months"] = ", ".join(month[:7] for month in decision.months)
        described |= spent
        described |= self._lineage.of_built(decision.node.id, self.context.log.debug)
        return dg.Output(
            result.value,
            output_name=result.output_name,
            metadata={**result.metadata, **described, "plan": table},
            tags=result.tags,
            data_version=dg.DataVersion(decision.state.version),
        )

    def _log(self, event: dbt_runner.Event) -> None:
        info = event["info"]
        if info["name"] in dbt_runner.REPETITIONS:
            return
        if info["name"] in dbt_runner.RESULTS and info["level"] in ("warn", "error"):
            message = event["data"].get("run_result", {}).get("message") or ""
            self.context.log.warning(f"{info['msg']}\n{message}".strip())
        elif info["level"] in ("warn", "error"):
            self.context.log.warning(info["msg"])
        elif info["name"] in dbt_runner.MODEL_RESULTS:
            self.context.log.info(info["msg"])
        if "rows_error" in event["data"]:
            node = event["data"]["node_info"]["node_name"]
            self.context.log.warning(f"The rows of {node} were not counted: {event['data']['rows_error']}")


def _table(decisions: Iterable[BuildDecision]) -> dg.TableMetadataValue:
    """The whole plan, for people to find beside each model of it."""
    return dg.MetadataValue.table(
        [
            dg.TableRecord(
                {
                    "model": decision.node.name,
                    "verdict": "built" if decision.build else "reused",
                    "months": "" if decision.months is None else len(decision.months),
                    "reason": decision.reason,
                }
            )
            for decision in decisions
        ]
    )


def plan_text(decisions: Sequence[BuildDecision]) -> str:
    """The plan for a person: how many are built and reused, then a line for each."""
    built = sum(decision.build for decision in decisions)
    lines = [f"{len(decisions) - built} reused, {built} built"]
    for decision in decisions:
        months = f" ({len(decision.months)} months)" if decision.months is not None else ""
        verb = f"build{months}" if decision.build else "reuse"
        lines.append(f"{decision.node.name:<24} {verb:<18} {decision.reason}")
    return "\n".join(lines)
