"""Run a forecast on the compute, check it, and store it if it passes."""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import dagster as dg

from modal_forecast.grain import GRAINS
from modal_forecast.messages import (
    BatchAnswer,
    ForecastAnswer,
    ForecastBatch,
    ForecastRefused,
    ForecastRequest,
)
from serverless_assets import metadata
from serverless_assets.forecasting.calls import RecordedCalls
from serverless_assets.forecasting.checks import CheckResult, ForecastUnsound, check_forecast, failures
from serverless_assets.forecasting.compute import (
    Answered,
    Compute,
    ComputeError,
    Size,
    Usage,
    WorkerFailed,
    initial_size,
    memory_facts,
    run_with_memory_retry,
)
from serverless_assets.forecasting.declaration import ForecastDeclaration
from serverless_assets.forecasting.forecast_file import forecast_rows
from serverless_assets.forecasting.forecast_table import ForecastDecision, store_new_forecast
from serverless_assets.forecasting.record import Record, record_facts
from serverless_assets.forecasting.report import backtest_picture
from serverless_assets.publishing.publisher import Publisher
from serverless_assets.run_inputs import RunForecast

# A worker's lines on each method, and on how far it is with many series.
DETAIL = re.compile(r"  |[\d,]+ of [\d,]+ series")
# The scores of the back-test that are metadata of their own, to be plotted from run to run.
SCORES = ("mase", "wape", "bias", "coverage_80", "coverage_95", "origins")


@dataclass(frozen=True)
class PartAnswers:
    """What the call for the total and its parts answered for the parts.

    batch: the parts as they were asked for. answers: by part; none if there is an `error` instead.
    facts: metadata of the call. memory: the memory facts of the call.
    """

    batch: ForecastBatch
    answers: Mapping[str, ForecastAnswer | ForecastRefused]
    facts: Mapping[str, Any]
    memory: Mapping[str, int]
    error: ComputeError | None = None


@dataclass(frozen=True)
class ForecastRun:
    """The compute and size of a run's forecasts, and where they go."""

    context: dg.AssetExecutionContext
    publisher: Publisher
    declaration: ForecastDeclaration
    compute: Compute
    inputs: RunForecast

    @property
    def requested(self) -> Size:
        return Size.of(self.inputs)

    def call(
        self, asset: str, request: bytes, *last_states: Mapping[str, Any] | None
    ) -> tuple[Answered, Size]:
        """Return the worker's answer and the size that it needed. The call is recorded with the asset.

        last_states: of the forecasts that were last made of what the call is for.

        Raises:
            ComputeError: there is no answer.
        """
        size = initial_size(self.requested, last_states, self.context.log.info)
        return run_with_memory_retry(self.compute, request, size, self._log_line, self._calls(asset))

    def _log_line(self, line: str) -> None:
        """Log a line of the worker; details and how far it is at a level that the UI shows if asked to."""
        (self.context.log.debug if DETAIL.match(line) else self.context.log.info)(line)

    def end_call(self, asset: str, answered: Answered) -> None:
        """Forget the call: its answer is stored, or of no use."""
        if answered.call:
            self._calls(asset).ended(answered.call)

    def _calls(self, asset: str) -> RecordedCalls:
        return RecordedCalls(self.context, asset, self.publisher.warehouse)

    def forecast_total(
        self,
        decision: ForecastDecision,
        parts: ForecastBatch | None,
        parts_state: Mapping[str, Any] | None,
    ) -> tuple[dict[str, Any], Sequence[CheckResult], PartAnswers | None]:
        """Make and store the total's forecast, in one call with those of `parts` if there are any.

        Return the metadata of the total's forecast, the results of its checks, and the parts' answers. If
        the call fails, perhaps because of a part, the total is forecast by itself.

        Raises:
            ForecastUnsound: a check failed; the last forecast stays.
            ComputeError: there is no answer.
            ForecastRefused: the total cannot be forecast.
        """
        request, part_answers = decision.request, None
        asset = self.declaration.asset
        try:
            if parts is None:
                answered, used_size = self.call(asset, request.to_bytes(), decision.state)
                answer = ForecastAnswer.from_bytes(answered.content)
            else:
                total = _name_of_total(parts.histories)
                both = replace(parts, histories={**parts.histories, total: request.history})
                answered, used_size = self.call(asset, both.to_bytes(), decision.state, parts_state)
                answer, answers = _split(BatchAnswer.from_bytes(answered.content), total)
                memory = memory_facts(self.requested, used_size)
                part_answers = PartAnswers(parts, answers, answered.facts, memory)
        except WorkerFailed as error:
            if parts is None:
                raise
            self.context.log.warning(f"{error} The total is forecast again, without the parts.")
            stored, checks, _ = self.forecast_total(decision, None, None)
            return stored, checks, PartAnswers(parts, {}, {}, {}, error)
        made_at, run_id = datetime.now(UTC), self.context.run.run_id
        rows = forecast_rows(answer, run_id, made_at)
        facts = {
            **forecast_facts(request, answer, self.requested, used_size, self.compute, answered, run_id),
            **decision.fingerprint.as_facts(),
            **record_facts(rows, made_at, self.declaration.name),
        }
        details = details_in(answer.diagnostics)
        checks = check_forecast(
            self.declaration,
            rows,
            facts,
            lambda: backtest_picture(request.history, details, GRAINS[request.grain]),
        )
        if failures(checks):
            # Asked for again, the call would give the same answer.
            self.end_call(asset, answered)
            raise ForecastUnsound(checks)
        # Of all that the worker tells, the line that a person waits for.
        if why := answer.diagnostics.get("why"):
            self.context.log.info(why)
        record = Record(rows, facts, request.to_bytes(), details)
        file = self.declaration.style_of(self.inputs).forecast_file
        stored = store_new_forecast(self.declaration, self.publisher, file, record, str(decision.reason))
        self.end_call(asset, answered)
        return stored, checks, part_answers


def _name_of_total(parts: Collection[str]) -> str:
    """Return a name for the total beside the series of the parts, which none of them has as its id."""
    name = "total"
    while name in parts:
        name += "_"
    return name


def _split(
    batch: BatchAnswer, name_of_total: str
) -> tuple[ForecastAnswer, Mapping[str, ForecastAnswer | ForecastRefused]]:
    """Return the total's answer, with the diagnostics of the call, and those of the parts.

    Raises:
        ForecastRefused: the total cannot be forecast.
    """
    answers = dict(batch.answers)
    total = answers.pop(name_of_total)
    if isinstance(total, ForecastRefused):
        raise total
    return replace(total, diagnostics={**total.diagnostics, **batch.diagnostics}), answers


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
    diagnostics, grain = answer.diagnostics, GRAINS[request.grain]
    # The larger of what the worker measured and of what the caller measured.
    usage = Usage(
        # A caller that resumes a call waits for less time than is charged.
        seconds=max(answered.seconds, float(diagnostics.get("seconds", 0.0))),
        cpu_seconds=float(diagnostics.get("cpu_seconds", 0.0)),
        peak_memory=max(answered.peak_memory, float(diagnostics.get("peak_memory_mib", 0.0))),
    )
    scores = diagnostics.get("backtest") or {}
    return {
        "compute": compute.name,
        "cpu": requested.cpu,
        "memory_mib": requested.memory,
        **memory_facts(requested, used_size),
        f"horizon_{grain.plural}": request.horizon,
        "holidays": request.country,
        "data_as_of": str(grain.last_day(request.history["ds"][-1].as_py())),
        f"history_{grain.plural}": request.history.num_rows,
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
