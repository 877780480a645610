"""Where a forecast lands: its table, its file and its record; and what people are told of it."""

from collections.abc import Mapping
from typing import Any

import dagster as dg
import pyarrow as pa

from modal_forecast.messages import ForecastRequest
from serverless_assets import metadata
from serverless_assets.artifacts import Artifacts
from serverless_assets.forecasting.forecast_file import SCHEMA, as_file, facts_in
from serverless_assets.forecasting.record import Record, RecordName
from serverless_assets.publishing.publisher import Publisher
from serverless_assets.scratch import scratch_folder
from serverless_assets.warehouse import JobStats, TableShape, Warehouse

UNCHANGED = "unchanged: same history, parameters and code"


def land(publisher: Publisher, table: str, file: str, made: Record, reason: str) -> dict[str, Any]:
    """Store a new forecast, and return its metadata."""
    content = as_file(made.rows, made.facts)
    work = _replace(publisher, table, content, made.facts)
    publisher.artifacts.write(file, content)
    publisher.artifacts.write(made.name, made.to_bytes())
    outcome = metadata.outcome(
        "built",
        reason,
        rows=made.rows.num_rows,
        size=len(content),
        seconds=float(made.facts["seconds"]),
    )
    loaded = metadata.work(work, publisher.warehouse)
    # Computing it and loading its rows both cost something.
    cost = metadata.cost(made.facts.get(metadata.COST_USD), loaded.get(metadata.COST_USD))
    return outcome | _described(publisher, table, file, made.facts) | loaded | cost


def leave(
    publisher: Publisher, table: str, file: str, held: Mapping[str, Any], request: ForecastRequest
) -> dict[str, Any]:
    """Leave the forecast as it is, and return its metadata. `request` asks for what it was made from.

    Its file and its record are written if they are not there: its rows are at hand, which costs no forecast.
    """
    warehouse, artifacts, written = publisher.warehouse, publisher.artifacts, []
    content = artifacts.read(file)
    if content is None or facts_in(content) != held:
        content = as_file(forecast_in(warehouse, table), held)
        artifacts.write(file, content)
        written.append(file)
    name = RecordName.of(held)
    if name and str(name) not in artifacts.names(str(name)):
        record = Record(forecast_in(warehouse, table).cast(SCHEMA), held, request.to_bytes())
        artifacts.write(record.name, record.to_bytes())
        written.append("its record")
    reason = "; ".join([UNCHANGED, *(f"{name} was written" for name in written)])
    outcome = metadata.outcome("reused", reason, rows=warehouse.row_count(table), size=len(content))
    # The seconds and the cost are those of the run that made it.
    spent = (metadata.SECONDS, metadata.COST_USD)
    lasting = {fact: value for fact, value in held.items() if fact not in spent}
    return {**outcome, **_described(publisher, table, file, lasting), metadata.BUILT_BY: held["run_id"]}


def forecast_in(warehouse: Warehouse, table: str) -> pa.Table:
    """The rows of the forecast's table, in order of days."""
    return warehouse.query(f"select * from {warehouse.quoted_name(table)} order by ds")


def read_forecast(warehouse: Warehouse, table: str) -> pa.Table:
    """The rows of the forecast's table, in order of days; a failure in words where there is no table."""
    if table not in warehouse.tables():
        raise dg.Failure("There is no forecast yet: run order_forecast first.", allow_retries=False)
    return forecast_in(warehouse, table)


def _described(publisher: Publisher, table: str, file: str, facts: Mapping[str, Any]) -> dict[str, Any]:
    return {
        **metadata.facts(facts),
        "dagster/table_name": publisher.warehouse.qualified_name(table),
        **metadata.place("file", publisher.artifacts.place(file)),
        **_recorded(publisher.artifacts, facts),
    }


def _recorded(artifacts: Artifacts, facts: Mapping[str, Any]) -> dict[str, Any]:
    name = RecordName.of(facts)
    if name is None:
        return {}
    return {
        **metadata.place("record", artifacts.place(str(name))),
        "replay": f"serverless replay {name.run_id}",
    }


def _replace(publisher: Publisher, table: str, content: bytes, facts: Mapping[str, Any]) -> JobStats:
    shape = TableShape(table, SCHEMA, "Daily order revenue for the coming days, with 80% and 95% bounds.")
    with scratch_folder(publisher.home, "forecast") as scratch:
        path = scratch / "forecast.parquet"
        path.write_bytes(content)
        return publisher.warehouse.replace(shape, path, facts)
