"""What a run would do about a forecast: its assets, their accuracy and the report."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from modal_forecast.messages import ForecastRefused
from modal_forecast.report.formats import plural
from serverless_assets.automation.planned import Planned, Verdict, depends_on, unless_reused
from serverless_assets.environments import Environment
from serverless_assets.forecasting.accuracy import decide_accuracy
from serverless_assets.forecasting.compute import Compute, Size, Usage
from serverless_assets.forecasting.declaration import ForecastDeclaration
from serverless_assets.forecasting.history import HistoryError, Today, read_history
from serverless_assets.forecasting.part_accuracy import decide_part_accuracy
from serverless_assets.forecasting.parts import decide_parts
from serverless_assets.forecasting.report_asset import decide_report
from serverless_assets.forecasting.reuse import (
    FIRST_FORECAST,
    FIRST_REPORT,
    FIRST_SCORES,
    SAME_FORECAST,
    SAME_PARTS,
    SAME_REPORT,
)
from serverless_assets.forecasting.total import decide_forecast
from serverless_assets.names import FORCED
from serverless_assets.publishing.outcome import SKIPPED_AS_ASKED
from serverless_assets.run_inputs import RunForecast, RunInputs, SkipForecast
from serverless_assets.transformation.rebuild_rules import BuildDecision
from serverless_assets.transformation.relation_states import UnfinishedError


def plan_forecast(
    environment: Environment,
    inputs: RunInputs,
    declaration: ForecastDeclaration,
    decisions: Sequence[BuildDecision],
) -> Iterator[Planned]:
    """Yield what would become of the assets of a forecast, in the order of a run.

    What hangs on rows that do not exist yet comes as they come. What cannot be decided, as the history is too
    short, say, fails, and so does all that comes after it.
    """
    if isinstance(inputs.forecast, RunForecast):
        declaration = declaration.of_run(inputs.forecast)
    remaining = [*declaration.assets]
    try:
        for planned in _in_order(environment, inputs, declaration, decisions):
            remaining.remove(planned.asset)
            yield planned
    except (ForecastRefused, HistoryError, UnfinishedError) as error:
        yield from (Planned(name, "fail", str(error)) for name in remaining)


def _in_order(
    environment: Environment,
    inputs: RunInputs,
    declaration: ForecastDeclaration,
    decisions: Sequence[BuildDecision],
) -> Iterator[Planned]:
    publisher, relation, parts = environment.publisher, declaration.relation, declaration.parts
    warehouse, force, run = publisher.warehouse, inputs.rebuild_all, inputs.forecast
    skipped = [*declaration.forecasts, declaration.report] if isinstance(run, SkipForecast) else []
    unless_depends = _unless_depends(environment, inputs, declaration)
    is_rebuilt = any(decision.build and decision.node.identifier == relation for decision in decisions)
    if is_rebuilt or relation not in declaration.beside_relation(warehouse).tables():
        absence = f"{relation}, which it reads, is not in the warehouse"
        for name in declaration.assets:
            if name in skipped:
                continue
            yield (
                depends_on(name, [relation], *unless_depends[name])
                if is_rebuilt
                else Planned(name, "fail", absence)
            )
        yield from (Planned(name, "skip", SKIPPED_AS_ASKED) for name in skipped)
        return
    history = read_history(declaration, warehouse, Today.of(environment.settings.timezone))
    decision = decide_accuracy(declaration, publisher, history.table, force)
    scores = [unless_reused(declaration.accuracy, "score", decision.reason, decision.unchanged)]
    if parts:
        decision = decide_part_accuracy(declaration, parts, publisher, history.table, force)
        scores.append(unless_reused(declaration.part_accuracy, "score", decision.reason, decision.unchanged))
    yield from scores
    if isinstance(run, SkipForecast):
        yield from (Planned(name, "skip", SKIPPED_AS_ASKED) for name in skipped)
        return
    rows = declaration.horizon_of(run)
    forecast = decide_forecast(warehouse, history, rows, force)
    if forecast.reason is not None:
        cost = _cost_as_last_time(environment.compute, run, forecast.state or {})
        yield Planned(declaration.asset, "forecast", forecast.reason + cost, rows)
        if parts:
            # If the new rows are the same, the parts stay.
            yield depends_on(parts.asset, [declaration.asset], *unless_depends[parts.asset])
        yield Planned(declaration.report, "write", f"upstream rebuilt ({declaration.asset})")
        return
    yield Planned(declaration.asset, "reuse", SAME_FORECAST, rows)
    planned_parts = []
    if parts:
        part_reason = decide_parts(declaration, parts, warehouse, force).reason
        planned_parts.append(
            unless_reused(parts.asset, "forecast", part_reason, SAME_PARTS.format(plural(parts.noun)))
        )
        yield from planned_parts
    if rebuilt := [planned.asset for planned in [*planned_parts, *scores] if planned.verdict != "reuse"]:
        yield depends_on(declaration.report, rebuilt, *unless_depends[declaration.report])
        return
    report_reason = decide_report(publisher, run, history, force, lambda line: None).reason
    yield unless_reused(declaration.report, "write", report_reason, SAME_REPORT)


def _unless_depends(
    environment: Environment, inputs: RunInputs, declaration: ForecastDeclaration
) -> Mapping[str, tuple[Verdict, str | None]]:
    """Return by name the verdict on an asset whose upstream is built, and the reason to make it anew whatever
    that holds then; None if it depends on the rows."""
    first: dict[str, tuple[Verdict, str]] = {
        declaration.accuracy: ("score", FIRST_SCORES),
        declaration.asset: ("forecast", FIRST_FORECAST),
        declaration.report: ("write", FIRST_REPORT),
    }
    if parts := declaration.parts:
        noun = plural(parts.noun)
        first[parts.asset] = "forecast", f"{FIRST_FORECAST} of {noun}"
        first[declaration.part_accuracy] = "score", f"{FIRST_SCORES} of {noun}"
    if inputs.rebuild_all:
        return {name: (verdict, FORCED) for name, (verdict, _) in first.items()}
    publisher, run = environment.publisher, inputs.forecast
    tables = publisher.warehouse.tables()
    existing = {name for name, table in declaration.tables.items() if table in tables}
    if isinstance(run, RunForecast) and publisher.artifacts.read(declaration.style_of(run).html_report):
        existing.add(declaration.report)
    return {
        name: (verdict, None if name in existing else reason) for name, (verdict, reason) in first.items()
    }


def _cost_as_last_time(compute: Compute, forecast: RunForecast, state: Mapping[str, Any]) -> str:
    """Return what a forecast costs that takes as long as the last one; empty if nothing is charged."""
    seconds = float(state.get("seconds") or 0.0)
    used = Usage(seconds, float(state.get("cpu_seconds") or 0.0))
    price = compute.price(Size.of(forecast), used)
    return "" if price is None else f"; about ${price:.6f} if it takes {seconds:.0f} s again"
