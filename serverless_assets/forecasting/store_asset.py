"""The forecast of each store, as a table beside the total's."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

import dagster as dg
import pyarrow as pa
import pyarrow.parquet as pq

from modal_forecast.code_version import code_version
from modal_forecast.messages import BatchAnswer, ForecastBatch, ForecastRefused, MessageError
from serverless_assets import metadata
from serverless_assets.failures import as_failure
from serverless_assets.forecasting import growing
from serverless_assets.forecasting.calls import RecordedCalls
from serverless_assets.forecasting.compute import Compute, ComputeUsage, Size
from serverless_assets.forecasting.history import COUNTRY, REVENUE, HistoryError, read_history_until
from serverless_assets.forecasting.landing import read_forecast
from serverless_assets.forecasting.reuse import STORES_KEY, digest, reason_to_forecast_stores
from serverless_assets.forecasting.stores import SCHEMA, Store, adding_up_to, batch_of, store_rows, stores_in
from serverless_assets.publishing.outcome import SKIPPED_AS_ASKED
from serverless_assets.publishing.publisher import Publisher
from serverless_assets.run_inputs import ForecastChoice, RunInputs
from serverless_assets.scratch import scratch_folder
from serverless_assets.warehouse import TableShape, Warehouse

TABLE = "store_forecast"
DESCRIPTION = (
    "The forecast of each store, with 80% and 95% bounds; on every day the stores add up to the total."
)
UNCHANGED = "unchanged: same total, stores and code"


@dataclass(frozen=True)
class StoreDecision:
    """The forecast of each store: `reason` says why to make a new one; None reuses the one that there is."""

    stores: list[Store]
    total: pa.Table
    history: pa.Table
    batch: ForecastBatch
    request: bytes
    key: str
    note: Mapping[str, Any]
    reason: str | None


def store_asset(group: str, forecast_table: str, pool: str) -> dg.AssetsDefinition:
    """The asset `store_forecast`, which follows the total in `forecast_table`."""

    @dg.asset(
        name=TABLE,
        group_name=group,
        kinds={"prophet"},
        deps=["order_forecast", REVENUE],
        output_required=False,
        backfill_policy=dg.BackfillPolicy.single_run(),
        pool=pool,
        description=DESCRIPTION,
    )
    def store_forecast(
        context: dg.AssetExecutionContext,
        run_inputs: RunInputs,
        publisher: dg.ResourceParam[Publisher],
        compute: dg.ResourceParam[Compute],
    ) -> Iterator[dg.MaterializeResult]:
        choices = run_inputs.choices()
        if choices.forecast is None:
            context.log_event(metadata.not_built(context.asset_key, "skipped", SKIPPED_AS_ASKED))
            return
        warehouse = publisher.warehouse
        with as_failure(ForecastRefused, MessageError):
            with warehouse.connected():
                decision = decide_stores(warehouse, forecast_table, choices.rebuild_all)
                count = warehouse.row_count(TABLE) if decision.reason is None else 0
            version = dg.DataVersion(decision.key)
            if decision.reason is None:
                yield dg.MaterializeResult(
                    data_version=version, metadata=metadata.outcome("reused", UNCHANGED, rows=count)
                )
                return
            calls = RecordedCalls(context)
            size = growing.size_to_begin_with(_size(choices.forecast), decision.note, context.log.info)
            answered, took = growing.answer(compute, decision.request, size, context.log.info, calls)
            answers = BatchAnswer.from_bytes(answered.content).answers
            made = adding_up_to(decision.total, decision.history, decision.batch, answers)
            rows = store_rows(decision.stores, made, context.run.run_id)
            facts = {STORES_KEY: decision.key, **growing.facts_of(_size(choices.forecast), took)}
            with scratch_folder(publisher.home, "stores") as scratch:
                path = scratch / "stores.parquet"
                pq.write_table(rows, path)
                work = warehouse.replace(TableShape(TABLE, SCHEMA, DESCRIPTION), path, facts)
            if answered.call:
                calls.ended(answered.call)
        used = ComputeUsage(answered.seconds, 0.0, answered.peak_memory)
        yield dg.MaterializeResult(
            data_version=version,
            metadata={
                **metadata.outcome("built", decision.reason, rows=rows.num_rows, seconds=answered.seconds),
                "stores": len(decision.stores),
                "next_30_days": _table(stores_shown(warehouse, decision.total), 30),
                **metadata.work(work, warehouse),
                **metadata.cost(compute.price(took, used)),
                **metadata.facts(answered.facts),
            },
        )

    return store_forecast


def decide_stores(warehouse: Warehouse, forecast_table: str, rebuild_all: bool) -> StoreDecision:
    """Decide about the stores of the forecast in `forecast_table`.

    Raises:
        HistoryError: the history of the total's forecast has changed since.
    """
    total = read_forecast(warehouse, forecast_table)
    # Not up to today: at midnight, the stores' days are still those of the total.
    history = read_history_until(warehouse, data_as_of(total))
    stores = stores_in(_revenue(warehouse), history)
    note = warehouse.read_state(TABLE) if TABLE in warehouse.tables() else None
    batch = batch_of(stores, total.num_rows, COUNTRY)
    request = batch.to_bytes()
    key = digest(b"\n".join([code_version().encode(), request, _content(total)]))
    reason = reason_to_forecast_stores(note, key, rebuild_all)
    return StoreDecision(stores, total, history, batch, request, key, note or {}, reason)


def data_as_of(total: pa.Table) -> date:
    """The last day of the history that a forecast was made from, by its rows."""
    first: date = min(total["ds"].to_pylist())
    return first - timedelta(days=1)


def stores_shown(warehouse: Warehouse, total: pa.Table) -> list[Mapping[str, Any]]:
    """The stores as the report has them: name, history and forecast; none if they are of another total."""
    if TABLE not in warehouse.tables():
        return []
    try:
        history = read_history_until(warehouse, data_as_of(total))
    except HistoryError:
        return []
    found = warehouse.query(f"select * from {warehouse.quoted_name(TABLE)} order by ds")
    shown: list[Mapping[str, Any]] = []
    for store in stores_in(_revenue(warehouse), history):
        mine = found.filter(pa.array([id == store.id for id in found["location_id"].to_pylist()]))
        if mine["ds"].to_pylist() != total["ds"].to_pylist():
            return []
        shown.append({"name": store.name, "history": store.history, "forecast": mine.drop_columns(_OWN)})
    return shown


_OWN = ["forecast_run", "location_id", "location_name"]


def _size(choice: ForecastChoice) -> Size:
    return Size(choice.cpu, choice.memory)


def _revenue(warehouse: Warehouse) -> pa.Table:
    return warehouse.query(
        "select ds, location_id, location_name, sum(revenue_usd) as y, sum(nr_orders) as orders"
        f" from {warehouse.quoted_name(REVENUE)} group by ds, location_id, location_name"
    )


def _content(total: pa.Table) -> bytes:
    return repr(total.drop_columns(["forecast_run", "forecast_made_on"]).to_pydict()).encode()


def _table(stores: list[Mapping[str, Any]], days: int) -> dg.TableMetadataValue:
    """What each store is expected to take, for people to find beside the asset."""
    records = []
    for store in stores:
        ahead = store["forecast"]["yhat"].to_pylist()[:days]
        before = store["history"]["y"].to_pylist()[-days:]
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
