"""One self-contained HTML document: no request of any kind, the same text for the same input."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modal_forecast.report import formats
from modal_forecast.report.basis import basis
from modal_forecast.report.by_store import SPARK_HEIGHT, by_store
from modal_forecast.report.chart_data import FORECAST, LAYERS, ChartData, chart_data
from modal_forecast.report.colors import check_color
from modal_forecast.report.outlook import outlook
from modal_forecast.report.reasons import reasons
from modal_forecast.report.report_input import ReportInput
from modal_forecast.report.report_key import key_text, report_key
from modal_forecast.report.sureness import sureness
from modal_forecast.report.track_record import track_record
from modal_forecast.report.windows import main_window, window_totals

if TYPE_CHECKING:
    import jinja2

FOLDER = Path(__file__).parent
STYLES = ("page.css", "chart.css", "sections.css", "narrow.css", "print.css")
SCRIPTS = ("ticks.js", "tooltip.js", "chart.js", "report.js")


def render(report: ReportInput) -> str:
    """The report as HTML, to be written as UTF-8."""
    data = chart_data(report)
    return _template().render(
        key=key_text(report_key(report)),
        title=report.title,
        unit=report.unit,
        facts=report.facts,
        style=_style(report),
        script=_joined(SCRIPTS),
        decimals=data.decimals,
        history=data.history,
        forecast=data.forecast,
        ranges=data.ranges(),
        layers=LAYERS,
        forecast_layers=FORECAST,
        forecast_columns=data.columns,
        payload=data.payload(),
        spark_height=SPARK_HEIGHT,
        **_answers(report, data),
    )


def _answers(report: ReportInput, data: ChartData) -> Mapping[str, Any]:
    """What each section says, by the name its template has for it; None where there is nothing to say."""
    amounts = formats.Amounts.of(report.unit, data.decimals, data.largest)
    windows = window_totals(data.history, data.columns, report.windows)
    return {
        "outlook": outlook(data.history, windows, amounts),
        "sureness": sureness(report.backtest, amounts),
        "reasons": reasons(report.components, data.forecast.start, data.forecast.end, amounts),
        "track_record": track_record(report.accuracy, amounts),
        "stores": by_store(report.stores, data.history, data.columns, main_window(windows), amounts),
        "basis": basis(data.history, report.notes),
    }


@cache
def _template() -> jinja2.Template:
    # Imported here because whoever only checks a colour imports this package too.
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(FOLDER / "sections"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.policies["json.dumps_kwargs"] = {"allow_nan": False, "separators": (",", ":")}
    named_formats = (formats.number, formats.day, formats.days)
    environment.filters |= {format_.__name__: format_ for format_ in named_formats}
    environment.filters["csp_hash"] = _csp_hash
    return environment.get_template("page.html.j2")


def _style(report: ReportInput) -> str:
    history, prediction = check_color(report.color_history), check_color(report.color_prediction)
    chosen = f":root {{ --chosen-history: {history}; --chosen-prediction: {prediction}; }}\n"
    return chosen + _joined(STYLES)


@cache
def _joined(names: tuple[str, ...]) -> str:
    return "\n".join((FOLDER / "assets" / name).read_text(encoding="utf-8") for name in names)


def _csp_hash(text: str) -> str:
    """How a content security policy names the one inline script or style that it lets through."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
