"""What a run would do and why, and what that would cost: as text, and as the job `plan`. It changes nothing.

What changed at the source is downloaded and looked at, as in a run: nothing else tells which months changed.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from graphlib import TopologicalSorter
from typing import Any

import dagster as dg

from serverless_assets.automation.jobs import PREFILL
from serverless_assets.automation.plan_forecasts import plan_forecast
from serverless_assets.automation.planned import (
    EVERYTHING,
    Planned,
    Selection,
    Verdict,
    depends_on,
    plan_lines,
    plan_summary,
    unless_reused,
)
from serverless_assets.environments import Environment
from serverless_assets.failures import as_failure
from serverless_assets.files import scratch_folder
from serverless_assets.forecasting.declaration import ForecastDeclaration
from serverless_assets.ingestion.assets import KEPT_AS_IT_IS
from serverless_assets.ingestion.fetch import fetch_tables
from serverless_assets.ingestion.fetch_result import AuditedTable, Failed, ends_run
from serverless_assets.ingestion.load import decide_load, decide_reuse
from serverless_assets.ingestion.source import source_of_run
from serverless_assets.ingestion.state import TableState
from serverless_assets.names import NAMES_OF_FAILED, name_some
from serverless_assets.publishing.outcome import AssetOutcome
from serverless_assets.python_assets.reuse import SAME_FRAME, FrameAsset, decide_frame
from serverless_assets.run_inputs import Reuse, RunInputs
from serverless_assets.transformation.decide_models import bytes_to_read
from serverless_assets.transformation.green_build import find_deleted
from serverless_assets.transformation.manifest import asset_names, dbt_asset_key, is_model
from serverless_assets.transformation.plan import ModelPlan, plan_models
from serverless_assets.transformation.rebuild_rules import BuildDecision
from serverless_assets.transformation.relation_states import State, read_states
from serverless_assets.warehouse import Warehouse


def dry_run(
    environment: Environment, inputs: RunInputs, selection: Selection = EVERYTHING
) -> Sequence[Planned]:
    """Return what would become of each asset, in the order of a run, and the verdict of the budget."""
    publisher, plan = environment.publisher, _plan_assets(environment, inputs, selection)
    by_hand, in_the_way = publisher.published.warehouse.made_by_hand(), publisher.irreplaceable()
    models = filter(is_model, environment.manifest["nodes"].values())
    changes = publisher.layout_changes(models, (table.shape for table in environment.raw_tables))

    def with_replaced(planned: Planned) -> Planned:
        """Say, too, what a run would replace in the place of the asset's table, or may not."""
        name, reason = planned.asset.rpartition("/")[2], planned.reason
        if name in in_the_way:
            return replace(planned, verdict="fail", reason=in_the_way[name])
        if name in by_hand and planned.verdict not in ("skip", "fail", "keep"):
            return replace(planned, reason=f"{reason}; replaces a {by_hand[name]} that no run has made")
        if name in changes and planned.verdict != "skip":
            return replace(planned, reason=f"{reason}; {changes[name]}: replaced")
        return planned

    planned_assets = [with_replaced(planned) for planned in plan.values()]
    guard = environment.budget_guard
    if guard.budget_usd is None:
        return planned_assets
    # A run asks for all assets, before it knows which it leaves out.
    estimate = guard.estimate(plan, inputs)
    verdict: Verdict = "admit" if estimate.usd <= guard.budget_usd else "refuse"
    return [*planned_assets, Planned("budget", verdict, estimate.sentence(guard.budget_usd))]


def _plan_assets(environment: Environment, inputs: RunInputs, selection: Selection) -> Mapping[str, Planned]:
    """Return what would become of each asset by its name. A report comes after the Python assets that are
    sections of it."""
    forecasts = [forecast for forecast in environment.forecasts if forecast.report in selection]
    plan = {planned.asset: planned for planned in _declared_assets(environment, inputs, selection, forecasts)}
    warehouse, models = environment.publisher.warehouse, {*asset_names(environment.manifest).values()}
    before_frames = models | {table.name for table in environment.raw_tables}
    failing = [name for name in plan if name in before_frames and plan[name].verdict == "fail"]
    with warehouse.connected():
        for frame in environment.python_assets:
            if frame.name in selection:
                waits = failing and not models.isdisjoint(frame.inputs)
                plan[frame.name] = _python_asset(
                    frame, plan, warehouse, inputs.rebuild_all, _not_reached(failing) if waits else ""
                )
    for forecast in forecasts:
        sections = {section.asset for section in forecast.sections}
        if not sections:
            continue
        report = plan.pop(forecast.report)
        new = sorted(name for name in sections if plan[name].verdict not in ("reuse", "skip"))
        if new and plan[forecast.asset].verdict == "reuse":
            report = depends_on(report.asset, new, "write", None)
        plan[report.asset] = report
    return plan


def _declared_assets(
    environment: Environment,
    inputs: RunInputs,
    selection: Selection,
    forecasts: Sequence[ForecastDeclaration],
) -> Iterator[Planned]:
    """Yield what would become of raw tables, then models, then forecasts."""
    manifest, project, publisher = environment.manifest, environment.project, environment.publisher
    stored_states = dict(publisher.warehouse.read_states())
    failed = list[Failed]()
    for planned, stored_state, failure in plan_raw_tables(environment, inputs, selection, stored_states):
        yield planned
        if stored_state is not None:
            stored_states[planned.asset] = stored_state
        if failure:
            failed.append(failure)
    names = asset_names(manifest)
    in_order = [id for id in TopologicalSorter(manifest["parent_map"]).static_order() if id in names]
    models = {id: names[id] for id in in_order if names[id] in selection}
    required = [table for table in failed if not table.is_optional]
    if required and ends_run(required, environment.raw_tables):
        skipped = [*models.values(), *(name for forecast in forecasts for name in forecast.assets)]
        reason = _not_reached([table.table.name for table in required])
        yield from (Planned(name, "skip", reason) for name in skipped)
        return
    loads = [
        AssetOutcome(
            table.table.name,
            "skipped" if table.is_optional else "failed",
            table.reason,
            optional=table.is_optional,
        )
        for table in failed
    ]
    plan = plan_models(
        project,
        manifest,
        publisher,
        models,
        loads,
        stored_states=stored_states,
        absent=environment.absent_tables,
        force=inputs.rebuild_all,
        forced_months=selection.months,
    )
    failing = [table.table.name for table in required] if models else []
    if not failing:
        # Without a failed load, these models themselves fail the run.
        failing = [models[id] for id, model in plan.left_out.items() if not model.is_optional]
    for id in models:
        if id in plan.left_out:
            verdict: Verdict = "fail" if models[id] in failing else "skip"
            yield Planned(models[id], verdict, plan.left_out[id].reason)
    yield from _models(environment, plan.decisions, models, stored_states)
    yield from _tests_and_deleted(environment, inputs, plan)
    keys_of_models = {dbt_asset_key(manifest["nodes"][id]) for id in names}
    for forecast in forecasts:
        upstream = forecast.upstream(manifest)
        reasons = [
            model.reason
            for id, model in plan.left_out.items()
            if dbt_asset_key(manifest["nodes"][id]) == upstream
        ]
        if not reasons and failing and upstream in keys_of_models:
            reasons = [_not_reached(failing)]
        if reasons:
            yield from (Planned(name, "skip", reasons[0]) for name in forecast.assets)
            continue
        # One connection for all queries, as opening the file takes most of the time of a plan.
        with publisher.warehouse.connected():
            yield from plan_forecast(environment, inputs, forecast, plan.decisions)


def _models(
    environment: Environment,
    decisions: Sequence[BuildDecision],
    assets: Mapping[str, str],
    stored_states: Mapping[str, Mapping[str, Any]],
) -> Iterator[Planned]:
    """Yield what would become of the models. `assets` are their names by dbt's unique id."""
    warehouse = environment.publisher.warehouse
    sizes = bytes_to_read(environment.project, warehouse, decisions, environment.manifest)
    there = read_states(warehouse, [decision.node for decision in decisions], stored_states)
    for decision in decisions:
        name, reason = decision.node.name, decision.reason
        if name in sizes:
            usd = warehouse.price(sizes[name])
            price = "at an unknown price" if usd is None else f"about ${usd:.6f}"
            reason += f"; bills {sizes[name]:,} bytes, {price}"
        months = None if decision.months is None else len(decision.months)
        rows = there.get(name, State()).rows
        verdict: Verdict = "build" if decision.build else "reuse"
        yield Planned(assets[decision.node.id], verdict, reason, rows, months)


def _tests_and_deleted(environment: Environment, inputs: RunInputs, plan: ModelPlan) -> Iterator[Planned]:
    """Yield the tests that are due without a model, and what becomes of models that were deleted."""
    for test in plan.source_tests:
        if test.is_due:
            tables = ", ".join(test.versions)
            yield Planned(test.name, "test", f"a data test of {tables}, which no model reads")
    publisher = environment.publisher
    if plan.is_whole:
        for model in find_deleted(environment.manifest, publisher.artifacts, publisher.warehouse):
            sentence = model.sentence(publisher.warehouse, inputs.drop_deleted)
            yield Planned(model.name, "drop" if inputs.drop_deleted else "keep", sentence)


def plan_raw_tables(
    environment: Environment,
    inputs: RunInputs,
    selection: Selection,
    stored_states: Mapping[str, Mapping[str, Any]],
) -> Iterator[tuple[Planned, Mapping[str, Any] | None, Failed | None]]:
    """Yield what would become of each table, the state that it then has, and why it is not loaded."""
    source, publisher = environment.source, environment.publisher
    warehouse, home = publisher.warehouse, publisher.home
    tables = [table for table in environment.raw_tables if table.name in selection]
    if not tables:
        return
    if isinstance(inputs.ingestion, Reuse):
        absent = {failed.table.name: failed for failed in decide_reuse(tables, stored_states, source)}
        for table in tables:
            if failed := absent.get(table.name):
                yield _not_loaded(failed, None), None, failed
            else:
                yield Planned(table.name, "reuse", KEPT_AS_IT_IS), stored_states[table.name], None
        return
    opened_source, force = source_of_run(inputs.ingestion.address, source).open(), inputs.rebuild_all
    states = {name: TableState.from_json(stored_state) for name, stored_state in stored_states.items()}
    with scratch_folder(home, "plan") as scratch, opened_source as opened:
        for fetched in fetch_tables(
            tables,
            opened,
            warehouse,
            selection.window,
            scratch,
            lambda line: None,
            states,
            force,
            to_load=False,
        ):
            name = fetched.table.name
            stored_state = stored_states.get(name)
            if isinstance(fetched, Failed):
                yield _not_loaded(fetched, stored_state), stored_state, fetched
                continue
            decision = decide_load(fetched, "", force)
            rows = fetched.content.rows if isinstance(fetched, AuditedTable) else warehouse.row_count(name)
            verdict: Verdict = "load" if decision.load else "reuse"
            after = decision.state.as_json() if decision.load and decision.state else stored_state
            yield Planned(name, verdict, decision.reason, rows), after, None


def _not_loaded(failed: Failed, stored_state: Mapping[str, Any] | None) -> Planned:
    verdict: Verdict = "skip" if stored_state is None else "reuse"
    return Planned(failed.table.name, verdict if failed.is_optional else "fail", failed.reason)


def _not_reached(failing: Sequence[str]) -> str:
    """Return the reason of what a step comes before that these assets fail."""
    return f"not reached: {name_some(failing, NAMES_OF_FAILED)} would fail before it"


def _python_asset(
    frame: FrameAsset, plan: Mapping[str, Planned], warehouse: Warehouse, force: bool, not_reached: str
) -> Planned:
    """Return what would become of a Python asset, given that of the assets before it.

    not_reached: why no step after the models is reached; empty if they are.
    """
    upstream = [plan[name] for name in frame.inputs if name in plan]
    for before in upstream:
        if before.verdict in ("skip", "fail"):
            return Planned(frame.name, "skip", before.reason)
    if not_reached:
        return Planned(frame.name, "skip", not_reached)
    _, reason = decide_frame(frame, warehouse, force)
    if changing := [before.asset for before in upstream if before.verdict not in ("reuse", "keep")]:
        is_certain = force or frame.table not in warehouse.tables()
        return depends_on(frame.name, changing, "compute", reason if is_certain else None)
    rows = warehouse.row_count(frame.table) if frame.table in warehouse.tables() else None
    return unless_reused(frame.name, "compute", reason, SAME_FRAME, rows)


def plan_job(environment: Environment) -> dg.JobDefinition:
    """A job that says what `serverless_pipeline` would do with the same run inputs, and does none of it."""

    @dg.op(out=dg.Out(dg.Nothing), description="What would be loaded, built and forecast, and why.")
    def plan_run(context: dg.OpExecutionContext, run_inputs: RunInputs) -> None:
        with as_failure():
            planned = dry_run(environment, run_inputs.checked())
        summary = plan_summary(planned, environment.pending_assets())
        context.log.info("\n".join([*plan_lines(planned), "", summary]))
        records = [
            dg.TableRecord({"asset": p.asset, "verdict": p.text, "rows": p.rows or 0, "reason": p.reason})
            for p in planned
        ]
        context.add_output_metadata({"plan": dg.MetadataValue.table(records)})

    @dg.job(name="plan", config=PREFILL, description=plan_job.__doc__)
    def job() -> None:
        plan_run()

    return job
