"""The forecast of each part, such as each store, scaled to the published total."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import dagster as dg
import pyarrow as pa

from modal_forecast.code_version import code_version
from modal_forecast.messages import (
    FORECAST_SCHEMA,
    ForecastAnswer,
    ForecastBatch,
    ForecastRequest,
    SeriesAnswer,
)
from modal_forecast.reconciliation import reconcile_to_total
from modal_forecast.report.formats import plural
from serverless_assets import metadata
from serverless_assets.asset_keys import asset_key
from serverless_assets.forecasting.checks import CheckResult, failures
from serverless_assets.forecasting.compute import ComputeError, Usage, memory_facts
from serverless_assets.forecasting.declaration import ForecastDeclaration, Parts
from serverless_assets.forecasting.forecast_run import ForecastRun
from serverless_assets.forecasting.history import read_history_until
from serverless_assets.forecasting.part_checks import COUNT, WEAK, check_parts, weak_parts
from serverless_assets.forecasting.part_history import (
    PartHistories,
    data_as_of,
    read_part_histories,
)
from serverless_assets.forecasting.part_report import SUM_WIDTHS, largest_parts, next_days, sum_widths
from serverless_assets.forecasting.record import FORECAST, MADE_AT, part_record, write_record
from serverless_assets.forecasting.reuse import FIRST_FORECAST, SAME_PARTS, reason_by_key
from serverless_assets.forecasting.tables import forecast_rows, forecast_schema
from serverless_assets.forecasting.total import read_forecast
from serverless_assets.hashing import digest
from serverless_assets.names import PARTS_KEY
from serverless_assets.warehouse import Warehouse


@dataclass(frozen=True)
class PartsDecision:
    """Whether to forecast the parts: `reason` says why; None reuses `rows`, those of the table.

    state: what is kept with the table, empty if there is none. checks: the results for `rows`; both are
    empty if there is another reason.
    """

    histories: PartHistories
    total: pa.Table
    history: pa.Table
    batch: ForecastBatch
    request: bytes
    key: str
    state: Mapping[str, Any]
    rows: pa.Table | None
    checks: Sequence[CheckResult]
    reason: str | None


def forecast_parts(
    run: ForecastRun, parts: Parts, rebuild_all: bool
) -> tuple[dg.MaterializeResult, Sequence[CheckResult]]:
    """Scale the parts' forecasts to the published total and store them, unless they are still those of it.

    Return what became of them, and the results of their checks. Without the answer of a call for the total
    and the same parts, the parts are a call of their own.

    Raises:
        ComputeError: there is no answer.
        ForecastUnsound: a check failed; the last forecasts stay.
        HistoryError: the relation no longer ends where the total's history ended.
    """
    warehouse, grain, noun = run.publisher.warehouse, run.declaration.time_grain, plural(parts.noun)
    with warehouse.connected():
        decision = decide_parts(run.declaration, parts, warehouse, rebuild_all)
    histories, version = decision.histories, dg.DataVersion(decision.key)
    if decision.rows is not None and decision.reason is None:
        # It may be missing after a run that was killed.
        write_record(run.publisher.artifacts, part_record(parts, decision.rows, decision.state))
        reused = metadata.outcome("reused", SAME_PARTS.format(noun), rows=decision.rows.num_rows)
        return dg.MaterializeResult(
            asset_key=asset_key(parts.asset), data_version=version, metadata=reused
        ), decision.checks
    reply = run.part_replies.get(digest(decision.request))
    if isinstance(reply, ComputeError):
        raise reply
    # Time and price of a call for both are the total's.
    seconds, cost = None, None
    if reply is None:
        reply = run.call(parts.asset, decision.request, decision.state)
        seconds = reply.answered.seconds
        cost = run.compute.price(reply.used, Usage(seconds, 0.0, reply.answered.peak_memory))
    reconciled = adding_up_to(decision.total, decision.history, decision.batch, reply.batch.answers)
    made_at, run_id = datetime.now(UTC), run.context.run.run_id
    rows = forecast_rows(
        [reconciled[id].forecast for id in histories.ids],
        run_id,
        made_at.date(),
        {parts.id: histories.ids, parts.name: histories.names},
    )
    widths = sum_widths(reconciled)
    state = {
        PARTS_KEY: decision.key,
        FORECAST: run.declaration.name,
        MADE_AT: f"{made_at:%Y-%m-%dT%H:%M:%SZ}",
        "run_id": run_id,
        "grain": grain.name,
        "data_as_of": data_as_of(decision.total).isoformat(),
        COUNT: len(histories.ids),
        WEAK: weak_parts(parts, histories, reconciled),
        SUM_WIDTHS: widths,
        **memory_facts(run.requested, reply.used),
    }
    checks = check_parts(run.declaration, parts, rows, decision.total, state)
    loaded = run.store(parts.asset, part_record(parts, rows, state), rows, checks, reply)
    largest = largest_parts(parts, histories, rows, decision.total, widths)
    result: dg.MaterializeResult = dg.MaterializeResult(
        asset_key=asset_key(parts.asset),
        data_version=version,
        metadata={
            **metadata.outcome("built", decision.reason or "", rows=rows.num_rows, seconds=seconds),
            noun: len(histories.ids),
            f"next_{grain.windows[1]}_{grain.plural}": next_days(run.declaration, parts, largest),
            **loaded,
            # Both to compute the forecasts and to load their rows.
            **metadata.cost(cost, loaded.get(metadata.COST_USD)),
            **metadata.with_links(reply.answered.facts),
        },
    )
    return result, checks


def decide_parts(
    declaration: ForecastDeclaration, parts: Parts, warehouse: Warehouse, rebuild_all: bool
) -> PartsDecision:
    """Decide whether to forecast the parts of the total in the warehouse.

    Raises:
        HistoryError: the relation no longer ends where the total's history ended.
    """
    total = read_forecast(declaration, warehouse)
    # Up to the total's last day and not to today, so that a run at midnight uses the same days for both.
    history = read_history_until(declaration, warehouse, data_as_of(total))
    histories = read_part_histories(declaration, parts, warehouse, history)
    state = warehouse.read_state(parts.asset) if parts.asset in warehouse.tables() else None
    batch = histories.request(declaration, total.num_rows)
    request = batch.to_bytes()
    values = repr(total.drop_columns(["forecast_run", "forecast_made_on"]).to_pydict()).encode()
    columns = forecast_schema(parts.columns).to_string().encode()
    key = digest(b"\n".join([code_version().encode(), columns, request, values]))
    noun = plural(parts.noun)
    first, changed = f"{FIRST_FORECAST} of {noun}", f"new total, {noun} or code"
    reason = reason_by_key(state, PARTS_KEY, key, first, changed, rebuild_all)
    rows: pa.Table | None = None
    checks: Sequence[CheckResult] = ()
    if state is not None and reason is None:
        rows = warehouse.read_rows(parts.asset)
        checks = check_parts(declaration, parts, rows, total, state)
        # Rows that were changed by hand and fail a check are replaced.
        reason = failures(checks)
    return PartsDecision(histories, total, history, batch, request, key, state or {}, rows, checks, reason)


def stored_part_checks(run: ForecastRun, parts: Parts) -> Sequence[CheckResult]:
    """Return the results of the checks for the table of parts; none if there is none, or no total."""
    declaration, warehouse = run.declaration, run.publisher.warehouse
    with warehouse.connected():
        if not {parts.asset, declaration.table} <= warehouse.tables():
            return ()
        state, total = warehouse.read_state(parts.asset), read_forecast(declaration, warehouse)
        # Version 0.1.0 kept nothing to check by.
        if COUNT not in state:
            return ()
        return check_parts(declaration, parts, warehouse.read_rows(parts.asset), total, state)


def adding_up_to(
    total: pa.Table, history: pa.Table, batch: ForecastBatch, answers: Mapping[str, SeriesAnswer]
) -> Mapping[str, ForecastAnswer]:
    """Return the parts' forecasts scaled to add up to `total`, the published forecast, which stays as it is.

    total: rows of FORECAST_SCHEMA, as many as the batch's horizon, after the last day of `history` (ds, y).
    """
    whole = ForecastRequest(history, total.num_rows, batch.country, batch.model, batch.grain)
    published = ForecastAnswer(total.select(FORECAST_SCHEMA.names))
    return reconcile_to_total(whole, published, batch.requests, answers)
