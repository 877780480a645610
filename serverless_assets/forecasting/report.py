"""The input of the report on a forecast, the reason to render it, its preview, and its copy for each run."""

import base64
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any
from urllib.parse import quote

import dagster as dg
import pyarrow as pa

from modal_forecast.grain import Grain
from modal_forecast.messages import FORECAST_SCHEMA
from modal_forecast.report.preview import preview_svg
from modal_forecast.report.report_input import DIAGNOSTICS, ReportInput
from serverless_assets.dagster_internals import LocalComputeLogManager
from serverless_assets.files import write_atomically
from serverless_assets.forecasting.declaration import ForecastDeclaration
from serverless_assets.forecasting.record import MADE_AT
from serverless_assets.forecasting.reuse import FIRST_REPORT
from serverless_assets.names import FORCED
from serverless_assets.run_inputs import CustomisedStyle
from serverless_assets.transformation.relation_states import refuse_unfinished
from serverless_assets.warehouse import Warehouse

# What "How it was made" lists: label -> the fact that is stored with the forecast, of the grain's plural.
FACTS = {
    "Data as of": "data_as_of",
    "{} of history": "history_{}",
    "Horizon in {}": "horizon_{}",
    "Model": "model",
    "Holidays": "holidays",
    "Compute": "compute",
    "Cpu in cores": "cpu",
    "Memory in MiB": "memory_mib",
    "Peak memory in MiB": "peak_memory_mib",
    "Seconds": "seconds",
    "{} clipped at zero": "clipped_days",
    "Run": "run_id",
}


def report_input(
    declaration: ForecastDeclaration,
    history: pa.Table,
    forecast: pa.Table,
    facts: Mapping[str, Any],
    style: CustomisedStyle,
    details: Mapping[str, Any],
    track_record: Mapping[str, Any] | None = None,
    parts: Sequence[Mapping[str, Any]] = (),
    notes: Sequence[str] = (),
    sections: Sequence[Mapping[str, Any]] = (),
) -> ReportInput:
    """Return the input of the report on `forecast`.

    facts, details: the diagnostics of the forecast, as they were stored with its table and in its record.
    track_record, parts, sections: see ReportInput.
    notes: sentences on the history.
    """
    diagnostics, plural = {**facts, **details}, declaration.time_grain.plural
    named = {label.format(plural): name.format(plural) for label, name in FACTS.items()}
    return ReportInput(
        history=history,
        forecast=forecast.select(FORECAST_SCHEMA.names),
        title=declaration.title,
        made_on=date.fromisoformat(facts[MADE_AT][:10]) if MADE_AT in facts else None,
        unit=declaration.unit,
        decimals=declaration.decimals,
        color_history=style.color_history,
        color_prediction=style.color_prediction,
        facts={
            label[0].upper() + label[1:]: _fact_text(facts[name])
            for label, name in named.items()
            if name in facts
        },
        diagnostics={name: diagnostics[name] for name in DIAGNOSTICS if name in diagnostics},
        parts=parts,
        part_noun=declaration.parts.noun if declaration.parts else "part",
        track_record=track_record,
        notes=notes,
        sections=sections,
        grain=declaration.time_grain,
    )


def read_sections(declaration: ForecastDeclaration, warehouse: Warehouse) -> Sequence[Mapping[str, Any]]:
    """Return the sections of declared tables as ReportInput has them, without those of missing tables.

    Raises:
        WarehouseError: a table does not have the columns.
        UnfinishedError: the tests of a table failed, or did not all run.
    """
    tables, sections = warehouse.tables() if declaration.sections else (), []
    for section in declaration.sections:
        if section.asset not in tables:
            continue
        refuse_unfinished(warehouse, section.asset)
        # A column may have the name of a keyword, which is only a name after a dot.
        cells = warehouse.query(
            f"select section.{section.rows} as name, section.{section.columns} as heading,"
            f" sum(section.{section.value}) as total"
            f" from {warehouse.quoted_name(section.asset)} as section group by 1, 2 order by 1, 2"
        ).to_pylist()
        headings = sorted({str(cell["heading"]) for cell in cells})
        rows: dict[str, dict[str, Any]] = {}
        for cell in cells:
            rows.setdefault(str(cell["name"]), {})[str(cell["heading"])] = float(cell["total"] or 0)
        sections.append(
            {
                "title": section.title,
                "name": section.rows.replace("_", " "),
                "headings": headings,
                "rows": [[name, *map(values.get, headings)] for name, values in rows.items()],
            }
        )
    return sections


# The reason to render a page again, by the part of its key that changed.
CHANGES = {
    "data": "new data",
    "forecast": "new forecast",
    "style": "title, unit or colours changed",
    "code": "code changed",
}


def reason_to_report(stored_key: Mapping[str, str], key: Mapping[str, str], force: bool) -> str | None:
    """Return why to render the page; None if the stored one was made from the same input.

    stored_key: of the stored page; empty if there is none.
    """
    if force:
        return FORCED
    if not stored_key:
        return FIRST_REPORT
    return "; ".join(CHANGES[part] for part in key if stored_key.get(part) != key[part]) or None


def backtest_picture(
    history: pa.Table, details: Mapping[str, Any], grain: Grain
) -> dg.MarkdownMetadataValue | None:
    """Return an image of the last back-test, the actuals and the forecast; None if there was no back-test."""
    origin = details.get("last_origin")
    if not origin:
        return None
    first = date.fromisoformat(origin["first_ds"])
    days = pa.array([grain.start(first, n) for n in range(len(origin["forecast"]))], pa.date32())
    forecast = pa.array(origin["forecast"], pa.float64())
    columns = [days if name == "ds" else forecast for name in FORECAST_SCHEMA.names]
    return preview(ReportInput(history, pa.table(columns, schema=FORECAST_SCHEMA), grain=grain))


def preview(report: ReportInput) -> dg.MarkdownMetadataValue:
    """Return an image of the report, carried in the metadata itself."""
    image = base64.b64encode(preview_svg(report).encode()).decode()
    return dg.MetadataValue.md(f"![history and forecast](data:image/svg+xml;base64,{image})")


def keep_with_run(context: dg.AssetExecutionContext, name: str, page: bytes) -> Mapping[str, Any]:
    """Keep the page with the logs of the run, and return the metadata by which the UI downloads it.

    Both go with the run, see SERVERLESS_KEEP_RUNS. Empty where Dagster does not keep logs on a local disk.
    """
    logs = context.instance.compute_log_manager
    if not isinstance(logs, LocalComputeLogManager):
        return {}
    stem = name.removesuffix(".html")
    path = Path(logs.get_captured_local_path([context.run_id, "reports", stem], "html"))
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, page)
    # Of the UI itself, wherever it is served.
    return {"download": dg.MetadataValue.url(f"/logs/{context.run_id}/reports/{quote(stem)}/html")}


def _fact_text(value: object) -> str:
    return f"{value:,.1f}".removesuffix(".0") if isinstance(value, float) and value >= 1 else str(value)
