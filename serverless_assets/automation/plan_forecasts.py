"""What a run would do about a forecast: its assets, their accuracy and the report."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from modal_forecast.messages import ForecastRefused
from modal_forecast.report.formats import plural
from serverless_assets.automation.planned import Planned, Verdict, upstream_rebuilt
from serverless_assets.environments import Environment
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
from serverless_assets.publishing.outcome import SKIPPED_AS_ASKED
from serverless_assets.publishing.publisher import Publisher
from serverless_assets.run_inputs import RunForecast, RunInputs, SkipForecast
from serverless_assets.transformation.rebuild_rules import BuildDecision
from serverless_assets.transformation.relation_states import UnfinishedError


def plan_forecast(
    environment: Environment,
    inputs: RunInputs,
    declaration: ForecastDeclaration,
    decisions: Sequence[BuildDecision],
) -> Iterator[Planned]:
    """Yield what would become of the assets of a forecast. What hangs on rows that do not exist yet comes as
    they come."""
    if isinstance(inputs.forecast, RunForecast):
        declaration = declaration.of_run(inputs.forecast)
    publisher, relation, parts = environment.publisher, declaration.relation, declaration.parts
    total, report_asset = declaration.asset, declaration.report
    after_accuracy = [name for name in declaration.assets if name not in declaration.accuracies]
    verdict: Verdict | None = None
    if any(decision.build and decision.node.name == relation for decision in decisions):
        verdict, reason = "depends", upstream_rebuilt([relation], "made anew if its rows differ")
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
        history = read_history(declaration, publisher.warehouse, Today.of(environment.settings.timezone))
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
            reason = upstream_rebuilt([total], "forecast anew if its rows differ")
            yield Planned(parts.asset, "depends", reason)
        yield Planned(report_asset, "write", upstream_rebuilt([total]))
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
        yield Planned(report_asset, "depends", upstream_rebuilt(rebuilt, "written anew if rows differ"))
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


def _cost_as_last_time(compute: Compute, forecast: RunForecast, state: Mapping[str, Any]) -> str:
    """Return what a forecast costs that takes as long as the last one; empty if nothing is charged."""
    seconds = float(state.get("seconds") or 0.0)
    used = Usage(seconds, float(state.get("cpu_seconds") or 0.0))
    price = compute.price(Size(forecast.cores, forecast.mib), used)
    return "" if price is None else f"; about ${price:.6f} for {seconds:.0f} s as last time"
