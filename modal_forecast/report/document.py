"""One self-contained HTML document: no request of any kind, the same text for the same input."""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from modal_forecast.report import formats
from modal_forecast.report.chart_data import FORECAST, LAYERS, chart_data
from modal_forecast.report.colors import check_color
from modal_forecast.report.headline import last_actual, window_totals
from modal_forecast.report.report_input import ReportInput
from modal_forecast.report.report_key import key_text, report_key

if TYPE_CHECKING:
    import jinja2

FOLDER = Path(__file__).parent
SCRIPTS = ("ticks.js", "chart.js", "report.js")


def render(report: ReportInput) -> str:
    """The report as HTML, to be written as UTF-8."""
    data = chart_data(report)
    last_actual_day, last_actual_value = last_actual(data.history)
    windows = window_totals(data.history, data.forecast)
    return _template().render(
        key=key_text(report_key(report)),
        title=report.title,
        unit=report.unit,
        facts=report.facts,
        style=_style(report),
        script=_script(),
        decimals=data.decimals,
        history=data.history,
        forecast=data.forecast,
        windows=windows,
        has_last_year=any(window.last_year is not None for window in windows),
        last_actual_day=last_actual_day,
        last_actual_value=last_actual_value,
        ranges=data.ranges(),
        layers=LAYERS,
        forecast_layers=FORECAST,
        forecast_columns=data.columns,
        payload=data.payload(),
    )


@cache
def _template() -> jinja2.Template:
    # Imported here because whoever only checks a colour imports this package too.
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.policies["json.dumps_kwargs"] = {"allow_nan": False, "separators": (",", ":")}
    named_formats = (formats.number, formats.headline_number, formats.percent, formats.day, formats.days)
    environment.filters |= {format_.__name__: format_ for format_ in named_formats}
    environment.filters["csp_hash"] = _csp_hash
    return environment.get_template("template.html.j2")


def _style(report: ReportInput) -> str:
    history, prediction = check_color(report.color_history), check_color(report.color_prediction)
    chosen = f":root {{ --chosen-history: {history}; --chosen-prediction: {prediction}; }}\n"
    return chosen + (FOLDER / "report.css").read_text(encoding="utf-8")


@cache
def _script() -> str:
    return "\n".join((FOLDER / name).read_text(encoding="utf-8") for name in SCRIPTS)


def _csp_hash(text: str) -> str:
    """How a content security policy names the one inline script or style that it lets through."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
