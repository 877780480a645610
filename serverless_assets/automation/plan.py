"""What a run would do and why, and what that would cost. It changes nothing.

What changed at the source is downloaded and looked at, as in a run: nothing else tells which months changed.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from graphlib import TopologicalSorter
from typing import Any

from modal_forecast.messages import ForecastRefused
from modal_forecast.report.formats import plural
from serverless_assets.automation.planned import EVERYTHING, Planned, PlannedEnvironment, Selection
from serverless_assets.budget import BudgetGuard, refusal, verdict
from serverless_assets.files import scratch_folder
from serverless_assets.forecasting.accuracy import UNCHANGED as ACCURACY_UNCHANGED
from serverless_assets.forecasting.accuracy import decide_accuracy
from serverless_assets.forecasting.assets import decide_report
from serverless_assets.forecasting.compute import Compute, Size, Usage
from serverless_assets.forecasting.declaration import ForecastDeclaration
from serverless_assets.forecasting.forecast_table import UNCHANGED as FORECAST_UNCHANGED
from serverless_assets.forecasting.forecast_table import decide_forecast
from serverless_assets.forecasting.history import History, HistoryError, Today, read_history
from serverless_assets.forecasting.part_accuracy import UNCHANGED as PART_ACCURACY_UNCHANGED
from serverless_assets.forecasting.part_accuracy import decide_part_accuracy
from serverless_assets.forecasting.parts import UNCHANGED as PARTS_UNCHANGED
from serverless_assets.forecasting.parts import decide_parts
from serverless_assets.forecasting.report import UNCHANGED as REPORT_UNCHANGED
from serverless_assets.ingestion.assets import KEPT_AS_IT_IS
from serverless_assets.ingestion.fetch import fetch_tables
from serverless_assets.ingestion.fetch_result import AuditedTable, Failed, ends_run
from serverless_assets.ingestion.load import decide_load, decide_reuse
from serverless_assets.ingestion.source import source_of_run
from serverless_assets.ingestion.state import TableState
from serverless_assets.names import NAMES_IN_A_LINE, name_some
from serverless_assets.publishing.outcome import SKIPPED_AS_ASKED, AssetOutcome
from serverless_assets.publishing.publisher import Publisher
from serverless_assets.python_assets.reuse import UNCHANGED as FRAME_UNCHANGED
from serverless_assets.python_assets.reuse import FrameAsset, decide_frame
from serverless_assets.run_inputs import Reuse, RunForecast, RunInputs, SkipForecast
from serverless_assets.transformation.asset_keys import asset_names
from serverless_assets.transformation.decide_models import (
    bytes_to_read,
    decide_models,
    decide_tests,
    is_whole,
)
from serverless_assets.transformation.left_out import models_left_out
from serverless_assets.transformation.manifest import deleted_text, find_deleted, is_model, known_models
from serverless_assets.transformation.rebuild_rules import BuildDecision
from serverless_assets.transformation.relation_states import State, UnfinishedError, read_states
from serverless_assets.warehouse import Warehouse


def dry_run(
    environment: PlannedEnvironment, inputs: RunInputs, selection: Selection = EVERYTHING
) -> Iterator[Planned]:
    """Asset after asset, in the order of a run."""
    by_hand = environment.publisher.published.warehouse.made_by_hand()
    in_the_way = environment.publisher.irreplaceable()
    models = filter(is_model, environment.manifest["nodes"].values())
    changes = environment.publisher.layout_changes(models)
    for planned in _planned_assets(environment, inputs, selection):
        name = planned.asset.rpartition("/")[2]
        kind = by_hand.get(name)
        if name in in_the_way:
            planned = replace(planned, verdict="fail", reason=in_the_way[name])
        elif kind and planned.verdict not in ("skip", "fail", "keep"):
            planned = replace(planned, reason=f"{planned.reason}; replaces a {kind} that no run has made")
        elif name in changes and planned.verdict != "skip":
            planned = replace(planned, reason=f"{planned.reason}; {changes[name]}: replaced")
        yield planned


def _planned_assets(
    environment: PlannedEnvironment, inputs: RunInputs, selection: Selection
) -> Iterator[Planned]:
    by_asset: dict[str, Planned] = {}
    forecasts = [forecast for forecast in environment.forecasts if forecast.report in selection]
    sections = {forecast.report: forecast.sections for forecast in forecasts}
    for planned in _declared_assets(environment, inputs, selection):
        by_asset[planned.asset] = planned
        if not sections.get(planned.asset):
            yield planned
    warehouse = environment.publisher.warehouse
    for frame in (frame for frame in environment.python_assets if frame.name in selection):
        with warehouse.connected():
            by_asset[frame.name] = _python_asset(frame, by_asset, warehouse, inputs)
        yield by_asset[frame.name]
    for forecast in forecasts:
        report, assets = forecast.report, {section.asset for section in forecast.sections}
        new = sorted(name for name in assets if by_asset[name].verdict not in ("reuse", "skip"))
        if new and by_asset[forecast.asset].verdict == "reuse":
            reason = f"upstream rebuilt ({', '.join(new)}): written anew if rows differ"
            by_asset[report] = Planned(report, "depends", reason)
        if assets:
            yield by_asset[report]
    # Of all of them, as a run is asked before it knows which it leaves out.
    yield from _budget(environment.budget_guard, by_asset, inputs)


def _declared_assets(
    environment: PlannedEnvironment, inputs: RunInputs, selection: Selection
) -> Iterator[Planned]:
    """The raw tables, models and forecasts."""
    warehouse = environment.publisher.warehouse
    forecasts = [forecast for forecast in environment.forecasts if forecast.report in selection]
    manifest = environment.manifest
    notes = dict(warehouse.read_states())
    failed = list[Failed]()
    for planned, note, failure in plan_raw_tables(environment, inputs, selection, notes):
        yield planned
        if note is not None:
            notes[planned.asset] = note
        if failure:
            failed.append(failure)
    names = asset_names(manifest)
    in_order = [id for id in TopologicalSorter(manifest["parent_map"]).static_order() if id in names]
    assets = {id: names[id] for id in in_order if names[id] in selection}
    required = [table for table in failed if not table.is_optional]
    if required and ends_run(required, environment.raw_tables):
        skipped = [*assets.values(), *(name for forecast in forecasts for name in forecast.assets)]
        tables = name_some([table.table.name for table in required], NAMES_IN_A_LINE)
        yield from (Planned(name, "skip", f"not reached: {tables} would fail before it") for name in skipped)
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
    left_out = models_left_out(
        manifest, environment.project.variables["DBT_SCHEMA"], notes, loads, environment.absent_tables
    )
    yield from (Planned(name, "skip", left_out[id].reason) for id, name in assets.items() if id in left_out)
    decisions = decide_models(
        environment.project,
        manifest,
        warehouse,
        assets.keys() - left_out.keys(),
        notes=notes,
        known_models=lambda: known_models(environment.publisher.artifacts),
        force=inputs.rebuild_all,
        forced_months=selection.months,
    )
    sizes = bytes_to_read(environment.project, warehouse, decisions, manifest)
    there = read_states(warehouse, [decision.node for decision in decisions], notes)
    for decision in decisions:
        rows = there.get(decision.node.name, State()).rows
        yield _model(decision, assets[decision.node.id], warehouse, rows, sizes)
    if is_whole(decisions, manifest, left_out):
        for test in decide_tests(environment.project, manifest, notes):
            if test.is_due:
                tables = ", ".join(test.versions)
                yield Planned(test.name, "test", f"a data test of {tables}, which no model reads")
        for model in find_deleted(manifest, environment.publisher.artifacts, warehouse):
            sentence = deleted_text(model.qualified_name(warehouse), model.name, inputs.drop_deleted)
            yield Planned(model.name, "drop" if inputs.drop_deleted else "keep", sentence)
    for forecast in forecasts:
        reasons = [
            model.reason for id, model in left_out.items() if assets.get(id) == forecast.upstream(manifest)
        ]
        if reasons:
            yield from (Planned(name, "skip", reasons[0]) for name in forecast.assets)
            continue
        # To open the file for each question takes most of the time of a plan.
        with warehouse.connected():
            yield from plan_forecast(environment, inputs, forecast, decisions)


def plan_raw_tables(
    environment: PlannedEnvironment,
    inputs: RunInputs,
    selection: Selection,
    notes: Mapping[str, Mapping[str, Any]],
) -> Iterator[tuple[Planned, Mapping[str, Any] | None, Failed | None]]:
    """Yield what would become of each table, the note that it then has, and why it is not loaded."""
    source, publisher = environment.source, environment.publisher
    warehouse, home = publisher.warehouse, publisher.home
    tables = [table for table in environment.raw_tables if table.name in selection]
    if not tables:
        return
    if isinstance(inputs.ingestion, Reuse):
        absent = {failed.table.name: failed for failed in decide_reuse(tables, notes, source)}
        for table in tables:
            if failed := absent.get(table.name):
                yield _not_loaded(failed, None), None, failed
            else:
                yield Planned(table.name, "reuse", KEPT_AS_IT_IS), notes[table.name], None
        return
    opened_source, force = source_of_run(inputs.ingestion, source).open(), inputs.rebuild_all
    states = {name: TableState.from_note(note) for name, note in notes.items()}
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
            note = notes.get(name)
            if isinstance(fetched, Failed):
                yield _not_loaded(fetched, note), note, fetched
                continue
            decision = decide_load(fetched, states.get(name), "", force)
            rows = fetched.content.rows if isinstance(fetched, AuditedTable) else warehouse.row_count(name)
            verdict = "load" if decision.load else "reuse"
            after = decision.state.as_note() if decision.load and decision.state else note
            yield Planned(name, verdict, decision.reason, rows), after, None


def _not_loaded(failed: Failed, note: Mapping[str, Any] | None) -> Planned:
    verdict = "skip" if note is None else "reuse"
    return Planned(failed.table.name, verdict if failed.is_optional else "fail", failed.reason)


def _model(
    decision: BuildDecision,
    asset: str,
    warehouse: Warehouse,
    rows: int | None,
    sizes: Mapping[str, int],
) -> Planned:
    name = decision.node.name
    months = "" if decision.months is None else f", {len(decision.months)} months"
    reason = decision.reason
    if name in sizes:
        usd = warehouse.price(sizes[name])
        reason += (
            f"; bills {sizes[name]:,} bytes, {'at an unknown price' if usd is None else f'about ${usd:.6f}'}"
        )
    return Planned(asset, f"build{months}" if decision.build else "reuse", reason, rows)


def plan_forecast(
    environment: PlannedEnvironment,
    inputs: RunInputs,
    declaration: ForecastDeclaration,
    decisions: Sequence[BuildDecision],
) -> Iterator[Planned]:
    """The assets of a forecast. What hangs on rows that do not exist yet comes as they come."""
    if isinstance(inputs.forecast, RunForecast):
        declaration = declaration.of_run(inputs.forecast)
    publisher, relation, parts = environment.publisher, declaration.relation, declaration.parts
    total, report_asset = declaration.asset, declaration.report
    after_accuracy = [name for name in declaration.assets if name not in declaration.accuracies]
    verdict, reason = "", ""
    if any(decision.build and decision.node.name == relation for decision in decisions):
        verdict, reason = "depends", f"upstream rebuilt ({relation}): made anew if its rows differ"
    elif relation not in publisher.warehouse.tables():
        verdict = "fail"
        reason = f"{relation}, which it reads, is not in the warehouse"
    if verdict:
        yield from (Planned(name, verdict, reason) for name in declaration.accuracies)
        if isinstance(inputs.forecast, SkipForecast):
            verdict, reason = "skip", SKIPPED_AS_ASKED
        yield from (Planned(name, verdict, reason) for name in after_accuracy)
        return
    try:
        history = read_history(declaration, publisher.warehouse, Today.of(environment.timezone))
        accuracies = [*_accuracies(publisher, declaration, history, inputs.rebuild_all)]
    except HistoryError as error:
        yield from (Planned(name, "fail", str(error)) for name in declaration.assets)
        return
    yield from accuracies
    if isinstance(inputs.forecast, SkipForecast):
        yield from (Planned(name, "skip", SKIPPED_AS_ASKED) for name in after_accuracy)
        return
    rows = declaration.horizon_of(inputs.forecast)
    try:
        forecast = decide_forecast(publisher.warehouse, history, rows, inputs.rebuild_all)
    except (HistoryError, ForecastRefused) as error:
        yield from (Planned(name, "fail", str(error)) for name in after_accuracy)
        return
    if forecast.reason is not None:
        cost = _cost_as_last_time(environment.compute, inputs.forecast, forecast.state or {})
        yield Planned(total, "forecast", forecast.reason + cost, rows)
        if parts:
            # The same history gives the same rows, and then the parts stay.
            reason = f"upstream rebuilt ({total}): forecast anew if its rows differ"
            yield Planned(parts.asset, "depends", reason)
        yield Planned(report_asset, "write", f"upstream rebuilt ({total})")
        return
    yield Planned(total, "reuse", FORECAST_UNCHANGED, rows)
    rebuilt = []
    if parts:
        try:
            part_reason = decide_parts(declaration, parts, publisher.warehouse, inputs.rebuild_all).reason
        except HistoryError as error:
            yield from (Planned(name, "fail", str(error)) for name in (parts.asset, report_asset))
            return
        unchanged = PARTS_UNCHANGED.format(plural(parts.noun))
        yield Planned(parts.asset, "forecast" if part_reason else "reuse", part_reason or unchanged)
        if part_reason:
            rebuilt.append(parts.asset)
    if rebuilt := [*rebuilt, *(planned.asset for planned in accuracies if planned.verdict == "score")]:
        yield Planned(
            report_asset,
            "depends",
            f"upstream rebuilt ({', '.join(rebuilt)}): written anew if rows differ",
        )
        return
    try:
        report = decide_report(publisher, inputs.forecast, history, inputs.rebuild_all, lambda line: None)
    except UnfinishedError as error:
        yield Planned(report_asset, "fail", str(error))
        return
    yield Planned(report_asset, "write" if report.reason else "reuse", report.reason or REPORT_UNCHANGED)


def _accuracies(
    publisher: Publisher, declaration: ForecastDeclaration, history: History, rebuild_all: bool
) -> Iterator[Planned]:
    """The assets of the accuracy of a forecast and of its parts."""

    def planned(asset: str, reason: str | None, unchanged: str) -> Planned:
        return Planned(asset, "score" if reason else "reuse", reason or unchanged)

    reason = decide_accuracy(declaration, publisher, history.table, rebuild_all).reason
    yield planned(declaration.accuracy, reason, ACCURACY_UNCHANGED)
    if parts := declaration.parts:
        reason = decide_part_accuracy(declaration, parts, publisher, history.table, rebuild_all).reason
        unchanged = PART_ACCURACY_UNCHANGED.format(plural(parts.noun))
        yield planned(declaration.part_accuracy, reason, unchanged)


def _python_asset(
    frame: FrameAsset, planned: Mapping[str, Planned], warehouse: Warehouse, inputs: RunInputs
) -> Planned:
    """Return what would become of a Python asset, given that of the assets before it."""
    upstream = [planned[name] for name in frame.inputs if name in planned]
    for before in upstream:
        if before.verdict in ("skip", "fail"):
            return Planned(frame.name, "skip", before.reason)
    if changing := [before.asset for before in upstream if before.verdict not in ("reuse", "keep")]:
        reason = f"upstream rebuilt ({', '.join(changing)}): computed anew if its rows differ"
        return Planned(frame.name, "depends", reason)
    _, reason_to_compute = decide_frame(frame, warehouse, inputs.rebuild_all)
    rows = warehouse.row_count(frame.table) if frame.table in warehouse.tables() else None
    return Planned(
        frame.name, "compute" if reason_to_compute else "reuse", reason_to_compute or FRAME_UNCHANGED, rows
    )


def _cost_as_last_time(compute: Compute, forecast: RunForecast, note: Mapping[str, Any]) -> str:
    """Return what a forecast costs that takes as long as the last one; empty if nothing is charged."""
    seconds = float(note.get("seconds") or 0.0)
    used = Usage(seconds, float(note.get("cpu_seconds") or 0.0))
    price = compute.price(Size(forecast.cores, forecast.mib), used)
    return "" if price is None else f"; about ${price:.6f} for {seconds:.0f} s as last time"


def _budget(budget_guard: BudgetGuard, assets: Collection[str], inputs: RunInputs) -> Iterator[Planned]:
    """Return what the run may cost at most, if there is a budget."""
    if budget_guard.budget_usd is not None:
        most = budget_guard.most(assets, inputs)
        refused = refusal(most, budget_guard.budget_usd)
        yield Planned("budget", "refuse" if refused else "admit", verdict(most, budget_guard.budget_usd))
