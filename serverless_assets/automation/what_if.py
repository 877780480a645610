"""The job `what_if_forecast`: a forecast to look at, which is not published."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow as pa

from modal_forecast.messages import ForecastAnswer, ForecastRefused, MessageError
from modal_forecast.report.page import render
from serverless_assets import metadata
from serverless_assets.automation.jobs import prefill
from serverless_assets.automation.plan import PlannedEnvironment
from serverless_assets.failures import as_failure
from serverless_assets.files import write_atomically
from serverless_assets.forecasting.calls import ForgottenCalls
from serverless_assets.forecasting.compute import Size
from serverless_assets.forecasting.forecast_table import query_forecast
from serverless_assets.forecasting.history import COUNTRY, Today, read_history
from serverless_assets.forecasting.memory_retry import run_with_memory_retry
from serverless_assets.forecasting.report import preview, report_input
from serverless_assets.forecasting.run_forecast import details_in, forecast_facts
from serverless_assets.forecasting.what_if import WindowComparison, as_text, compare
from serverless_assets.names import FORECAST
from serverless_assets.run_inputs import RunForecast, RunInputs, SkipForecast
from serverless_assets.warehouse import Warehouse

REPORTS_KEPT = 10
ABOUT = (
    "A what-if forecasts from the tables as they are published, and publishes nothing: rebuild, ingestion "
    "and the names of files do nothing here. Size, days and colours are as chosen."
)


def what_if_job(environment: PlannedEnvironment, forecast_table: str) -> dg.JobDefinition:
    """Forecast with another size, horizon or style and compare with what is published: to try before you
    change anything. Nothing is published, and no other run is kept waiting."""

    @dg.op(out=dg.Out(dg.Nothing), description="A forecast beside the published one, to look at.")
    def imagine(context: dg.OpExecutionContext, run_inputs: RunInputs) -> None:
        forecast = run_inputs.checked().forecast
        if isinstance(forecast, SkipForecast):
            raise dg.Failure("A what-if is a forecast: choose forecast: run.", allow_retries=False)
        context.log.info(ABOUT)
        with as_failure(ForecastRefused, MessageError):
            environment.budget_guard([FORECAST], run_inputs.checked, context.log.info)
            output_metadata = _imagined(context, environment, forecast_table, forecast)
        context.add_output_metadata(output_metadata)

    @dg.job(name="what_if_forecast", config=prefill(ingestion="reuse"), description=what_if_job.__doc__)
    def job() -> None:
        imagine()

    return job


def _imagined(
    context: dg.OpExecutionContext, environment: PlannedEnvironment, table: str, forecast: RunForecast
) -> dict[str, Any]:
    """Have the forecast computed, write the report on it, and return what there is to see."""
    warehouse, size = environment.publisher.published.warehouse, Size(forecast.cores, forecast.mib)
    history = read_history(warehouse, Today.of(environment.timezone))
    request = history.request(forecast.horizon, COUNTRY)
    published = _published(warehouse, table)
    answered, took = run_with_memory_retry(
        environment.compute, request.to_bytes(), size, context.log.info, ForgottenCalls()
    )
    answer = ForecastAnswer.from_bytes(answered.content)
    facts = forecast_facts(request, answer, size, took, environment.compute, answered, context.run_id)
    report = report_input(
        request.history,
        answer.forecast,
        facts,
        forecast.names_and_colors,
        details_in(answer.diagnostics),
        notes=[*history.warnings, *history.notes],
    )
    path = keep_report(environment.publisher.home / "what-if", context.run_id, render(report).encode())
    compared = compare(answer.forecast, published)
    context.log.info("\n".join(["Order revenue in USD:", *as_text(compared), f"The report: {path}"]))
    return {
        "comparison": as_table(compared),
        "preview": preview(report),
        metadata.REPORT: dg.MetadataValue.path(str(path)),
        **metadata.facts(facts),
    }


def _published(warehouse: Warehouse, table: str) -> pa.Table | None:
    return query_forecast(warehouse, table) if table in warehouse.tables() else None


def as_table(compared: Sequence[WindowComparison]) -> dg.TableMetadataValue:
    """The comparison as the UI shows it."""
    return dg.MetadataValue.table(
        [
            dg.TableRecord(
                {
                    "window": window.window,
                    "days": window.days,
                    "what if, USD": window.what_if,
                    "published, USD": window.published,
                    "change, %": window.change_percent,
                }
            )
            for window in compared
        ]
    )


def keep_report(folder: Path, run_id: str, content: bytes) -> Path:
    """Write the report of a what-if beside those of the last few, and delete older ones."""
    path = folder / f"{run_id}.html"
    write_atomically(path, content)
    reports = sorted(folder.glob("*.html"), key=lambda report: (report.stat().st_mtime_ns, report.name))
    for old in reports[:-REPORTS_KEPT]:
        old.unlink(missing_ok=True)
    return path
