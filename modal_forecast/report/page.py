"""The report as one self-contained HTML page: it makes no request, and equal input gives an equal page."""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from typing import TYPE_CHECKING

from modal_forecast.report import formats
from modal_forecast.report.chart_data import FORECAST, LAYERS, ChartData, chart_views
from modal_forecast.report.report_input import FOLDER, ReportInput, check_color, report_key
from modal_forecast.report.sections.accuracy import accuracy
from modal_forecast.report.sections.data_quality import data_quality
from modal_forecast.report.sections.more import more_sections
from modal_forecast.report.sections.outlook import main_window, measured_widths, outlook, window_totals
from modal_forecast.report.sections.parts import SPARK_HEIGHT, by_part
from modal_forecast.report.sections.periods import by_period
from modal_forecast.report.sections.reasons import reasons
from modal_forecast.report.sections.track_record import track_record

if TYPE_CHECKING:
    import jinja2

STYLES = ("page.css", "chart.css", "sections.css", "narrow.css", "print.css")
SCRIPTS = ("ticks.js", "tooltip.js", "chart.js", "report.js", "gestures.js")


# What the keys Page Up and Page Down move by; chart.js has the same in periods.
PAGE_STEPS = {"day": "a week", "week": "four weeks", "month": "a year"}


def render(report: ReportInput) -> str:
    """Return the report as HTML, to be written as UTF-8."""
    data = ChartData.of(report)
    history, forecast = data.history, data.columns["yhat"]
    amounts = formats.Amounts.of(report.unit, data.decimals, data.largest)
    widths = measured_widths(report.diagnostics)
    windows = window_totals(history, data.columns, widths)
    components, country = report.diagnostics.get("components"), report.diagnostics.get("country")
    history_color, prediction_color = check_color(report.color_history), check_color(report.color_prediction)
    views = chart_views(data, widths)
    colors = f":root {{ --chosen-history: {history_color}; --chosen-prediction: {prediction_color}; }}\n"
    return template("page.html.j2").render(
        key=" ".join(f"{part} {value}" for part, value in report_key(report).items()),
        title=report.title,
        grain=report.grain,
        page_steps=PAGE_STEPS,
        made_on=report.made_on,
        unit=report.unit,
        facts=report.facts,
        style=colors + _joined(STYLES),
        script=_joined(SCRIPTS),
        decimals=data.decimals,
        history=history,
        forecast=forecast,
        forecast_columns=data.columns,
        ranges=data.ranges(),
        layers=LAYERS,
        forecast_layers=FORECAST,
        views=views,
        payload={
            "symbol": formats.SYMBOLS.get(report.unit),
            "views": [view.payload(country) for view in views],
        },
        spark_height=SPARK_HEIGHT,
        outlook=outlook(history, windows, amounts, report.made_on),
        periods=by_period(history, data.columns, widths, amounts),
        accuracy=accuracy(report.diagnostics, amounts, report.grain),
        reasons=reasons(components, forecast, country, amounts),
        track_record=track_record(report.track_record, amounts, report.part_noun, report.grain),
        parts=by_part(report.parts, report.part_noun, history, data.columns, main_window(windows), amounts),
        sections=more_sections(report.sections),
        data_quality=data_quality(history, report.notes, report.diagnostics),
    )


def headline(report: ReportInput) -> str:
    """Return what the page opens with: what to expect, and warnings of old data and of a weak forecast."""
    data = ChartData.of(report)
    amounts = formats.Amounts.of(report.unit, data.decimals, data.largest)
    windows = window_totals(data.history, data.columns, measured_widths(report.diagnostics))
    opening = outlook(data.history, windows, amounts, report.made_on)
    backtest = accuracy(report.diagnostics, amounts, report.grain)
    bias, weak = (backtest.bias, backtest.warning) if backtest else ("", "")
    sentences = opening.answer, bias, opening.warning, weak
    return " ".join(filter(None, sentences))


@cache
def template(name: str) -> jinja2.Template:
    # Imported here because jinja2 is needed only where a page is rendered, not where its key is compared.
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([FOLDER, FOLDER / "sections"]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.policies["json.dumps_kwargs"] = {"allow_nan": False, "separators": (",", ":")}
    environment.filters |= {
        "number": formats.number,
        "day": formats.day,
        "plural": formats.plural,
    }
    environment.filters["csp_hash"] = _csp_hash
    return environment.get_template(name)


@cache
def _joined(names: tuple[str, ...]) -> str:
    return "\n".join((FOLDER / "assets" / name).read_text(encoding="utf-8") for name in names)


def _csp_hash(text: str) -> str:
    """The name in a content security policy of the one inline script or style that it lets through."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
