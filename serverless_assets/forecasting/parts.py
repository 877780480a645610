"""The forecast of each part, such as each store, scaled to the published total."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, timedelta
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
from modal_forecast.reconciliation import Answers, align_to_total, reconcile_to_total
from modal_forecast.report.formats import plural
from serverless_assets import metadata
from serverless_assets.forecasting.compute import Usage
from serverless_assets.forecasting.declaration import ForecastDeclaration, Parts
from serverless_assets.forecasting.forecast_file import describe_columns
from serverless_assets.forecasting.forecast_table import read_forecast
from serverless_assets.forecasting.history import (
    HistoryError,
    daily_total,
    isolated,
    query_history,
    read_history_until,
)
from serverless_assets.forecasting.memory_retry import memory_facts
from serverless_assets.forecasting.reuse import reason_to_forecast_parts
from serverless_assets.forecasting.run_forecast import TOTAL, ForecastRun, PartAnswers
from serverless_assets.hashing import digest
from serverless_assets.transformation.relation_states import PARTS_KEY
from serverless_assets.warehouse import TableShape, Warehouse

UNCHANGED = "unchanged: same total, {} and code"
DAYS_SUMMED = 30


def part_schema(parts: Parts) -> pa.Schema:
    """Return the columns of the table of parts."""
    names = [(name, pa.string()) for name in ("forecast_run", parts.id, parts.name)]
    return pa.schema([*names, *FORECAST_SCHEMA])


def describe_parts(declaration: ForecastDeclaration, parts: Parts) -> tuple[str, Mapping[str, str]]:
    """Return the descriptions of the table of parts and of its columns."""
    columns = {
        **describe_columns(declaration),
        parts.id: f"The {parts.noun}.",
        parts.name: f"The name of the {parts.noun}.",
    }
    return (
        f"The forecast of each {parts.noun}, with 80% and 95% bounds; on every day they add up to the total.",
        columns,
    )


@dataclass(frozen=True)
class PartHistory:
    """The daily values of a part: ds date32 and y float64, from its first day to the total's last one."""

    id: str
    name: str
    history: pa.Table


@dataclass(frozen=True)
class PartsDecision:
    """Whether to forecast the parts: `reason` says why; None reuses the table.

    state: what is kept with the table, empty if there is none.
    """

    parts: list[PartHistory]
    total: pa.Table
    history: pa.Table
    batch: ForecastBatch
    request: bytes
    key: str
    state: Mapping[str, Any]
    reason: str | None


def read_parts(
    declaration: ForecastDeclaration, parts: Parts, warehouse: Warehouse, history: pa.Table
) -> tuple[list[PartHistory], Mapping[str, Any] | None]:
    """Return the parts, and what is kept with the table of their last forecasts; None if there is none.

    history: of all parts, ds and y.
    """
    state = warehouse.read_state(parts.asset) if parts.asset in warehouse.tables() else None
    return parts_in(_part_totals(declaration, parts, warehouse), history), state


def forecast_parts(
    run: ForecastRun, parts: Parts, part_answers: PartAnswers | None, rebuild_all: bool
) -> dg.MaterializeResult:
    """Scale the parts' forecasts to the published total and store them, unless they are still those of it.

    part_answers: from the call for the total and the parts; without, the parts are a call of their own.

    Raises:
        ComputeError: there is no answer.
        HistoryError: the relation no longer ends where the total's history ended.
    """
    warehouse, compute = run.publisher.warehouse, run.compute
    with warehouse.connected():
        decision = decide_parts(run.declaration, parts, warehouse, rebuild_all)
        reused_rows = warehouse.row_count(parts.asset) if decision.reason is None else 0
    version = dg.DataVersion(decision.key)
    if decision.reason is None:
        reused = metadata.outcome("reused", UNCHANGED.format(plural(parts.noun)), rows=reused_rows)
        return dg.MaterializeResult(asset_key=parts.asset, data_version=version, metadata=reused)
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
    rows = part_rows(parts, decision.parts, reconciled, run.context.run.run_id)
    shape = TableShape(parts.asset, rows.schema, describe_parts(run.declaration, parts)[0])
    state = {PARTS_KEY: decision.key, **memory}
    work = warehouse.replace_rows(shape, rows, state)
    if answered:
        run.end_call(parts.asset, answered)
    loaded = metadata.work(work, warehouse)
    return dg.MaterializeResult(
        asset_key=parts.asset,
        data_version=version,
        metadata={
            **metadata.outcome("built", decision.reason, rows=rows.num_rows, seconds=seconds),
            plural(parts.noun): len(decision.parts),
            "next_30_days": _sums(
                run.declaration, parts, reported_parts(run.declaration, warehouse, decision.total)
            ),
            **loaded,
            # Both to compute the forecasts and to load their rows.
            **metadata.cost(cost, loaded.get(metadata.COST_USD)),
            **metadata.facts(facts),
        },
    )


def decide_parts(
    declaration: ForecastDeclaration, parts: Parts, warehouse: Warehouse, rebuild_all: bool
) -> PartsDecision:
    """Decide whether to forecast the parts of the total in the warehouse.

    Raises:
        HistoryError: the relation no longer ends where the total's history ended.
    """
    total = read_forecast(declaration, warehouse)
    # Up to the total's last day and not to today, so that a run at midnight uses the same days for both.
    history = read_history_until(declaration, warehouse, _data_as_of(total))
    histories, state = read_parts(declaration, parts, warehouse, history)
    batch = batch_of(declaration, histories, total.num_rows)
    request = batch.to_bytes()
    values = repr(total.drop_columns(["forecast_run", "forecast_made_on"]).to_pydict()).encode()
    key = digest(b"\n".join([code_version().encode(), request, values]))
    reason = reason_to_forecast_parts(state, key, parts.noun, rebuild_all)
    return PartsDecision(histories, total, history, batch, request, key, state or {}, reason)


def parts_in(totals: pa.Table, total: pa.Table) -> list[PartHistory]:
    """Return the parts in rows of ds, id, name, y and events, by name.

    A day without a row is one on which nothing happened in the part; it has its most recent name. Days
    outside those of `total`, the history of all parts, and isolated days (history.py) are left out.
    """
    first, last = total["ds"][0].as_py(), total["ds"][-1].as_py()
    rows_by_part: dict[str, list[dict[str, Any]]] = {}
    for row in totals.sort_by("ds").to_pylist():
        if first <= row["ds"] <= last:
            rows_by_part.setdefault(row["id"], []).append(row)
    parts = []
    for id, rows in rows_by_part.items():
        days = np.array([row["ds"] for row in rows], "datetime64[D]")
        used = ~isolated(days, np.array([row["events"] for row in rows], float))
        days, values = days[used], np.array([row["y"] for row in rows], float)[used]
        if days[-1] < np.datetime64(last):
            days, values = np.append(days, np.datetime64(last)), np.append(values, 0.0)
        parts.append(PartHistory(id, rows[-1]["name"], daily_total(days, values)))
    return sorted(parts, key=lambda part: (part.name, part.id))


def batch_of(declaration: ForecastDeclaration, parts: list[PartHistory], horizon: int) -> ForecastBatch:
    """Return the request to the worker, with each part as a series."""
    histories = {part.id: part.history for part in parts}
    return ForecastBatch(histories, horizon, declaration.country, model=declaration.method)


def adding_up_to(
    total: pa.Table, history: pa.Table, batch: ForecastBatch, answers: Answers
) -> Mapping[str, ForecastAnswer]:
    """Return the parts' forecasts scaled to add up to `total`, the published forecast, which stays as it is.

    total: rows of FORECAST_SCHEMA, as many as the batch's horizon, after the last day of `history` (ds, y).
    """
    whole = ForecastRequest(history, total.num_rows, batch.country, batch.model)
    requests, changes = align_to_total({**batch.requests, TOTAL: whole}, TOTAL)
    published = ForecastAnswer(total.select(FORECAST_SCHEMA.names))
    reconciled = reconcile_to_total(requests, {**answers, TOTAL: published}, TOTAL, changes)
    return {name: answer for name, answer in reconciled.items() if name != TOTAL}


def part_rows(
    parts: Parts, histories: list[PartHistory], answers: Mapping[str, ForecastAnswer], run_id: str
) -> pa.Table:
    """Return the rows of part_schema(), part by part."""
    tables, schema = [], part_schema(parts)
    for part in histories:
        forecast = answers[part.id].forecast
        constants = [[value] * forecast.num_rows for value in (run_id, part.id, part.name)]
        tables.append(pa.table([*constants, *forecast.columns], schema=schema))
    return pa.concat_tables(tables)


def reported_parts(
    declaration: ForecastDeclaration, warehouse: Warehouse, total: pa.Table
) -> list[Mapping[str, Any]]:
    """Return name, history and forecast of each part; none if the forecasts belong to another total."""
    parts = declaration.parts
    if parts is None or parts.asset not in warehouse.tables():
        return []
    try:
        history = read_history_until(declaration, warehouse, _data_as_of(total))
    except HistoryError:
        return []
    forecasts = warehouse.read_rows(parts.asset).sort_by("ds")
    reported: list[Mapping[str, Any]] = []
    for part in parts_in(_part_totals(declaration, parts, warehouse), history):
        is_part = pa.array([id == part.id for id in forecasts[parts.id].to_pylist()])
        forecast = forecasts.filter(is_part).select(FORECAST_SCHEMA.names)
        if forecast["ds"].to_pylist() != total["ds"].to_pylist():
            return []
        reported.append({"name": part.name, "history": part.history, "forecast": forecast})
    return reported


def _data_as_of(total: pa.Table) -> date:
    """Return the last day of the history that a forecast was made from, the day before its first row."""
    first: date = min(total["ds"].to_pylist())
    return first - timedelta(days=1)


def _part_totals(declaration: ForecastDeclaration, parts: Parts, warehouse: Warehouse) -> pa.Table:
    return query_history(declaration, warehouse, {"id": parts.id, "name": parts.name})


def _sums(
    declaration: ForecastDeclaration, parts: Parts, reported: list[Mapping[str, Any]]
) -> dg.TableMetadataValue:
    """Return each part's expected total of the next days beside its total of as many days before."""
    records, unit = [], f", {declaration.unit}" if declaration.unit else ""
    for part in reported:
        ahead = part["forecast"]["yhat"].to_pylist()[:DAYS_SUMMED]
        before = part["history"]["y"].to_pylist()[-DAYS_SUMMED:]
        records.append(
            dg.TableRecord(
                {
                    parts.noun: part["name"],
                    f"next {len(ahead)} days{unit}": round(sum(ahead), 2),
                    f"last {len(before)} days{unit}": round(sum(before), 2),
                }
            )
        )
    return dg.MetadataValue.table(records)
