"""The asset of the report on a forecast: whether to render the page, and its record of earlier forecasts."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import dagster as dg
import pyarrow as pa

from modal_forecast.grain import Grain
from modal_forecast.report.page import headline, render
from modal_forecast.report.report_input import ReportInput, key_in, report_key
from serverless_assets import metadata
from serverless_assets.dagster_internals import DATA_VERSION_TAG
from serverless_assets.failures import as_failure
from serverless_assets.forecasting.accuracy import Warn, all_of, read_records
from serverless_assets.forecasting.declaration import ForecastDeclaration
from serverless_assets.forecasting.forecast_run import log_skipped
from serverless_assets.forecasting.history import History, Today, read_history
from serverless_assets.forecasting.part_accuracy import worst_parts
from serverless_assets.forecasting.part_report import reported_parts
from serverless_assets.forecasting.record import Record, list_records, read_details
from serverless_assets.forecasting.report import (
    keep_with_run,
    preview,
    read_sections,
    reason_to_report,
    report_input,
)
from serverless_assets.forecasting.reuse import SAME_REPORT
from serverless_assets.forecasting.tables import SCORES
from serverless_assets.forecasting.total import read_forecast
from serverless_assets.publishing.publisher import Publisher
from serverless_assets.run_inputs import RunForecast, RunInputs, SkipForecast

# Of earlier forecasts, the newest ones are listed.
REPORTED_VINTAGES = 12


@dataclass(frozen=True)
class ReportDecision:
    """Whether to render the report: `reason` says why; None reuses `page`, the stored one."""

    report: ReportInput
    key: Mapping[str, str]
    page: bytes | None
    reason: str | None


def report_asset(declaration: ForecastDeclaration, pool: str, timezone: str) -> dg.AssetsDefinition:
    """Return the asset of the report, one HTML page."""

    @dg.asset(
        name=declaration.report,
        group_name=declaration.group,
        kinds={"html"},
        deps=[
            *declaration.forecasts,
            *declaration.accuracies,
            declaration.relation,
            *dict.fromkeys(section.asset for section in declaration.sections),
        ],
        output_required=False,
        backfill_policy=dg.BackfillPolicy.single_run(),
        pool=pool,
        description=(
            "The forecast as an interactive HTML file. `report_link` and `serverless open` open "
            "the published one; `download` of a materialization saves that of its run."
        ),
    )
    def report(
        context: dg.AssetExecutionContext, run_inputs: RunInputs, publisher: dg.ResourceParam[Publisher]
    ) -> Iterator[dg.MaterializeResult]:
        warehouse = publisher.warehouse
        if isinstance(run_inputs.forecast, SkipForecast):
            log_skipped(context)
            return
        name = declaration.style_of(run_inputs.forecast).html_report
        with as_failure():
            with warehouse.connected():
                decision = decide_report(
                    publisher,
                    run_inputs.forecast,
                    read_history(declaration.of_run(run_inputs.forecast), warehouse, Today.of(timezone)),
                    run_inputs.rebuild_all,
                    context.log.warning,
                )
            page = decision.page
            if page is None or decision.reason is not None:
                page = render(decision.report).encode()
                publisher.artifacts.write(name, page)
        version = ".".join(decision.key.values())
        yield dg.MaterializeResult(
            data_version=dg.DataVersion(version),
            metadata={
                **metadata.outcome(
                    "built" if decision.reason else "reused",
                    decision.reason or SAME_REPORT,
                    rows=decision.report.forecast.num_rows,
                    size=len(page),
                ),
                "headline": headline(decision.report),
                **metadata.file_metadata(metadata.REPORT, publisher.artifacts.place(name)),
                **keep_with_run(context, name, page),
                **(
                    _last_preview(context, version)
                    if decision.reason is None
                    else {"preview": preview(decision.report)}
                ),
            },
        )

    return report


def decide_report(
    publisher: Publisher,
    run: RunForecast,
    history: History,
    rebuild_all: bool,
    warn: Warn,
) -> ReportDecision:
    """Decide whether to render the report in the style of the run on the forecast in the warehouse.

    warn: called with a sentence for each earlier forecast whose record cannot be read.
    """
    declaration, warehouse = history.declaration, publisher.warehouse
    style = declaration.style_of(run)
    forecast, facts = read_forecast(declaration, warehouse), warehouse.read_state(declaration.table)
    report = report_input(
        declaration,
        history.not_empty(),
        forecast,
        facts,
        style,
        read_details(publisher.artifacts, facts),
        reported_accuracy(declaration, publisher, history.table, warn),
        reported_parts(declaration, warehouse, forecast),
        [*history.warnings, *history.notes],
        read_sections(declaration, warehouse),
    )
    page, key = publisher.artifacts.read(style.html_report), report_key(report)
    return ReportDecision(report, key, page, reason_to_report(key_in(page), key, rebuild_all))


def _last_preview(context: dg.AssetExecutionContext, version: str) -> dict[str, Any]:
    """Return the preview of the last materialization of the same version: drawing it takes a second."""
    last = metadata.latest_materialization(context.instance, context.asset_key)
    if last is None or (last.tags or {}).get(DATA_VERSION_TAG) != version:
        return {}
    return {"preview": last.metadata["preview"]} if "preview" in last.metadata else {}


def reported_accuracy(
    declaration: ForecastDeclaration, publisher: Publisher, actual: pa.Table, warn: Warn
) -> Mapping[str, Any] | None:
    """Return the accuracy of earlier forecasts as ReportInput has it; None if none is scored yet."""
    warehouse, grain = publisher.warehouse, declaration.time_grain
    if declaration.accuracy not in warehouse.tables():
        return None
    scores = warehouse.read_rows(declaration.accuracy).sort_by("made_at").to_pylist()
    rows = [
        {**row, "periods": row[grain.plural]}
        for row in scores
        # Until it is scored anew, the table may be of another grain.
        if row["horizon"] == all_of(grain) and grain.plural in row
    ]
    if not rows:
        return None
    accuracy: dict[str, Any] = {
        "vintages": [
            {
                "made_on": row["made_at"].date().isoformat(),
                **{name: row[name] for name in ("periods", *SCORES)},
            }
            for row in rows[-REPORTED_VINTAGES:]
        ],
    }
    if parts := reported_part_accuracy(declaration, publisher):
        accuracy["parts"] = parts
    run_id = vintage_to_draw(rows, grain)
    names = [name for name in list_records(publisher.artifacts, declaration.name) if name.run_id == run_id]
    for record in read_records(publisher.artifacts, names[-1:], grain, warn):
        accuracy["compared"] = {"made_on": record.name.made_at.date().isoformat(), **compared(record, actual)}
    return accuracy


def compared(record: Record, actual: pa.Table) -> Mapping[str, Sequence[Any]]:
    """Return a forecast beside what came in those of its periods that have passed."""
    y = dict(zip(actual["ds"].to_pylist(), actual["y"].to_pylist(), strict=True))
    rows = [row for row in record.rows.to_pylist() if y.get(row["ds"]) is not None]
    return {
        "ds": [row["ds"].isoformat() for row in rows],
        "actual": [y[row["ds"]] for row in rows],
        "yhat": [row["yhat"] for row in rows],
        "lower_80": [row["yhat_lower_80"] for row in rows],
        "upper_80": [row["yhat_upper_80"] for row in rows],
    }


def vintage_to_draw(scored: Sequence[Mapping[str, Any]], grain: Grain) -> str | None:
    """Return the run id of the vintage with enough scored periods that is nearest to the main window.

    None if none has as many as the shortest window.
    """
    fewest, main, _ = grain.windows
    enough = [row for row in scored if row["periods"] >= fewest]
    nearest = min(enough, key=lambda row: abs(row["periods"] - main), default=None)
    return nearest["vintage"] if nearest else None


def reported_part_accuracy(
    declaration: ForecastDeclaration, publisher: Publisher
) -> Mapping[str, Any] | None:
    """Return the accuracy of the parts as the track record in ReportInput has it; None if none is scored."""
    parts, warehouse = declaration.parts, publisher.warehouse
    if parts is None or declaration.part_accuracy not in warehouse.tables():
        return None
    grain = declaration.time_grain
    worst, scored = worst_parts(parts, warehouse.read_rows(declaration.part_accuracy), grain)
    if not worst:
        return None
    rows = [
        {"name": row[parts.name], "periods": row[grain.plural], **{name: row[name] for name in SCORES}}
        for row in worst
    ]
    return {"scored": scored, "worst": rows}
