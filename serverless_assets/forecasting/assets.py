"""The forecast of daily order revenue, and the report on it."""

import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import dagster as dg
import pyarrow as pa
import pyarrow.parquet as pq

from modal_forecast.messages import ForecastAnswer, ForecastRefused, ForecastRequest, MessageError
from modal_forecast.report import render
from serverless_assets import metadata
from serverless_assets.failures import in_words
from serverless_assets.forecasting.calls import RecordedCalls
from serverless_assets.forecasting.compute import Answered, Compute, Size
from serverless_assets.forecasting.history import daily_total
from serverless_assets.forecasting.report import preview, report_input
from serverless_assets.publishing.outcome import SKIPPED_AS_ASKED
from serverless_assets.publishing.release import Release
from serverless_assets.run_inputs import ForecastChoice, RunInputs
from serverless_assets.warehouse import TableShape, Warehouse, Work

GROUP = "forecasting"
COUNTRY = "US"
REVENUE = "daily_revenue"
SINGLE_RUN = dg.BackfillPolicy.single_run()


def forecasting_assets(forecast_table: str) -> list[dg.AssetsDefinition]:
    """The two assets; the forecast lands in the warehouse as `forecast_table`."""

    @dg.asset(
        group_name=GROUP,
        kinds={"prophet"},
        deps=[REVENUE],
        output_required=False,
        backfill_policy=SINGLE_RUN,
        description="Daily order revenue for the coming days, with 80% and 95% bounds.",
    )
    def order_forecast(
        context: dg.AssetExecutionContext,
        run_inputs: RunInputs,
        release: dg.ResourceParam[Release],
        compute: dg.ResourceParam[Compute],
    ) -> Iterator[dg.MaterializeResult]:
        choice = run_inputs.choices().forecast
        if choice is None:
            yield from _skip(context)
            return
        with in_words(ForecastRefused, MessageError):
            request = ForecastRequest(read_history(release.warehouse), choice.horizon, COUNTRY)
            calls = RecordedCalls(context)
            answered = compute.run(
                request.to_bytes(), Size(choice.cpu, choice.memory), context.log.info, calls
            )
            answer = ForecastAnswer.from_bytes(answered.content)
            facts = forecast_facts(request, answer, choice, compute.name, answered, context.run.run_id)
            rows = forecast_rows(answer, context.run.run_id, datetime.now(UTC))
            content = _parquet(rows, facts)
            work = _store(release.warehouse, forecast_table, rows.schema, content, facts)
            place = release.artifacts.write(choice.forecast_file, content)
            if answered.call:
                calls.ended(answered.call)
        yield dg.MaterializeResult(
            metadata={
                **metadata.outcome(
                    "built",
                    "asked for in this run",
                    rows=rows.num_rows,
                    size=len(content),
                    seconds=float(facts["seconds"]),
                ),
                **metadata.facts(facts),
                **metadata.work(work),
                "dagster/table_name": release.warehouse.label(forecast_table),
                **metadata.place("file", place),
            }
        )

    @dg.asset(
        group_name=GROUP,
        kinds={"html"},
        deps=[order_forecast, REVENUE],
        output_required=False,
        backfill_policy=SINGLE_RUN,
        description="The forecast as one interactive HTML file that works offline.",
    )
    def forecast_report(
        context: dg.AssetExecutionContext, run_inputs: RunInputs, release: dg.ResourceParam[Release]
    ) -> Iterator[dg.MaterializeResult]:
        choice = run_inputs.choices().forecast
        if choice is None:
            yield from _skip(context)
            return
        warehouse = release.warehouse
        with in_words():
            if forecast_table not in warehouse.tables():
                raise dg.Failure("There is no forecast yet: run order_forecast first.", allow_retries=False)
            forecast = warehouse.query(f"select * from {warehouse.relation(forecast_table)} order by ds")
            report = report_input(read_history(warehouse), forecast, warehouse.note(forecast_table), choice)
            content = render(report).encode()
            place = release.artifacts.write(choice.html_report, content)
        yield dg.MaterializeResult(
            metadata={
                **metadata.outcome(
                    "built", "asked for in this run", rows=forecast.num_rows, size=len(content)
                ),
                **metadata.place(metadata.REPORT, place),
                "preview": preview(report),
            }
        )

    return [order_forecast, forecast_report]


def read_history(warehouse: Warehouse) -> pa.Table:
    """Daily order revenue of all locations: ds date32, y float64, without gaps."""
    if REVENUE not in warehouse.tables():
        raise dg.Failure(f"There is no {REVENUE} yet: run the transform job first.", allow_retries=False)
    return daily_total(
        warehouse.query(
            f"select ds, sum(revenue_usd) as y from {warehouse.relation(REVENUE)} group by ds order by ds"
        )
    )


def forecast_rows(answer: ForecastAnswer, run_id: str, made_on: datetime) -> pa.Table:
    """The forecast as it lands in the warehouse: which run made it and when, then the answer's columns."""
    rows = answer.forecast
    run = pa.array([run_id] * rows.num_rows, pa.string())
    made = pa.array([made_on.date()] * rows.num_rows, pa.date32())
    return rows.add_column(0, "forecast_made_on", made).add_column(0, "forecast_run", run)


def forecast_facts(
    request: ForecastRequest,
    answer: ForecastAnswer,
    choice: ForecastChoice,
    compute: str,
    answered: Answered,
    run_id: str,
) -> Mapping[str, Any]:
    """What is kept with a forecast: what was asked for, from what, on what, and what it took."""
    return {
        "compute": compute,
        "cpu": choice.cpu,
        "memory_mib": choice.memory,
        "horizon_days": choice.horizon,
        "holidays": COUNTRY,
        "data_as_of": str(request.history["ds"][-1].as_py()),
        "history_days": request.history.num_rows,
        **answer.diagnostics,
        **answered.facts,
        "seconds": round(answered.seconds, 3),
        "peak_memory_mib": max(answered.peak_memory, float(answer.diagnostics.get("peak_memory_mib", 0.0))),
        "run_id": run_id,
    }


def _skip(context: dg.AssetExecutionContext) -> Iterator[dg.MaterializeResult]:
    context.log.info("Skipped as asked: the last forecast stays as it is.")
    context.log_event(metadata.not_built(context.asset_key, "skipped", SKIPPED_AS_ASKED))
    yield from ()


def _parquet(rows: pa.Table, facts: Mapping[str, Any]) -> bytes:
    # The file says by itself how it was made.
    described = rows.replace_schema_metadata({"forecast": json.dumps(dict(facts))})
    buffer = BytesIO()
    pq.write_table(described, buffer, compression="zstd")
    return buffer.getvalue()


def _store(
    warehouse: Warehouse, table: str, schema: pa.Schema, content: bytes, facts: Mapping[str, Any]
) -> Work:
    shape = TableShape(table, schema, "Daily order revenue for the coming days, with 80% and 95% bounds.")
    with TemporaryDirectory(prefix="forecast-") as scratch:
        path = Path(scratch) / "forecast.parquet"
        path.write_bytes(content)
        return warehouse.replace(shape, path, facts)
