"""One run of the transformation: reuse what is the same, build and test the rest, and keep account of it."""

from collections.abc import Collection, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property, partial
from typing import Any, cast

import dagster as dg

from modal_forecast.report.formats import counted
from serverless_assets import metadata
from serverless_assets.artifacts import Artifacts
from serverless_assets.dagster_internals import (
    CODE_VERSION_TAG,
    DATA_VERSION_IS_USER_PROVIDED_TAG,
    DATA_VERSION_TAG,
    INPUT_DATA_VERSION_TAG_PREFIX,
)
from serverless_assets.instance import one_batch
from serverless_assets.months import Window
from serverless_assets.names import NAMES_IN_A_LINE, TABLE_NAME, name_some
from serverless_assets.publishing.publisher import Publisher
from serverless_assets.transformation import dbt_runner
from serverless_assets.transformation.data_tests import keep_passed_tests
from serverless_assets.transformation.dbt_events import DagsterDbtTranslator, DagsterEvent, dagster_events
from serverless_assets.transformation.fingerprints import Materialization
from serverless_assets.transformation.invocation import Results, batches_of, build_arguments, months_variable
from serverless_assets.transformation.lineage import ColumnLineage, CompiledQueries
from serverless_assets.transformation.manifest import (
    deleted_text,
    find_deleted,
    is_model,
    record_deleted,
    seeds_of_sources,
)
from serverless_assets.transformation.project import Project
from serverless_assets.transformation.rebuild_rules import (
    BuildDecision,
    DataTest,
    columns_of,
    in_turns,
    settled_state,
)
from serverless_assets.transformation.relation_states import State, rows_in, warehouse_of, write_states
from serverless_assets.warehouse import Warehouse

# Metadata of dagster-dbt that says again what `seconds`, the definition and the run's logs say.
REPETITIONS = {"Execution Duration", "unique_id", "invocation_id"}


@dataclass(frozen=True)
class DbtBuild:
    """A build of models in a run, and what it reads and writes."""

    context: dg.AssetExecutionContext
    project: Project
    manifest: Mapping[str, Any]
    translator: DagsterDbtTranslator
    publisher: Publisher
    variables: Mapping[str, str]
    partitions: dg.TimeWindowPartitionsDefinition
    # The months that the run is for; None means all.
    window: Window | None

    @property
    def warehouse(self) -> Warehouse:
        return self.publisher.warehouse

    def selected(self) -> set[str]:
        """The unique ids of the models that the run is about."""
        models = {id: node for id, node in self.manifest["nodes"].items() if is_model(node)}
        keys = self.context.selected_asset_keys
        return {id for id, node in models.items() if self.translator.get_asset_key(node) in keys}

    def carry_out(
        self, decisions: Sequence[BuildDecision], source_tests: Sequence[DataTest] = ()
    ) -> Iterator[Any]:
        """Do what was decided, and yield what became of each model and test.

        source_tests: those of sources that no model reads.
        """
        # Dagster names the checks of reused models as outputs that are missing; they are on record as events.
        self.context.log.addFilter(lambda record: "did not yield or return" not in record.getMessage())
        self.context.log.info(plan_text(decisions))
        # Dagster takes a model after its parents only: what hangs on one that is built comes last.
        first, building, last = in_turns(decisions)
        results = Results(self.manifest)
        tests = {test.id for decision in decisions for test in decision.tests if test.is_due}
        tests |= {test.id for test in source_tests if test.is_due}
        write_states(self.warehouse, [(d.node, d.state) for d in decisions if d.is_renewed])
        yield from self._reused(first)
        failure = None
        if building or tests:
            failure = yield from self._build(decisions, building, tests, results)
            self.context.log.info(results.counts())
            keep_passed_tests(self.warehouse, filter(results.has_passed, source_tests))
        causes = {decision.node.id: results.reason(decision) for decision in [*building, *last]}
        causes |= {decision.node.id: results.reason_of_tests(decision) for decision in first}
        yield from self._not_built(decisions, results, causes)
        last = [decision for decision in last if causes[decision.node.id] is None]
        yield from self._reused(last)
        self._lineage.save()
        self._log_reused_checks([*first, *last])
        if failure:
            raise dbt_runner.DbtError(results.summary() or failure)

    def settle_deleted(self, artifacts: Artifacts, drop: bool) -> None:
        """Report the tables of models that the project has no more, or drop them."""
        deleted = find_deleted(self.manifest, artifacts, self.warehouse)
        for model in deleted:
            self.context.log.warning(deleted_text(model.qualified_name(self.warehouse), model.name, drop))
            if drop:
                self.warehouse.in_schema(model.database, model.schema).drop_relation(model.identifier)
        record_deleted(artifacts, () if drop else deleted)

    @cached_property
    def _lineage(self) -> ColumnLineage:
        folder = self.project.runs
        return ColumnLineage(
            self.manifest, self.translator, folder / "compiled", folder / "column_lineage.json"
        )

    @cached_property
    def _queries(self) -> CompiledQueries:
        return CompiledQueries(
            self.manifest, self.project.variables["DBT_SCHEMA"], self.project.runs / "compiled"
        )

    def _key(self, decision: BuildDecision) -> dg.AssetKey:
        return self.translator.get_asset_key(self.manifest["nodes"][decision.node.id])

    def _reused(self, decisions: Sequence[BuildDecision]) -> Iterator[dg.MaterializeResult]:
        """The models that stay as they are, on record as such.

        A model is an output of the step only if another step waits for it: Dagster takes longer for each
        output, the more of them there are.
        """
        assets = self.context.job_def.asset_layer
        keys = {decision.node.id: self._key(decision) for decision in decisions}
        parents = {key: assets.get(key).parent_keys for key in keys.values()}
        others = {key for of in parents.values() for key in of} - set(keys.values())
        unrecorded = {
            keys[decision.node.id]
            for decision in decisions
            if not self._lineage.is_recorded(decision.node.id, decision.state.version)
        }
        last = self._last_materializations(others | unrecorded)
        versions = {key: (event.tags or {}).get(DATA_VERSION_TAG) for key, event in last.items()}
        versions |= {keys[decision.node.id]: decision.state.version for decision in decisions}
        awaited: list[dg.MaterializeResult] = []
        with one_batch(self.context.instance):
            for decision in decisions:
                key = keys[decision.node.id]
                self._record_months(decision)
                facts = {
                    **metadata.outcome("reused", decision.reason, rows=decision.state.rows),
                    metadata.BUILT_BY: decision.state.built_by,
                    TABLE_NAME: warehouse_of(self.warehouse, decision.node).qualified_name(
                        decision.node.identifier
                    ),
                    **self._lineage.of_reused(decision.node.id, decision.state.version, last.get(key)),
                }
                if assets.get(key).child_keys - self.context.selected_asset_keys:
                    awaited.append(
                        dg.MaterializeResult(
                            asset_key=key, data_version=dg.DataVersion(decision.state.version), metadata=facts
                        )
                    )
                    continue
                # As Dagster does for an output: the UI compares these with what is there now.
                tags = {
                    CODE_VERSION_TAG: str(assets.get(key).code_version),
                    DATA_VERSION_TAG: decision.state.version,
                    DATA_VERSION_IS_USER_PROVIDED_TAG: "true",
                    **{
                        f"{INPUT_DATA_VERSION_TAG_PREFIX}/{parent.to_user_string()}": version
                        for parent in parents[key]
                        if (version := versions.get(parent))
                    },
                }
                self.context.log_event(dg.AssetMaterialization(key, metadata=facts, tags=tags))
        yield from awaited

    def _record_months(self, decision: BuildDecision) -> None:
        """Show as materialized each month of a model built by month that was built, or was not on record.

        Dagster does so itself for the months that the run is for, of a model that is built.
        """
        months = decision.state.months
        if decision.node.kind != Materialization.BY_MONTH or months is None:
            return
        key = self._key(decision)
        recorded = self.context.instance.get_materialized_partitions(key)
        built = (months if decision.months is None else decision.months) if decision.build else ()
        partitions = {*self.partitions.get_partition_keys()}
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

    def _log_reused_checks(self, decisions: Iterable[BuildDecision]) -> None:
        """Log what the tests of reused models said when they last ran; but for those that have to run."""
        reused = {self._key(decision): decision for decision in decisions}
        tested = {
            id: {test.name for test in decision.tests if not test.is_due} for id, decision in reused.items()
        }
        with one_batch(self.context.instance):
            for check in sorted(self.context.selected_asset_check_keys):
                decision = reused.get(check.asset_key)
                if decision is None or check.name not in tested[check.asset_key]:
                    continue
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

    def _not_built(
        self, decisions: Iterable[BuildDecision], results: Results, reasons: Mapping[str, str | None]
    ) -> Iterator[dg.AssetObservation]:
        """The models that failed or were skipped, each with a reason of its own."""
        for decision in decisions:
            reason = reasons[decision.node.id]
            if reason is not None:
                status = results.status(decision)
                yield metadata.not_built(self._key(decision), status, reason)

    def _build(
        self,
        decisions: Sequence[BuildDecision],
        building: Sequence[BuildDecision],
        tests: Collection[str],
        results: Results,
    ) -> Generator[DagsterEvent, None, str | None]:
        """Build the models and run their tests; return dbt's error if it failed."""
        by_id = {decision.node.id: decision for decision in building}
        settled: dict[str, State] = {}
        # Rows are replaced in place: until all is done, the relation is not what its state says.
        in_place = [
            d.node for d in building if d.months is not None or d.node.kind == Materialization.STATEFUL
        ]
        write_states(self.warehouse, [(node, State()) for node in in_place])
        events = dbt_runner.stream(
            build_arguments(building, sorted(tests), datetime.now(UTC)),
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
                # dbt writes without the run's warehouse, which would notice.
                self.publisher.check_turn()
                results.see(event)
                self._log(event)
                self._settle(event, by_id, settled)
                for result in dagster_events(event, self.manifest, self.translator, self.context):
                    yield self._with_outcome(result, event, by_id)
            finished = True
        except dbt_runner.DbtError as error:
            finished, failure = True, error.words
        finally:
            # However it ended: what was built and found sound need not be built again.
            events.close()
            states = results.states([by_id.get(d.node.id, d) for d in decisions], finished)
            write_states(
                self.warehouse, [(d.node, states[d.node.name]) for d in decisions if d.node.name in states]
            )
            # Dagster has these as built: a run that goes on with what is unfinished would leave them out.
            for decision in building if not finished else ():
                if (state := states.get(decision.node.name)) and state.dirty_reason:
                    self.context.log_event(
                        metadata.not_built(self._key(decision), "failed", state.dirty_reason)
                    )
        return failure

    def _settle(
        self, event: dbt_runner.Event, building: dict[str, BuildDecision], settled: dict[str, State]
    ) -> None:
        """Set the state of a model that dbt has built, as its query is known only now."""
        decision = building.get(event["data"].get("node_info", {}).get("unique_id", ""))
        if decision is None or event["info"]["name"] not in dbt_runner.MODEL_RESULTS:
            return
        columns = columns_of({name: settled.get(name, state) for name, state in decision.inputs.items()})
        query = self._queries.read(decision.node, columns) if decision.months is None else None
        state = settled[decision.node.name] = settled_state(decision, settled, query)
        building[decision.node.id] = replace(decision, state=state)

    def _with_outcome(
        self,
        result: DagsterEvent,
        event: dbt_runner.Event,
        decisions: Mapping[str, BuildDecision],
    ) -> DagsterEvent:
        spent = metadata.job_metadata(dbt_runner.work(event), self.warehouse)
        if isinstance(result, dg.AssetCheckResult):
            # Tests read, too, and that is charged for.
            return result.with_metadata({**(result.metadata or {}), **spent})
        if not isinstance(result, dg.Output):
            return result
        decision = decisions[str(result.metadata["unique_id"].value)]
        of_dbt = {name: value for name, value in result.metadata.items() if name not in REPETITIONS}
        self._record_months(decision)
        described = metadata.outcome(
            "built",
            decision.reason,
            rows=event["data"].get("rows"),
            seconds=cast("float", result.metadata["Execution Duration"].value),
        )
        if decision.months is not None:
            described["months"] = ", ".join(month[:7] for month in decision.months)
        described |= spent
        described |= self._lineage.of_built(decision.node.id, decision.state.version, self.context.log.debug)
        return dg.Output(
            result.value,
            output_name=result.output_name,
            metadata={**of_dbt, **described},
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
            self.context.log.debug(info["msg"])
        if "rows_error" in event["data"]:
            node = event["data"]["node_info"]["node_name"]
            self.context.log.warning(f"The rows of {node} were not counted: {event['data']['rows_error']}")


def plan_text(decisions: Sequence[BuildDecision]) -> str:
    """The plan for a person: how many models are built and reused, and which for each reason."""
    built = sum(decision.build for decision in decisions)
    names: dict[tuple[str, str], list[str]] = {}
    for decision in decisions:
        months = f" {counted(len(decision.months), 'month')} of" if decision.months is not None else ""
        verb = f"build{months}" if decision.build else "reuse"
        names.setdefault((verb, decision.reason), []).append(decision.node.name)
    lines = [f"{verb} {name_some(some, NAMES_IN_A_LINE)}: {reason}" for (verb, reason), some in names.items()]
    return "\n".join([f"{counted(built, 'model')} to build, {len(decisions) - built} to reuse", *lines])
