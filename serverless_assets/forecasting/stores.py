"""The rows of `store_forecast`: a forecast of each store, scaled to the published total."""

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
from serverless_assets import metadata
from serverless_assets.forecasting import forecast_file
from serverless_assets.forecasting.compute import Usage
from serverless_assets.forecasting.forecast_table import read_forecast
from serverless_assets.forecasting.history import (
    COUNTRY,
    HistoryError,
    daily_total,
    isolated,
    read_history_until,
)
from serverless_assets.forecasting.memory_retry import memory_facts
from serverless_assets.forecasting.reuse import STORES_KEY, reason_to_forecast_stores
from serverless_assets.forecasting.run_forecast import TOTAL, ForecastRun, StoreAnswers
from serverless_assets.hashing import digest
from serverless_assets.names import REVENUE, STORE_FORECAST
from serverless_assets.warehouse import TableShape, Warehouse

DESCRIPTION = (
    "The forecast of each store, with 80% and 95% bounds; on every day the stores add up to the total."
)
SCHEMA = pa.schema(
    [
        ("forecast_run", pa.string()),
        ("location_id", pa.string()),
        ("location_name", pa.string()),
        *FORECAST_SCHEMA,
    ]
)
DESCRIPTIONS = {
    **forecast_file.DESCRIPTIONS,
    "location_id": "The store.",
    "location_name": "Its name, which is its city.",
}
UNCHANGED = "unchanged: same total, stores and code"
DAYS_SUMMED = 30


@dataclass(frozen=True)
class StoreHistory:
    """The daily revenue of a store: ds date32 and y float64, from its first sale to the total's last day."""

    id: str
    name: str
    history: pa.Table


@dataclass(frozen=True)
class StoreDecision:
    """Whether to forecast the stores: `reason` says why; None reuses the table.

    state: what is kept with the table, empty if there is none.
    """

    stores: list[StoreHistory]
    total: pa.Table
    history: pa.Table
    batch: ForecastBatch
    request: bytes
    key: str
    state: Mapping[str, Any]
    reason: str | None


def read_stores(
    warehouse: Warehouse, history: pa.Table
) -> tuple[list[StoreHistory], Mapping[str, Any] | None]:
    """Return the stores, and what is kept with the table of their last forecasts; None if there is none.

    history: of all stores, ds and y.
    """
    state = warehouse.read_state(STORE_FORECAST) if STORE_FORECAST in warehouse.tables() else None
    return stores_in(_revenue(warehouse), history), state


def forecast_stores(
    run: ForecastRun, store_answers: StoreAnswers | None, rebuild_all: bool
) -> dg.MaterializeResult:
    """Scale the stores' forecasts to the published total and store them, unless they are still those of it.

    store_answers: from the call for the total and the stores; without, the stores are a call of their own.

    Raises:
        ComputeError: there is no answer.
        HistoryError: daily_revenue no longer ends where the total's history ended.
    """
    warehouse, compute = run.publisher.warehouse, run.compute
    with warehouse.connected():
        decision = decide_stores(warehouse, run.table, rebuild_all)
        reused_rows = warehouse.row_count(STORE_FORECAST) if decision.reason is None else 0
    version = dg.DataVersion(decision.key)
    if decision.reason is None:
        reused = metadata.outcome("reused", UNCHANGED, rows=reused_rows)
        return dg.MaterializeResult(asset_key=STORE_FORECAST, data_version=version, metadata=reused)
    answered = None
    if store_answers is not None and store_answers.batch.to_bytes() == decision.request:
        if store_answers.error:
            raise store_answers.error
        answers, facts, memory = store_answers.answers, store_answers.facts, store_answers.memory
        # Time and price of the call are the total's.
        seconds, cost = None, None
    else:
        answered, used_size = run.call(STORE_FORECAST, decision.request, decision.state)
        answers, facts = BatchAnswer.from_bytes(answered.content).answers, answered.facts
        memory, seconds = memory_facts(run.requested, used_size), answered.seconds
        cost = compute.price(used_size, Usage(answered.seconds, 0.0, answered.peak_memory))
    reconciled = adding_up_to(decision.total, decision.history, decision.batch, answers)
    rows = store_rows(decision.stores, reconciled, run.context.run.run_id)
    state = {STORES_KEY: decision.key, **memory}
    work = warehouse.replace_rows(TableShape(STORE_FORECAST, SCHEMA, DESCRIPTION), rows, state)
    if answered:
        run.end_call(STORE_FORECAST, answered)
    loaded = metadata.work(work, warehouse)
    return dg.MaterializeResult(
        asset_key=STORE_FORECAST,
        data_version=version,
        metadata={
            **metadata.outcome("built", decision.reason, rows=rows.num_rows, seconds=seconds),
            "stores": len(decision.stores),
            "next_30_days": _sums(reported_stores(warehouse, decision.total)),
            **loaded,
            # Both to compute the forecasts and to load their rows.
            **metadata.cost(cost, loaded.get(metadata.COST_USD)),
            **metadata.facts(facts),
        },
    )


def decide_stores(warehouse: Warehouse, forecast_table: str, rebuild_all: bool) -> StoreDecision:
    """Decide whether to forecast the stores of the total in `forecast_table`.

    Raises:
        HistoryError: daily_revenue no longer ends where the total's history ended.
    """
    total = read_forecast(warehouse, forecast_table)
    # Up to the total's last day and not to today, so that a run at midnight uses the same days for both.
    history = read_history_until(warehouse, _data_as_of(total))
    stores, state = read_stores(warehouse, history)
    batch = batch_of(stores, total.num_rows, COUNTRY)
    request = batch.to_bytes()
    values = repr(total.drop_columns(["forecast_run", "forecast_made_on"]).to_pydict()).encode()
    key = digest(b"\n".join([code_version().encode(), request, values]))
    reason = reason_to_forecast_stores(state, key, rebuild_all)
    return StoreDecision(stores, total, history, batch, request, key, state or {}, reason)


def stores_in(revenue: pa.Table, total: pa.Table) -> list[StoreHistory]:
    """Return the stores in rows of daily_revenue (ds, location_id, location_name, y, orders), by name.

    A day without a row is one on which the store sold nothing; a store has its most recent name. Days outside
    those of `total`, the history of all stores, and isolated days (history.py) are left out.
    """
    first, last = total["ds"][0].as_py(), total["ds"][-1].as_py()
    rows_by_store: dict[str, list[dict[str, Any]]] = {}
    for row in revenue.sort_by("ds").to_pylist():
        if first <= row["ds"] <= last:
            rows_by_store.setdefault(row["location_id"], []).append(row)
    stores = []
    for id, rows in rows_by_store.items():
        days = np.array([row["ds"] for row in rows], "datetime64[D]")
        used = ~isolated(days, np.array([row["orders"] for row in rows], float))
        days, values = days[used], np.array([row["y"] for row in rows], float)[used]
        if days[-1] < np.datetime64(last):
            days, values = np.append(days, np.datetime64(last)), np.append(values, 0.0)
        stores.append(StoreHistory(id, rows[-1]["location_name"], daily_total(days, values)))
    return sorted(stores, key=lambda store: (store.name, store.id))


def batch_of(stores: list[StoreHistory], horizon: int, country: str | None) -> ForecastBatch:
    """Return the request to the worker, with each store as a series."""
    return ForecastBatch({store.id: store.history for store in stores}, horizon, country)


def adding_up_to(
    total: pa.Table, history: pa.Table, batch: ForecastBatch, answers: Answers
) -> Mapping[str, ForecastAnswer]:
    """Return the stores' forecasts scaled to add up to `total`, the published forecast, which stays as it is.

    total: rows of FORECAST_SCHEMA, as many as the batch's horizon, after the last day of `history` (ds, y).
    """
    whole = ForecastRequest(history, total.num_rows, batch.country)
    requests, changes = align_to_total({**batch.requests, TOTAL: whole}, TOTAL)
    published = ForecastAnswer(total.select(FORECAST_SCHEMA.names))
    reconciled = reconcile_to_total(requests, {**answers, TOTAL: published}, TOTAL, changes)
    return {name: answer for name, answer in reconciled.items() if name != TOTAL}


def store_rows(stores: list[StoreHistory], answers: Mapping[str, ForecastAnswer], run_id: str) -> pa.Table:
    """Return the rows of SCHEMA, store by store."""
    tables = []
    for store in stores:
        forecast = answers[store.id].forecast
        constants = [[value] * forecast.num_rows for value in (run_id, store.id, store.name)]
        tables.append(pa.table([*constants, *forecast.columns], schema=SCHEMA))
    return pa.concat_tables(tables)


def reported_stores(warehouse: Warehouse, total: pa.Table) -> list[Mapping[str, Any]]:
    """Return name, history and forecast of each store; none if the forecasts belong to another total."""
    if STORE_FORECAST not in warehouse.tables():
        return []
    try:
        history = read_history_until(warehouse, _data_as_of(total))
    except HistoryError:
        return []
    forecasts = warehouse.query(f"select * from {warehouse.quoted_name(STORE_FORECAST)} order by ds")
    reported: list[Mapping[str, Any]] = []
    for store in stores_in(_revenue(warehouse), history):
        is_store = pa.array([id == store.id for id in forecasts["location_id"].to_pylist()])
        forecast = forecasts.filter(is_store).select(FORECAST_SCHEMA.names)
        if forecast["ds"].to_pylist() != total["ds"].to_pylist():
            return []
        reported.append({"name": store.name, "history": store.history, "forecast": forecast})
    return reported


def _data_as_of(total: pa.Table) -> date:
    """Return the last day of the history that a forecast was made from, the day before its first row."""
    first: date = min(total["ds"].to_pylist())
    return first - timedelta(days=1)


def _revenue(warehouse: Warehouse) -> pa.Table:
    return warehouse.query(
        "select ds, location_id, location_name, sum(revenue_usd) as y, sum(nr_orders) as orders"
        f" from {warehouse.quoted_name(REVENUE)} group by ds, location_id, location_name"
    )


def _sums(stores: list[Mapping[str, Any]]) -> dg.TableMetadataValue:
    """Return each store's expected revenue of the next days beside its revenue of as many days before."""
    records = []
    for store in stores:
        ahead = store["forecast"]["yhat"].to_pylist()[:DAYS_SUMMED]
        before = store["history"]["y"].to_pylist()[-DAYS_SUMMED:]
        records.append(
            dg.TableRecord(
                {
                    "store": store["name"],
                    f"next {len(ahead)} days, USD": round(sum(ahead), 2),
                    f"last {len(before)} days, USD": round(sum(before), 2),
                }
            )
        )
    return dg.MetadataValue.table(records)
