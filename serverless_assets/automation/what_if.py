"""The job of a what-if: a forecast to look at beside the published one, which is not published."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow as pa

from modal_forecast.grain import Grain
from modal_forecast.messages import ForecastAnswer, ForecastRefused
from modal_forecast.report.page import render
from modal_forecast.wire import MessageError
from serverless_assets import metadata
from serverless_assets.automation.jobs import prefill
from serverless_assets.environments import Environment
from serverless_assets.failures import as_failure
from serverless_assets.files import write_atomically
from serverless_assets.forecasting.compute import Calls, Size, run_with_memory_retry
from serverless_assets.forecasting.declaration import ForecastDeclaration
from serverless_assets.forecasting.forecast_run import details_in, forecast_facts
from serverless_assets.forecasting.history import Today, read_history
from serverless_assets.forecasting.report import preview, report_input
from serverless_assets.forecasting.total import query_forecast
from serverless_assets.run_inputs import RunForecast, RunInputs, SkipForecast

REPORTS_KEPT = 10
WHAT_IS_COMPARED = (
    "A what-if forecasts from the published tables and publishes nothing. It uses the chosen size, days and "
    "colours, and ignores rebuild, ingestion and the names of files."
)


def what_if_job(environment: Environment, declaration: ForecastDeclaration) -> dg.JobDefinition:
    """Forecast with another size, horizon or style and compare with what is published: to try before you
    change anything. Nothing is published, and no other run is kept waiting."""

    # Dagster demands that names of ops, as those of jobs, differ within a code location.
    @dg.op(
        name=f"compare_{declaration.name}",
        out=dg.Out(dg.Nothing),
        description="A forecast beside the published one, to look at.",
    )
    def what_if(context: dg.OpExecutionContext, run_inputs: RunInputs) -> None:
        with as_failure():
            inputs = run_inputs.checked()
        forecast = inputs.forecast
        if isinstance(forecast, SkipForecast):
            raise dg.Failure("A what-if makes a forecast: choose `run` under forecast.", allow_retries=False)
        context.log.info(WHAT_IS_COMPARED)
        with as_failure(ForecastRefused, MessageError):
            environment.budget_guard([declaration.asset], inputs, context.log.info)
            output_metadata = _forecast_beside(context, environment, declaration, forecast)
        context.add_output_metadata(output_metadata)

    @dg.job(
        name=f"what_if_{declaration.name}",
        config=prefill(only=("forecast",)),
        description=what_if_job.__doc__,
    )
    def job() -> None:
        what_if()

    return job


def _forecast_beside(
    context: dg.OpExecutionContext,
    environment: Environment,
    declaration: ForecastDeclaration,
    forecast: RunForecast,
) -> dict[str, Any]:
    """Have the forecast computed, write the report on it, and return what there is to see."""
    warehouse, size = environment.publisher.published.warehouse, Size.of(forecast)
    style = declaration.style_of(forecast)
    history = read_history(declaration, warehouse, Today.of(environment.settings.timezone))
    request = history.request(declaration.horizon_of(forecast))
    table = declaration.table
    published = query_forecast(warehouse, table) if table in warehouse.tables() else None
    answered, took = run_with_memory_retry(
        environment.compute, request.to_bytes(), size, context.log.info, Calls()
    )
    answer = ForecastAnswer.from_bytes(answered.content)
    facts = forecast_facts(request, answer, size, took, environment.compute, answered, context.run_id)
    report = report_input(
        declaration,
        request.history,
        answer.forecast,
        facts,
        style,
        details_in(answer.diagnostics),
        notes=[*history.warnings, *history.notes],
    )
    path = keep_report(environment.publisher.home / "what-if", context.run_id, render(report).encode())
    compared = compare(answer.forecast, published, declaration.time_grain)
    unit = f" in {declaration.unit}" if declaration.unit else ""
    heading = f"{'':<28}{'what if':>16}{'published':>16}{'change':>12}"
    lines = [f"{declaration.title}{unit}:", heading, *map(str, compared), f"The report: {path}"]
    context.log.info("\n".join(lines))
    return {
        "comparison": as_table(compared, declaration.unit),
        "preview": preview(report),
        metadata.REPORT: dg.MetadataValue.path(str(path)),
        **metadata.with_links(facts),
    }


def keep_report(folder: Path, run_id: str, content: bytes) -> Path:
    """Write the report of a what-if beside those of the last few, and delete older ones."""
    path = folder / f"{run_id}.html"
    write_atomically(path, content)
    reports = sorted(folder.glob("*.html"), key=lambda report: (report.stat().st_mtime_ns, report.name))
    for old in reports[:-REPORTS_KEPT]:
        old.unlink(missing_ok=True)
    return path


@dataclass(frozen=True)
class WindowComparison:
    """The what-if forecast summed over the first `rows` rows, and the published one over the same.

    There are no bounds: the sum of bounds is not a bound of the sum. `published` is None if the published
    forecast lacks some of these rows.
    """

    window: str
    rows: int
    what_if: float
    published: float | None

    @property
    def change_percent(self) -> float | None:
        """4.2 for 4.2 % more than what is published."""
        return round((self.what_if / self.published - 1) * 100, 2) if self.published else None

    def __str__(self) -> str:
        published = "none" if self.published is None else f"{self.published:,.0f}"
        change = "" if self.change_percent is None else f"{self.change_percent:+.2f} %"
        return f"{self.window:<28}{self.what_if:>16,.0f}{published:>16}{change:>12}"


def compare(what_if: pa.Table, published: pa.Table | None, grain: Grain) -> list[WindowComparison]:
    """Compare the windows of the grain, the whole horizon, and the periods of both if those are fewer.

    The tables have the columns ds and yhat; `published` is None if there is no forecast yet.
    """
    new, old = (
        dict(zip(table["ds"].to_pylist(), table["yhat"].to_pylist(), strict=True))
        if table is not None
        else {}
        for table in (what_if, published)
    )
    days = sorted(new)
    windows = {f"next {count} {grain.plural}": days[:count] for count in grain.windows if count < len(days)}
    shared = [day for day in days if day in old]
    if shared and len(shared) < len(days):
        windows[f"the {grain.counted(len(shared))} of both"] = shared
    windows[f"the whole horizon, {grain.counted(len(days))}"] = days
    return [
        WindowComparison(
            name, len(window), _sum(new, window), _sum(old, window) if old.keys() >= set(window) else None
        )
        for name, window in windows.items()
    ]


def _sum(values: Mapping[date, float], days: list[date]) -> float:
    return round(sum(values[day] for day in days), 2)


def as_table(compared: Sequence[WindowComparison], unit: str) -> dg.TableMetadataValue:
    """The comparison as the UI shows it."""
    of_unit = f", {unit}" if unit else ""
    return dg.MetadataValue.table(
        [
            dg.TableRecord(
                {
                    "window": window.window,
                    "rows": window.rows,
                    f"what if{of_unit}": window.what_if,
                    f"published{of_unit}": window.published,
                    "change, %": window.change_percent,
                }
            )
            for window in compared
        ]
    )
