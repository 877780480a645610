"""The forecast of daily order revenue, and the report on it."""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import dagster as dg
import pyarrow as pa
from dagster._core.definitions.data_version import DATA_VERSION_TAG

from modal_forecast.code_version import code_version
from modal_forecast.messages import ForecastAnswer, ForecastRefused, ForecastRequest, MessageError
from modal_forecast.report import key_in, render, report_key
from serverless_assets import metadata
from serverless_assets.artifacts import Place
from serverless_assets.failures import in_words
from serverless_assets.forecasting.calls import RecordedCalls
from serverless_assets.forecasting.compute import Answered, Compute, Size
from serverless_assets.forecasting.forecast_file import SCHEMA, as_file, facts_in, forecast_rows
from serverless_assets.forecasting.history import daily_total
from serverless_assets.forecasting.report import preview, reason_to_report, report_input
from serverless_assets.forecasting.reuse import KEY, Basis, reason_to_forecast
from serverless_assets.publishing.outcome import SKIPPED_AS_ASKED
from serverless_assets.publishing.release import Release
from serverless_assets.run_inputs import ForecastChoice, RunInputs
from serverless_assets.warehouse import TableShape, Warehouse, Work

GROUP = "forecasting"
COUNTRY = "US"
REVENUE = "daily_revenue"
UNCHANGED = "unchanged: same history, parameters and code"
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
        choices = run_inputs.choices()
        if choices.forecast is None:
            yield from _skip(context)
            return
        warehouse = release.warehouse
        with in_words(ForecastRefused, MessageError):
            request = ForecastRequest(read_history(warehouse), choices.forecast.horizon, COUNTRY)
            basis = Basis.of(request, code_version())
            held = warehouse.note(forecast_table) if forecast_table in warehouse.tables() else None
            reason = reason_to_forecast(held, basis, choices.rebuild_all)
            if held is not None and reason is None:
                result = _reused(release, forecast_table, held, choices.forecast.forecast_file)
            else:
                result = _built(
                    context, release, forecast_table, compute, choices.forecast, request, basis, str(reason)
                )
        yield result

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
        choices = run_inputs.choices()
        if choices.forecast is None:
            yield from _skip(context)
            return
        warehouse, name = release.warehouse, choices.forecast.html_report
        with in_words():
            if forecast_table not in warehouse.tables():
                raise dg.Failure("There is no forecast yet: run order_forecast first.", allow_retries=False)
            facts = warehouse.note(forecast_table)
            report = report_input(
                read_history(warehouse), _rows(warehouse, forecast_table), facts, choices.forecast
            )
            held, key = release.artifacts.read(name), report_key(report)
            reason = reason_to_report(key_in(held), key, choices.rebuild_all)
            content = held if held is not None and reason is None else render(report).encode()
            if reason is not None:
                release.artifacts.write(name, content)
        version = ".".join(key.values())
        yield dg.MaterializeResult(
            data_version=dg.DataVersion(version),
            metadata={
                **metadata.outcome(
                    "built" if reason else "reused",
                    reason or "unchanged: same forecast, history, style and code",
                    rows=report.forecast.num_rows,
                    size=len(content),
                ),
                **metadata.place(metadata.REPORT, release.artifacts.place(name)),
                **(_last_preview(context, version) if reason is None else {"preview": preview(report)}),
            },
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


def forecast_facts(
    request: ForecastRequest,
    answer: ForecastAnswer,
    choice: ForecastChoice,
    compute: str,
    answered: Answered,
    run_id: str,
) -> dict[str, Any]:
    """What is kept with a forecast: what was asked for, from what, on what, and what it took."""
    return {
        "compute": compute,
        "cpu": choice.cpu,
        "memory_mib": choice.memory,
        "horizon_days": request.horizon,
        "holidays": request.country,
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


def _built(
    context: dg.AssetExecutionContext,
    release: Release,
    table: str,
    compute: Compute,
    choice: ForecastChoice,
    request: ForecastRequest,
    basis: Basis,
    reason: str,
) -> dg.MaterializeResult:
    """Have the forecast computed, and put its rows, its facts and its file where they belong."""
    calls, run_id = RecordedCalls(context), context.run.run_id
    answered = compute.run(request.to_bytes(), Size(choice.cpu, choice.memory), context.log.info, calls)
    answer = ForecastAnswer.from_bytes(answered.content)
    facts = {
        **forecast_facts(request, answer, choice, compute.name, answered, run_id),
        **basis.as_facts(),
    }
    content = as_file(forecast_rows(answer, run_id, datetime.now(UTC)), facts)
    work = _store(release.warehouse, table, content, facts)
    place = release.artifacts.write(choice.forecast_file, content)
    if answered.call:
        calls.ended(answered.call)
    outcome = metadata.outcome(
        "built",
        reason,
        rows=answer.forecast.num_rows,
        size=len(content),
        seconds=float(facts["seconds"]),
    )
    return dg.MaterializeResult(
        data_version=dg.DataVersion(basis.key),
        metadata=outcome | _described(release, table, facts, place) | metadata.work(work),
    )


def _reused(release: Release, table: str, held: Mapping[str, Any], name: str) -> dg.MaterializeResult:
    """Leave the forecast as it is; its file is written if it is not there."""
    warehouse, artifacts, reason = release.warehouse, release.artifacts, UNCHANGED
    content = artifacts.read(name)
    if content is None or facts_in(content) != held:
        # Its rows are at hand: a file costs no forecast.
        content = as_file(_rows(warehouse, table), held)
        artifacts.write(name, content)
        reason = f"{UNCHANGED}; {name} was written"
    outcome = metadata.outcome("reused", reason, rows=warehouse.row_count(table), size=len(content))
    # The seconds are those of the run that made it.
    lasting = {fact: value for fact, value in held.items() if fact != metadata.SECONDS}
    return dg.MaterializeResult(
        data_version=dg.DataVersion(held[KEY]),
        metadata={
            **outcome,
            **_described(release, table, lasting, artifacts.place(name)),
            metadata.BUILT_BY: held["run_id"],
        },
    )


def _described(release: Release, table: str, facts: Mapping[str, Any], file: Place) -> dict[str, Any]:
    return {
        **metadata.facts(facts),
        "dagster/table_name": release.warehouse.label(table),
        **metadata.place("file", file),
    }


def _rows(warehouse: Warehouse, table: str) -> pa.Table:
    return warehouse.query(f"select * from {warehouse.relation(table)} order by ds")


def _last_preview(context: dg.AssetExecutionContext, version: str) -> dict[str, Any]:
    """The picture of the same report, if the last materialization has it: to draw it takes a second."""
    event = context.instance.get_latest_materialization_event(context.asset_key)
    found = event.asset_materialization if event else None
    if found is None or "preview" not in found.metadata:
        return {}
    is_same = (found.tags or {}).get(DATA_VERSION_TAG) == version
    return {"preview": found.metadata["preview"]} if is_same else {}


def _store(warehouse: Warehouse, table: str, content: bytes, facts: Mapping[str, Any]) -> Work:
    shape = TableShape(table, SCHEMA, "Daily order revenue for the coming days, with 80% and 95% bounds.")
    with TemporaryDirectory(prefix="forecast-") as scratch:
        path = Path(scratch) / "forecast.parquet"
        path.write_bytes(content)
        return warehouse.replace(shape, path, facts)
