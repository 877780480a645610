"""One run of the transformation: reuse what is the same, build and test the rest, and keep account of it."""

from collections.abc import Collection, Generator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import Any, cast

import dagster as dg

from serverless_assets import metadata
from serverless_assets.months import Window
from serverless_assets.publishing.publisher import Publisher
from serverless_assets.transformation import dbt_events, dbt_runner
from serverless_assets.transformation.asset_records import AssetRecords
from serverless_assets.transformation.data_tests import keep_passed_tests
from serverless_assets.transformation.dbt_events import DagsterDbtTranslator, DagsterEvent, DbtMessage
from serverless_assets.transformation.dbt_process import MODEL_RESULTS, Event
from serverless_assets.transformation.invocation import Results, batches_of, build_arguments, months_variable
from serverless_assets.transformation.lineage import ColumnLineage, CompiledQueries
from serverless_assets.transformation.manifest import seeds_of_sources
from serverless_assets.transformation.nodes import Materialization
from serverless_assets.transformation.plan import ModelPlan
from serverless_assets.transformation.project import Project
from serverless_assets.transformation.rebuild_rules import BuildDecision, in_turns, settled_state
from serverless_assets.transformation.relation_states import State, rows_in, write_states

# Metadata of dagster-dbt that repeats `seconds`, the definition and the run's logs.
REPETITIONS = {"Execution Duration", "unique_id", "invocation_id"}
STATE_LOST = "built, but what it was built from could not be stored"


class DbtBuild:
    """A build of models in a run.

    Args:
        partitions: those of the models that are built by month.
        window: the months that the run is for; None means all.
    """

    def __init__(
        self,
        context: dg.AssetExecutionContext,
        project: Project,
        manifest: Mapping[str, Any],
        translator: DagsterDbtTranslator,
        publisher: Publisher,
        partitions: dg.TimeWindowPartitionsDefinition,
        window: Window | None,
    ) -> None:
        self._context, self._project, self._manifest = context, project, manifest
        self._translator, self._publisher, self._warehouse = translator, publisher, publisher.warehouse
        self._queries = CompiledQueries(manifest, project.target_schema, project.runs / "compiled")
        self._lineage = ColumnLineage(self._queries, project.runs / "column_lineage.json")
        self._records = AssetRecords(context, manifest, self._warehouse, self._lineage, partitions, window)

    def carry_out(self, plan: ModelPlan) -> Generator[Any, None, None]:
        """Do what was decided, and yield what became of each model and test.

        Closing the generator ends dbt, and keeps the states of what it has built.

        Raises:
            DbtError: models or tests failed; after what became of all.
        """
        # Dagster names the checks of reused models as outputs that are missing; they are on record as events.
        self._context.log.addFilter(lambda record: "did not yield or return" not in record.getMessage())
        self._context.log.info(str(plan))
        decisions, source_tests = plan.decisions, plan.source_tests
        # Dagster takes a model only after its parents: reused models below one that is built come last.
        first, building, last = in_turns(decisions)
        results = Results(self._manifest)
        tests = {test.id for decision in decisions for test in decision.tests if test.is_due}
        tests |= {test.id for test in source_tests if test.is_due}
        write_states(self._warehouse, [(d.node, d.state) for d in decisions if d.is_renewed])
        yield from self._records.reused(first)
        failure = None
        if building or tests:
            failure = yield from self._build(decisions, building, tests, results)
            self._context.log.info(results.counts())
            keep_passed_tests(self._warehouse, filter(results.has_passed, source_tests))
        # A reused model is on record already; that a test of it failed comes after.
        reasons = {decision.node.id: results.reason_of_tests(decision) for decision in first}
        reasons |= {decision.node.id: results.reason(decision) for decision in [*building, *last]}
        for decision in decisions:
            reason = reasons[decision.node.id]
            if reason is not None:
                yield metadata.not_built(self._records.key(decision), results.status(decision), reason)
        last = [decision for decision in last if reasons[decision.node.id] is None]
        yield from self._records.reused(last)
        self._lineage.save()
        self._records.reused_checks([*first, *last])
        if failure:
            raise dbt_runner.DbtError(results.summary() or failure)

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
        # Their rows are replaced in place: until that is done, no state describes them.
        in_place = [
            d.node for d in building if d.months is not None or d.node.kind == Materialization.STATEFUL
        ]
        write_states(self._warehouse, [(node, State()) for node in in_place])
        events = dbt_runner.stream(
            build_arguments(building, sorted(tests), datetime.now(UTC)),
            self._project.directory,
            self._project.runs,
            {
                **self._project.variables,
                "SERVERLESS_RUN_ID": self._context.run.run_id,
                "SERVERLESS_MONTHS": months_variable(building),
            },
            self._project.partial_parse,
            partial(rows_in, self._warehouse),
            batches_of(building),
            seeds_of_sources(self._manifest),
        )
        finished, failure = False, None
        try:
            for event in dbt_events.with_results(events):
                # dbt writes by a connection of its own, which does not notice that another run took over.
                self._publisher.check_turn()
                results.see(event)
                dbt_events.log_event(event, self._context.log)
                decision = by_id.get(event["data"].get("node_info", {}).get("unique_id", ""))
                if decision and event["info"]["name"] in MODEL_RESULTS:
                    # The query of a model is known only now that dbt has built it.
                    name = decision.node.name
                    settled[name] = settled_state(decision, settled, self._queries.read)
                    by_id[decision.node.id] = replace(decision, state=settled[name])
                message = DbtMessage(raw_event=event, event_history_metadata={})
                for result in message.to_default_asset_events(
                    self._manifest, self._translator, self._context
                ):
                    yield self._with_outcome(result, event, by_id)
            finished = True
        except dbt_runner.DbtError as error:
            finished, failure = True, error.failure
        finally:
            self._end(events, [by_id.get(d.node.id, d) for d in decisions], results, finished)
        return failure

    def _end(
        self,
        events: Generator[Event, None, None],
        decisions: Sequence[BuildDecision],
        results: Results,
        finished: bool,
    ) -> None:
        """End dbt, however far it came: a model that was built and passed its tests is not built again."""
        kept: Mapping[str, State] = {}
        try:
            events.close()
            states = results.states(decisions, finished)
            write_states(
                self._warehouse, [(d.node, states[d.node.name]) for d in decisions if d.node.name in states]
            )
            kept = states
        finally:
            # Dagster has recorded these as built: a retry of the failed steps would leave them out.
            for decision in decisions if not (finished and kept) else ():
                if decision.build and results.statuses.get(decision.node.id) == "success":
                    state = kept.get(decision.node.name, State(dirty_reason=STATE_LOST))
                    if state.dirty_reason:
                        self._context.log_event(
                            metadata.not_built(self._records.key(decision), "failed", state.dirty_reason)
                        )

    def _with_outcome(
        self, result: DagsterEvent, event: Event, decisions: Mapping[str, BuildDecision]
    ) -> DagsterEvent:
        """Add what became of a model, and what that or a test took, to an event of Dagster."""
        spent = metadata.job_metadata(dbt_events.job_stats(event), self._warehouse)
        if isinstance(result, dg.AssetCheckResult):
            # The queries of tests are charged for, too.
            return result.with_metadata({**(result.metadata or {}), **spent})
        if not isinstance(result, dg.Output):
            return result
        decision = decisions[str(result.metadata["unique_id"].value)]
        self._records.record_months(decision)
        described = metadata.outcome(
            "built",
            decision.reason,
            rows=event["data"].get("rows"),
            seconds=cast("float", result.metadata["Execution Duration"].value),
        )
        if decision.months is not None:
            described["months"] = ", ".join(month[:7] for month in decision.months)
        version = decision.state.version
        return dg.Output(
            result.value,
            output_name=result.output_name,
            metadata={
                **{name: value for name, value in result.metadata.items() if name not in REPETITIONS},
                **described,
                **spent,
                **self._lineage.of_built(decision.node.id, version, self._context.log.debug),
            },
            tags=result.tags,
            data_version=dg.DataVersion(version),
        )
