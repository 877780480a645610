"""The total's forecast in the warehouse: whether to make it again, and its table, file and record."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import dagster as dg
import pyarrow as pa

from modal_forecast.code_version import code_version
from modal_forecast.messages import ForecastRequest
from serverless_assets import metadata
from serverless_assets.forecasting.checks import CheckResult, check_forecast, failures
from serverless_assets.forecasting.declaration import ForecastDeclaration
from serverless_assets.forecasting.forecast_file import HORIZON_FACTS, SCHEMA, as_file, facts_in
from serverless_assets.forecasting.history import History
from serverless_assets.forecasting.record import Record, RecordName
from serverless_assets.forecasting.reuse import ForecastFingerprint, reason_to_forecast
from serverless_assets.names import TABLE_NAME
from serverless_assets.publishing.publisher import Publisher
from serverless_assets.warehouse import TableShape, Warehouse

UNCHANGED = "unchanged: same history, parameters and code"
# The facts that people look for or have plotted from run to run; all others are one value, DETAILS.
SHOWN = (
    *HORIZON_FACTS, "data_as_of", "backtest_wape", "peak_memory_mib", "modal_dashboard",
)  # fmt: skip
DETAILS = "details"


@dataclass(frozen=True)
class ForecastDecision:
    """Whether to make the total's forecast: `reason` says why; None reuses the table.

    state: what is kept with the table, None if there is no table. checks: the results for the stored
    forecast, empty if it was not checked as there is another reason.
    """

    request: ForecastRequest
    fingerprint: ForecastFingerprint
    state: Mapping[str, Any] | None
    checks: Sequence[CheckResult]
    reason: str | None


def describe_table(declaration: ForecastDeclaration) -> str:
    """Return the description of the total and its table."""
    return f"{declaration.title} for the coming {declaration.time_grain.plural}, with 80% and 95% bounds."


def decide_forecast(
    warehouse: Warehouse, history: History, horizon: int, rebuild_all: bool
) -> ForecastDecision:
    """Decide whether to make the forecast of `horizon` days, weeks or months after `history`.

    Raises:
        HistoryError: there is no day to forecast from.
        ForecastRefused: the history cannot be forecast.
    """
    table = history.declaration.table
    state = warehouse.read_state(table) if table in warehouse.tables() else None
    request = history.request(horizon)
    fingerprint = ForecastFingerprint.of(request, code_version())
    reason = reason_to_forecast(state, fingerprint, rebuild_all)
    checks: Sequence[CheckResult] = ()
    if state is not None and reason is None:
        checks = check_forecast(history.declaration, query_forecast(warehouse, table), state)
        # Rows that were changed by hand and fail a check are replaced.
        reason = failures(checks)
    return ForecastDecision(request, fingerprint, state, checks, reason)


def store_new_forecast(
    declaration: ForecastDeclaration, publisher: Publisher, file: str, record: Record, reason: str
) -> dict[str, Any]:
    """Write the table, the file and the record of a new forecast, and return its metadata."""
    warehouse, content = publisher.warehouse, as_file(record.rows, record.facts)
    shape = TableShape(declaration.table, SCHEMA, describe_table(declaration))
    work = warehouse.replace_rows(shape, record.rows.cast(SCHEMA), record.facts)
    publisher.artifacts.write(file, content)
    publisher.artifacts.write(record.name, record.to_bytes())
    loaded = metadata.job_metadata(work, warehouse)
    return {
        **metadata.outcome(
            "built",
            reason,
            rows=record.rows.num_rows,
            size=len(content),
            seconds=float(record.facts["seconds"]),
        ),
        **_location_metadata(publisher, declaration.table, file, record.facts),
        **loaded,
        # Both to compute the forecast and to load its rows.
        **metadata.cost(record.facts.get(metadata.COST_USD), loaded.get(metadata.COST_USD)),
    }


def reuse_forecast(
    publisher: Publisher, table: str, file: str, facts: Mapping[str, Any], request: ForecastRequest
) -> dict[str, Any]:
    """Leave the forecast in `table` as it is, and return its metadata.

    A missing file or record, such as after a run that was killed, is written from the table's rows.

    facts: those kept with the table. request: what the worker was asked for.
    """
    warehouse, artifacts, written = publisher.warehouse, publisher.artifacts, []
    content = artifacts.read(file)
    if content is None or facts_in(content) != facts:
        content = as_file(query_forecast(warehouse, table), facts)
        artifacts.write(file, content)
        written.append(file)
    name = RecordName.of(facts)
    if name and str(name) not in artifacts.names(str(name)):
        record = Record(query_forecast(warehouse, table).cast(SCHEMA), facts, request.to_bytes())
        artifacts.write(record.name, record.to_bytes())
        written.append("its record")
    reason = "; ".join([UNCHANGED, *(f"{target} was written" for target in written)])
    # Seconds and cost are those of the run that made the forecast.
    spent = (metadata.SECONDS, metadata.COST_USD)
    lasting = {fact: value for fact, value in facts.items() if fact not in spent}
    return {
        **metadata.outcome("reused", reason, rows=warehouse.row_count(table), size=len(content)),
        **_location_metadata(publisher, table, file, lasting),
        metadata.BUILT_BY: facts["run_id"],
    }


def query_forecast(warehouse: Warehouse, table: str) -> pa.Table:
    """Return the rows of the forecast's table, in order of days."""
    return warehouse.read_rows(table).sort_by("ds")


def read_forecast(declaration: ForecastDeclaration, warehouse: Warehouse) -> pa.Table:
    """Return the rows of the forecast's table. Raises dg.Failure if there is no table."""
    if declaration.table not in warehouse.tables():
        raise dg.Failure(f"There is no forecast yet: run {declaration.asset} first.", allow_retries=False)
    return query_forecast(warehouse, declaration.table)


def _location_metadata(
    publisher: Publisher, table: str, file: str, facts: Mapping[str, Any]
) -> dict[str, Any]:
    shown = {name: facts[name] for name in SHOWN if facts.get(name) is not None}
    details = {name: value for name, value in facts.items() if name not in shown}
    location: dict[str, Any] = {
        TABLE_NAME: publisher.warehouse.qualified_name(table),
        **metadata.file_metadata("file", publisher.artifacts.place(file)),
    }
    name = RecordName.of(facts)
    if name is not None:
        location |= metadata.file_metadata("record", publisher.artifacts.place(str(name)))
        details["replay"] = f"serverless replay {name.run_id}"
    return {**metadata.with_links(shown), **location, DETAILS: dg.MetadataValue.json(details)}
