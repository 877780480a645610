"""The forecast of each part, such as each store, scaled to the published total."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

import dagster as dg
import numpy as np
import pyarrow as pa

from modal_forecast.code_version import code_version
from modal_forecast.messages import (
    FORECAST_SCHEMA,
    BatchAnswer,
    ForecastAnswer,
    ForecastBatch,
    ForecastRequest,
)
from modal_forecast.reconciliation import Answers, reconcile_to_total
from modal_forecast.report.formats import plural
from serverless_assets import metadata
from serverless_assets.asset_keys import asset_key
from serverless_assets.forecasting.checks import CheckResult, ForecastUnsound, failures
from serverless_assets.forecasting.compute import Usage, memory_facts
from serverless_assets.forecasting.declaration import ForecastDeclaration, Parts
from serverless_assets.forecasting.forecast_file import describe_columns
from serverless_assets.forecasting.forecast_table import read_forecast
from serverless_assets.forecasting.history import read_history_until
from serverless_assets.forecasting.part_checks import COUNT, WEAK, check_parts, weak_parts
from serverless_assets.forecasting.part_history import PartHistory, data_as_of, read_part_histories
from serverless_assets.forecasting.part_report import largest_parts, next_days
from serverless_assets.forecasting.record import FORECAST, MADE_AT, write_part_record
from serverless_assets.forecasting.reuse import reason_by_key
from serverless_assets.forecasting.run_forecast import ForecastRun, PartAnswers
from serverless_assets.hashing import digest
from serverless_assets.names import PARTS_KEY
from serverless_assets.warehouse import TableShape, Warehouse

UNCHANGED = "unchanged: same total, {} and code"


def part_schema(parts: Parts) -> pa.Schema:
    """Return the columns of the table of parts."""
    run = [("forecast_run", pa.string()), ("forecast_made_on", pa.date32())]
    return pa.schema([*run, *parts.columns, *FORECAST_SCHEMA])


def describe_parts(declaration: ForecastDeclaration, parts: Parts) -> tuple[str, Mapping[str, str]]:
    """Return the descriptions of the table of parts and of its columns."""
    grain = declaration.time_grain
    columns = {
        **describe_columns(declaration),
        parts.name: f"The name of the {parts.noun}.",
        parts.id: f"The {parts.noun}.",
    }
    return (
        f"The forecast of each {parts.noun}, with 80% and 95% bounds; {grain.preposition} every {grain.name} "
        "they add up to the total.",
        columns,
    )


@dataclass(frozen=True)
class PartsDecision:
    """Whether to forecast the parts: `reason` says why; None reuses `rows`, those of the table.

    state: what is kept with the table, empty if there is none. checks: the results for `rows`; both are
    empty if there is another reason.
    """

    parts: list[PartHistory]
    total: pa.Table
    history: pa.Table
    batch: ForecastBatch
    request: bytes
    key: str
    state: Mapping[str, Any]
    rows: pa.Table | None
    checks: Sequence[CheckResult]
    reason: str | None


def read_parts(
    declaration: ForecastDeclaration, parts: Parts, warehouse: Warehouse, history: pa.Table
) -> tuple[list[PartHistory], Mapping[str, Any] | None]:
    """Return the parts, and what is kept with the table of their last forecasts; None if there is none.

    history: of all parts, ds and y.
    """
    state = warehouse.read_state(parts.asset) if parts.asset in warehouse.tables() else None
    return read_part_histories(declaration, parts, warehouse, history), state


def forecast_parts(
    run: ForecastRun, parts: Parts, part_answers: PartAnswers | None, rebuild_all: bool
) -> tuple[dg.MaterializeResult, Sequence[CheckResult]]:
    """Scale the parts' forecasts to the published total and store them, unless they are still those of it.

    Return what became of them, and the results of their checks.

    part_answers: from the call for the total and the parts; without, the parts are a call of their own.

    Raises:
        ComputeError: there is no answer.
        ForecastUnsound: a check failed; the last forecasts stay.
        HistoryError: the relation no longer ends where the total's history ended.
    """
    publisher, compute, grain = run.publisher, run.compute, run.declaration.time_grain
    warehouse = publisher.warehouse
    with warehouse.connected():
        decision = decide_parts(run.declaration, parts, warehouse, rebuild_all)
    version = dg.DataVersion(decision.key)
    if decision.rows is not None and decision.reason is None:
        # It may be missing after a run that was killed.
        write_part_record(publisher.artifacts, parts, decision.rows, decision.state)
        reason = UNCHANGED.format(plural(parts.noun))
        reused = metadata.outcome("reused", reason, rows=decision.rows.num_rows)
        return dg.MaterializeResult(
            asset_key=asset_key(parts.asset), data_version=version, metadata=reused
        ), decision.checks
    answered = None
    if part_answers is not None and part_answers.batch.to_bytes() == decision.request:
        if part_answers.error:
            raise part_answers.error
        answers, facts, memory = part_answers.answers, part_answers.facts, part_answers.memory
        # Time and price of the call are the total's.
        seconds, cost = None, None
    else:
        answered, used_size = run.call(parts.asset, decision.request, decision.state)
        answers, facts = BatchAnswer.from_bytes(answered.content).answers, answered.facts
        memory, seconds = memory_facts(run.requested, used_size), answered.seconds
        cost = compute.price(used_size, Usage(answered.seconds, 0.0, answered.peak_memory))
    reconciled = adding_up_to(decision.total, decision.history, decision.batch, answers)
    made_at, run_id = datetime.now(UTC), run.context.run.run_id
    rows = part_rows(parts, decision.parts, reconciled, run_id, made_at.date())
    state = {
        PARTS_KEY: decision.key,
        FORECAST: run.declaration.name,
        MADE_AT: f"{made_at:%Y-%m-%dT%H:%M:%SZ}",
        "run_id": run_id,
        "grain": grain.name,
        "data_as_of": data_as_of(decision.total).isoformat(),
        COUNT: len(decision.parts),
        WEAK: weak_parts(decision.parts, reconciled),
        **memory,
    }
    checks = check_parts(run.declaration, parts, rows, decision.total, state)
    if failures(checks):
        if answered:
            # Asked for again, the call would give the same answer.
            run.end_call(parts.asset, answered)
        raise ForecastUnsound(checks)
    shape = TableShape(parts.asset, rows.schema, describe_parts(run.declaration, parts)[0])
    work = warehouse.replace_rows(shape, rows, state)
    write_part_record(publisher.artifacts, parts, rows, state)
    if answered:
        run.end_call(parts.asset, answered)
    loaded = metadata.job_metadata(work, warehouse)
    result: dg.MaterializeResult = dg.MaterializeResult(
        asset_key=asset_key(parts.asset),
        data_version=version,
        metadata={
            **metadata.outcome("built", decision.reason or "", rows=rows.num_rows, seconds=seconds),
            plural(parts.noun): len(decision.parts),
            f"next_{grain.windows[1]}_{grain.plural}": next_days(
                run.declaration,
                parts,
                largest_parts(parts, decision.parts, decision.history, rows, decision.total),
            ),
            **loaded,
            # Both to compute the forecasts and to load their rows.
            **metadata.cost(cost, loaded.get(metadata.COST_USD)),
            **metadata.with_links(facts),
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
    histories, state = read_parts(declaration, parts, warehouse, history)
    batch = batch_of(declaration, histories, total.num_rows)
    request = batch.to_bytes()
    values = repr(total.drop_columns(["forecast_run", "forecast_made_on"]).to_pydict()).encode()
    columns = part_schema(parts).to_string().encode()
    key = digest(b"\n".join([code_version().encode(), columns, request, values]))
    noun = plural(parts.noun)
    first, changed = f"first forecast of {noun}", f"new total, {noun} or code"
    reason = reason_by_key(state, PARTS_KEY, key, first, changed, rebuild_all)
    rows: pa.Table | None = None
    checks: Sequence[CheckResult] = ()
    if state is not None and reason is None:
        rows = warehouse.read_rows(parts.asset)
        checks = check_parts(declaration, parts, rows, total, state)
        # Rows that were changed by hand and fail a check are replaced.
        reason = failures(checks)
    return PartsDecision(histories, total, history, batch, request, key, state or {}, rows, checks, reason)


def stored_part_checks(
    declaration: ForecastDeclaration, parts: Parts, warehouse: Warehouse
) -> Sequence[CheckResult]:
    """Return the results of the checks for the table of parts; none if there is none, or no total."""
    if not {parts.asset, declaration.table} <= warehouse.tables():
        return ()
    state, total = warehouse.read_state(parts.asset), read_forecast(declaration, warehouse)
    # Earlier versions kept nothing to check by.
    if COUNT not in state:
        return ()
    return check_parts(declaration, parts, warehouse.read_rows(parts.asset), total, state)


def batch_of(declaration: ForecastDeclaration, parts: list[PartHistory], horizon: int) -> ForecastBatch:
    """Return the request to the worker, with each part as a series."""
    histories = {part.id: part.history for part in parts}
    return ForecastBatch(histories, horizon, declaration.country, declaration.method, declaration.grain)


def adding_up_to(
    total: pa.Table, history: pa.Table, batch: ForecastBatch, answers: Answers
) -> Mapping[str, ForecastAnswer]:
    """Return the parts' forecasts scaled to add up to `total`, the published forecast, which stays as it is.

    total: rows of FORECAST_SCHEMA, as many as the batch's horizon, after the last day of `history` (ds, y).
    """
    whole = ForecastRequest(history, total.num_rows, batch.country, batch.model, batch.grain)
    published = ForecastAnswer(total.select(FORECAST_SCHEMA.names))
    return reconcile_to_total(whole, published, batch.requests, answers)


def part_rows(
    parts: Parts,
    histories: list[PartHistory],
    answers: Mapping[str, ForecastAnswer],
    run_id: str,
    made_on: date,
) -> pa.Table:
    """Return the rows of part_schema(), part by part."""
    forecasts = [answers[part.id].forecast for part in histories]
    counts = [forecast.num_rows for forecast in forecasts]
    of_part = pa.array(np.repeat(np.arange(len(histories)), counts))
    ids, names = (
        pa.array(texts, pa.string()).take(of_part)
        for texts in ([part.id for part in histories], [part.name for part in histories])
    )
    columns = {
        "forecast_run": pa.repeat(pa.scalar(run_id, pa.string()), sum(counts)),
        "forecast_made_on": pa.repeat(pa.scalar(made_on, pa.date32()), sum(counts)),
        parts.id: ids,
        parts.name: names,
        **dict(zip(FORECAST_SCHEMA.names, pa.concat_tables(forecasts).columns, strict=True)),
    }
    return pa.table(columns, schema=part_schema(parts))
