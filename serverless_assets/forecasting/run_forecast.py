"""Run a forecast on the compute, check it, and store it if it passes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import dagster as dg

from modal_forecast.messages import ForecastAnswer, ForecastRequest
from serverless_assets import metadata
from serverless_assets.forecasting.calls import RecordedCalls
from serverless_assets.forecasting.checks import CheckResult, ForecastUnsound, check_forecast, failures
from serverless_assets.forecasting.compute import Answered, Compute, Size, Usage
from serverless_assets.forecasting.forecast_file import forecast_rows
from serverless_assets.forecasting.forecast_table import store_new_forecast
from serverless_assets.forecasting.memory_retry import initial_size, memory_facts, run_with_memory_retry
from serverless_assets.forecasting.record import Record, record_facts
from serverless_assets.forecasting.report import backtest_picture
from serverless_assets.forecasting.reuse import ForecastFingerprint
from serverless_assets.publishing.publisher import Publisher
from serverless_assets.run_inputs import RunForecast

# The scores of the back-test that are metadata of their own, to be plotted from run to run.
SCORES = ("mase", "wape", "bias", "coverage_80", "coverage_95", "origins")


@dataclass(frozen=True)
class ForecastRun:
    """The compute and size of a forecast, and where it goes. `last` is the state of the last one."""

    context: dg.AssetExecutionContext
    publisher: Publisher
    table: str
    compute: Compute
    inputs: RunForecast
    last: Mapping[str, Any] | None

    def run(
        self, request: ForecastRequest, basis: ForecastFingerprint, reason: str
    ) -> tuple[dict[str, Any], Sequence[CheckResult]]:
        """Return the metadata of the new forecast, and the results of its checks.

        Raises:
            ForecastUnsound: a check failed; the last forecast stays.
            ComputeError: there is no answer.
        """
        calls, log, run_id = RecordedCalls(self.context), self.context.log.info, self.context.run.run_id
        requested, message = Size(self.inputs.cores, self.inputs.mib), request.to_bytes()
        size = initial_size(requested, self.last, log)
        answered, used_size = run_with_memory_retry(self.compute, message, size, log, calls)
        answer, made_at = ForecastAnswer.from_bytes(answered.content), datetime.now(UTC)
        rows = forecast_rows(answer, run_id, made_at)
        facts = {
            **forecast_facts(request, answer, requested, used_size, self.compute, answered, run_id),
            **basis.as_facts(),
            **record_facts(rows, made_at),
        }
        details = details_in(answer.diagnostics)
        checks = check_forecast(rows, facts, lambda: backtest_picture(request.history, details))
        if failures(checks):
            # Asked for again, the call would give the same answer.
            if answered.call:
                calls.ended(answered.call)
            raise ForecastUnsound(checks)
        record = Record(rows, facts, message, details)
        stored = store_new_forecast(
            self.publisher, self.table, self.inputs.names_and_colors.forecast_file, record, reason
        )
        if answered.call:
            calls.ended(answered.call)
        return stored, checks


def forecast_facts(
    request: ForecastRequest,
    answer: ForecastAnswer,
    requested: Size,
    used_size: Size,
    compute: Compute,
    answered: Answered,
    run_id: str,
) -> dict[str, Any]:
    """Return the metadata of a forecast: size, history, parameters, accuracy, usage and price."""
    usage, diagnostics = _usage(answer, answered), answer.diagnostics
    scores = diagnostics.get("backtest") or {}
    return {
        "compute": compute.name,
        "cpu": requested.cpu,
        "memory_mib": requested.memory,
        **memory_facts(requested, used_size),
        "horizon_days": request.horizon,
        "holidays": request.country,
        "data_as_of": str(request.history["ds"][-1].as_py()),
        "history_days": request.history.num_rows,
        **{name: value for name, value in diagnostics.items() if not isinstance(value, (dict, list))},
        **{f"backtest_{name}": scores[name] for name in SCORES if name in scores},
        "versions": diagnostics.get("versions"),
        **answered.facts,
        "seconds": round(answered.seconds, 3),
        "peak_memory_mib": usage.peak_memory,
        **metadata.cost(compute.price(used_size, usage)),
        "run_id": run_id,
    }


def details_in(diagnostics: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the diagnostics that are too large for metadata, for the report: back-test and components."""
    return {
        name: value
        for name, value in diagnostics.items()
        if isinstance(value, (dict, list)) and name != "versions"
    }


def _usage(answer: ForecastAnswer, answered: Answered) -> Usage:
    """The larger of what the worker measured and of what the caller measured."""
    diagnostics = answer.diagnostics
    return Usage(
        # A caller that resumes a call waits for less time than is charged.
        seconds=max(answered.seconds, float(diagnostics.get("seconds", 0.0))),
        cpu_seconds=float(diagnostics.get("cpu_seconds", 0.0)),
        peak_memory=max(answered.peak_memory, float(diagnostics.get("peak_memory_mib", 0.0))),
    )
