"""The forecast of each store: all of them in one call, made to add up to the published total. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from modal_forecast.messages import FORECAST_SCHEMA, ForecastAnswer, ForecastBatch, ForecastRequest
from modal_forecast.reconciliation import Answers, align_to_total, reconcile_to_total
from serverless_assets.forecasting import forecast_file
from serverless_assets.forecasting.history import daily_total, isolated

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
# The name of the total among the stores' ids.
TOTAL = "total"


@dataclass(frozen=True)
class Store:
    """history: ds date32 and y float64, a row for every day from its first sale to the last day of all."""

    id: str
    name: str
    history: pa.Table


def stores_in(revenue: pa.Table, total: pa.Table) -> list[Store]:
    """The stores of the rows of daily_revenue (ds, location_id, location_name, y, orders), in order of names.

    A day without a row is one on which the store sold nothing. The last name of a store is its name. Days
    that are not in `total`, the history of all, or are isolated (history.py), do not count.
    """
    calendar = total["ds"].to_pylist()
    first, last = calendar[0], calendar[-1]
    rows = sorted(
        (row for row in revenue.to_pylist() if first <= row["ds"] <= last), key=lambda row: row["ds"]
    )
    names = {row["location_id"]: row["location_name"] for row in rows}
    of_store: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        of_store.setdefault(row["location_id"], []).append(row)
    stores = []
    for id, sold in of_store.items():
        days = np.array([row["ds"] for row in sold], "datetime64[D]")
        used = ~isolated(days, np.array([row["orders"] for row in sold], float))
        values = np.array([row["y"] for row in sold], float)[used]
        days = days[used]
        if days[-1] < np.datetime64(last):
            days, values = np.append(days, np.datetime64(last)), np.append(values, 0.0)
        stores.append(Store(id, names[id], daily_total(days, values)))
    return sorted(stores, key=lambda store: (store.name, store.id))


def batch_of(stores: list[Store], horizon: int, country: str | None) -> ForecastBatch:
    """What is asked of the worker: each store by itself."""
    return ForecastBatch({store.id: store.history for store in stores}, horizon, country)


def adding_up_to(
    total: pa.Table, history: pa.Table, batch: ForecastBatch, answers: Answers
) -> Mapping[str, ForecastAnswer]:
    """The stores' forecasts, scaled to add up to `total`, the published forecast, which stays as it is.

    total: rows of FORECAST_SCHEMA, as many as the batch's horizon, after the last day of `history` (ds, y).
    """
    whole = ForecastRequest(history, total.num_rows, batch.country)
    requests, changes = align_to_total({**batch.requests, TOTAL: whole}, TOTAL)
    published = ForecastAnswer(total.select(FORECAST_SCHEMA.names))
    reconciled = reconcile_to_total(requests, {**answers, TOTAL: published}, TOTAL, changes)
    return {name: answer for name, answer in reconciled.items() if name != TOTAL}


def store_rows(stores: list[Store], made: Mapping[str, ForecastAnswer], run_id: str) -> pa.Table:
    """The rows of SCHEMA, store by store."""
    tables = []
    for store in stores:
        rows = made[store.id].forecast
        said = [[value] * rows.num_rows for value in (run_id, store.id, store.name)]
        tables.append(pa.table([*said, *rows.columns], schema=SCHEMA))
    return pa.concat_tables(tables)
