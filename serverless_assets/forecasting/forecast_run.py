"""`ForecastRun`: ask the worker for forecasts, and store those that pass their checks.

Remote calls in flight are kept in the warehouse, where a run in a fresh container finds them.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import dagster as dg
import pyarrow as pa

from modal_forecast.grain import GRAINS
from modal_forecast.messages import BatchAnswer, ForecastAnswer, ForecastRequest
from serverless_assets import metadata
from serverless_assets.forecasting.checks import CheckResult, ForecastUnsound, failures
from serverless_assets.forecasting.compute import (
    Answered,
    Call,
    Calls,
    Compute,
    ComputeError,
    Size,
    Usage,
    initial_size,
    memory_facts,
    run_with_memory_retry,
)
from serverless_assets.forecasting.declaration import ForecastDeclaration
from serverless_assets.forecasting.record import Record, write_record
from serverless_assets.forecasting.tables import SCORES, tables_of
from serverless_assets.publishing.outcome import SKIPPED_AS_ASKED
from serverless_assets.publishing.publisher import Publisher
from serverless_assets.run_inputs import RunForecast
from serverless_assets.warehouse import Warehouse

# The record of the warehouse that holds, by asset, the key, id and link of its last call.
CALLS_RECORD = "calls_in_flight"
# A worker's lines on each method, and on how far it is with many series.
DETAIL = re.compile(r"  |[\d,]+ of [\d,]+ series")


@dataclass(frozen=True)
class RecordedCalls(Calls):
    """`Calls` for an asset that is being materialized: one at a time, the last one that was started."""

    context: dg.AssetExecutionContext
    asset: str
    warehouse: Warehouse

    def in_flight(self, key: str) -> Call | None:
        call = self.warehouse.read_record(CALLS_RECORD).get(self.asset)
        return Call(**call) if call and call["key"] == key else None

    def started(self, call: Call) -> None:
        calls = self.warehouse.read_record(CALLS_RECORD)
        self.warehouse.write_record(CALLS_RECORD, {**calls, self.asset: asdict(call)})
        # For people, who find the call in the UI.
        self.context.log_event(
            dg.AssetObservation(
                self.asset,
                description=f"Remote call {call.id} started.",
                metadata={"call_id": call.id, "call_link": dg.MetadataValue.url(call.link)},
            )
        )

    def ended(self, call: Call) -> None:
        calls = dict(self.warehouse.read_record(CALLS_RECORD))
        if calls.get(self.asset) == asdict(call):
            del calls[self.asset]
            self.warehouse.write_record(CALLS_RECORD, calls)


@dataclass(frozen=True)
class ForecastRun:
    """The compute and size of a run's forecasts, and where they go.

    part_replies: what a call for the total and its parts brought for the parts, by the digest of the request
        for them alone.
    """

    context: dg.AssetExecutionContext
    publisher: Publisher
    declaration: ForecastDeclaration
    compute: Compute
    inputs: RunForecast
    part_replies: dict[str, "Reply | ComputeError"] = field(default_factory=dict)

    @property
    def requested(self) -> Size:
        return Size.of(self.inputs)

    def call(self, asset: str, request: bytes, *last_states: Mapping[str, Any] | None) -> "Reply":
        """Send the request of a batch to the worker. The call is recorded until its reply ends.

        last_states: of the forecasts that were last made of what the call is for.

        Raises:
            ComputeError: there is no answer.
        """
        log, calls = self.context.log, RecordedCalls(self.context, asset, self.publisher.warehouse)

        def log_line(line: str) -> None:
            # Details and progress are at a level that the UI shows if asked to.
            (log.debug if DETAIL.match(line) else log.info)(line)

        size = initial_size(self.requested, last_states, log.info)
        answered, used = run_with_memory_retry(self.compute, request, size, log_line, calls)
        return Reply(BatchAnswer.from_bytes(answered.content), answered, used, calls)

    def store(
        self, asset: str, record: Record, rows: pa.Table, checks: Sequence[CheckResult], reply: "Reply"
    ) -> Mapping[str, Any]:
        """Store new forecasts, their table first, and return the metadata of loading it.

        Args:
            rows: of the table. record: with the facts to keep with it.
            checks: the results for the rows.
            reply: from the call, which ends with this.

        Raises:
            ForecastUnsound: a check failed; nothing is stored.
        """
        if failures(checks):
            # Asked for again, the call would give the same answer.
            reply.end()
            raise ForecastUnsound(checks)
        shape, _ = tables_of(self.declaration)[asset]
        work = self.publisher.warehouse.replace_rows(shape, rows, record.facts)
        write_record(self.publisher.artifacts, record)
        reply.end()
        return metadata.job_metadata(work, self.publisher.warehouse)


@dataclass(frozen=True)
class Reply:
    """The answer of a call, the size that it needed, and where the call is recorded."""

    batch: BatchAnswer
    answered: Answered
    used: Size
    calls: Calls

    def end(self) -> None:
        """Forget the call: its answer is stored, or of no use."""
        if self.answered.call:
            self.calls.ended(self.answered.call)


def log_skipped(context: dg.AssetExecutionContext) -> None:
    """Log that the assets of a step are skipped, and record it of each."""
    context.log.info("Skipped as asked: the last forecast stays as it is.")
    for key in context.selected_asset_keys:
        context.log_event(metadata.not_built(key, "skipped", SKIPPED_AS_ASKED))


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
        # Each is metadata of its own, to be plotted from run to run.
        **{f"backtest_{name}": scores[name] for name in (*SCORES, "origins") if name in scores},
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
