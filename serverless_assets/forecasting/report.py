"""The report on a forecast: what goes into it, and its small picture for the Dagster UI."""

import base64
from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from typing import Any

import dagster as dg
import pyarrow as pa

from modal_forecast.messages import FORECAST_SCHEMA
from modal_forecast.report import ReportInput, preview_png
from modal_forecast.report.told import told
from serverless_assets.run_inputs import ForecastChoice

UNCHANGED = "unchanged: same forecast, history, style and code"
TITLE = "Daily order revenue"
UNIT = "USD"

# Label in the report, and the fact of the forecast that it shows.
SHOWN = {
    "Data as of": "data_as_of",
    "Days of history": "history_days",
    "Horizon in days": "horizon_days",
    "Model": "model",
    "Holidays": "holidays",
    "Compute": "compute",
    "Cpu in cores": "cpu",
    "Memory in MiB": "memory_mib",
    "Peak memory in MiB": "peak_memory_mib",
    "Seconds": "seconds",
    "Days clipped at zero": "clipped_days",
    "Run": "run_id",
}


def report_input(
    history: pa.Table,
    forecast: pa.Table,
    facts: Mapping[str, Any],
    choice: ForecastChoice,
    details: Mapping[str, Any],
    accuracy: Mapping[str, Any] | None = None,
    stores: Sequence[Mapping[str, Any]] = (),
    notes: Sequence[str] = (),
) -> ReportInput:
    """The report on `forecast`, whose `facts` and `details` were kept when it was made.

    accuracy: how earlier forecasts did, as ReportInput has it; None if none was published yet.
    stores: those that add up to it, as ReportInput has them.
    notes: sentences on the history.
    """
    of_model = told({**facts, **details}, forecast, facts.get("holidays"))
    return ReportInput(
        history=history,
        forecast=forecast.select(FORECAST_SCHEMA.names),
        accuracy=accuracy,
        stores=stores,
        **{**of_model, "notes": [*notes, *of_model["notes"]]},
        title=TITLE,
        unit=UNIT,
        color_history=choice.color_history,
        color_prediction=choice.color_prediction,
        facts={label: _shown(facts[name]) for label, name in SHOWN.items() if name in facts},
    )


# What a page is made from, by the parts of its key, and what is said of a change of it.
CHANGES = {
    "data": "new data",
    "forecast": "new forecast",
    "style": "title, unit or colours changed",
    "code": "code changed",
}


def reason_to_report(held: Mapping[str, str], key: Mapping[str, str], force: bool) -> str | None:
    """Why to render the page; None if the one that there is, whose key is `held`, is the same. Pure."""
    if force:
        return "forced: rebuild all"
    if not held:
        return "first report of this name"
    return "; ".join(CHANGES[part] for part in key if held.get(part) != key[part]) or None


def backtest_picture(history: pa.Table, details: Mapping[str, Any]) -> dg.MarkdownMetadataValue | None:
    """A small picture of the last back-test: what came, and what would have been forecast; None without."""
    origin = details.get("last_origin")
    if not origin:
        return None
    first = date.fromisoformat(origin["first_ds"])
    days = pa.array([first + timedelta(days=n) for n in range(len(origin["forecast"]))], pa.date32())
    made = pa.array(origin["forecast"], pa.float64())
    columns = [days if name == "ds" else made for name in FORECAST_SCHEMA.names]
    return preview(ReportInput(history, pa.table(columns, schema=FORECAST_SCHEMA)))


def preview(report: ReportInput) -> dg.MarkdownMetadataValue:
    """A small picture of the report, carried in the metadata itself."""
    picture = base64.b64encode(preview_png(report)).decode()
    return dg.MetadataValue.md(f"![history and forecast](data:image/png;base64,{picture})")


def _shown(value: object) -> str:
    return f"{value:,.1f}".removesuffix(".0") if isinstance(value, float) and value >= 1 else str(value)
