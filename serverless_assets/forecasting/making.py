"""A new forecast: asked of the compute, looked at, and stored if it may follow the last one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import dagster as dg

from modal_forecast.messages import ForecastAnswer, ForecastRequest
from serverless_assets import metadata
from serverless_assets.forecasting import growing
from serverless_assets.forecasting.calls import RecordedCalls
from serverless_assets.forecasting.checks import CheckResult, ForecastUnsound, check_forecast, failures
from serverless_assets.forecasting.compute import Answered, Compute, ComputeUsage, Size
from serverless_assets.forecasting.forecast_file import forecast_rows
from serverless_assets.forecasting.forecast_table import store_new_forecast
from serverless_assets.forecasting.record import Record, record_facts
from serverless_assets.forecasting.report import backtest_picture
from serverless_assets.forecasting.reuse import ForecastFingerprint
from serverless_assets.publishing.publisher import Publisher
from serverless_assets.run_inputs import ForecastChoice

# What of the back-test is a fact of its own, to be plotted from run to run.
SCORES = ("mase", "wape", "bias", "coverage_80", "coverage_95", "origins")


@dataclass(frozen=True)
class Making:
    """What a forecast is made with, and where it goes. `held` is what is known of the last one."""

    context: dg.AssetExecutionContext
    publisher: Publisher
    table: str
    compute: Compute
    choice: ForecastChoice
    held: Mapping[str, Any] | None

    def make(
        self, request: ForecastRequest, basis: ForecastFingerprint, reason: str
    ) -> tuple[dict[str, Any], Sequence[CheckResult]]:
        """Have the forecast computed, and store it if it is sound; its metadata, and what the checks say.

        Raises:
            ForecastUnsound: it is not, and the last one stays.
            ComputeError: there is no answer.
        """
        calls, run_id, asked = RecordedCalls(self.context), self.context.run.run_id, request.to_bytes()
        size = Size(self.choice.cpu, self.choice.memory)
        begin_with = growing.size_to_begin_with(size, self.held, self.context.log.info)
        answered, took = growing.answer(self.compute, asked, begin_with, self.context.log.info, calls)
        answer, made_at = ForecastAnswer.from_bytes(answered.content), datetime.now(UTC)
        rows = forecast_rows(answer, run_id, made_at)
        facts = {
            **forecast_facts(request, answer, size, took, self.compute, answered, run_id),
            **basis.as_facts(),
            **record_facts(rows, made_at),
        }
        details = details_in(answer.diagnostics)
        found = check_forecast(rows, facts, lambda: backtest_picture(request.history, details))
        if failures(found):
            # Asked for again, the call would give the same answer.
            if answered.call:
                calls.ended(answered.call)
            raise ForecastUnsound(found)
        record = Record(rows, facts, asked, details)
        told = store_new_forecast(self.publisher, self.table, self.choice.forecast_file, record, reason)
        if answered.call:
            calls.ended(answered.call)
        return told, found


def forecast_facts(
    request: ForecastRequest,
    answer: ForecastAnswer,
    asked: Size,
    took: Size,
    compute: Compute,
    answered: Answered,
    run_id: str,
) -> dict[str, Any]:
    """What is kept with a forecast: what was asked for, from what, on what, and what it took and cost."""
    used, told = _used(answer, answered), answer.diagnostics
    scores = told.get("backtest") or {}
    return {
        "compute": compute.name,
        "cpu": asked.cpu,
        "memory_mib": asked.memory,
        **growing.facts_of(asked, took),
        "horizon_days": request.horizon,
        "holidays": request.country,
        "data_as_of": str(request.history["ds"][-1].as_py()),
        "history_days": request.history.num_rows,
        **{name: value for name, value in told.items() if not isinstance(value, (dict, list))},
        **{f"backtest_{name}": scores[name] for name in SCORES if name in scores},
        "versions": told.get("versions"),
        **answered.facts,
        "seconds": round(answered.seconds, 3),
        "peak_memory_mib": used.peak_memory,
        **metadata.cost(compute.price(took, used)),
        "run_id": run_id,
    }


def details_in(diagnostics: Mapping[str, Any]) -> Mapping[str, Any]:
    """What is too much to be kept with a table, and is drawn in the report: the back-test and the parts."""
    return {
        name: value
        for name, value in diagnostics.items()
        if isinstance(value, (dict, list)) and name != "versions"
    }


def _used(answer: ForecastAnswer, answered: Answered) -> ComputeUsage:
    """What the worker took, by its own account and by that of whoever waited for it."""
    told = answer.diagnostics
    return ComputeUsage(
        # Whoever takes up a call that was at work before waits for less than what is charged.
        seconds=max(answered.seconds, float(told.get("seconds", 0.0))),
        cpu_seconds=float(told.get("cpu_seconds", 0.0)),
        peak_memory=max(answered.peak_memory, float(told.get("peak_memory_mib", 0.0))),
    )
