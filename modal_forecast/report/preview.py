"""A small static image of the forecast, for places that show images but run no script."""

from __future__ import annotations

from datetime import timedelta

from modal_forecast.report.page import LAYERS, ChartData, template
from modal_forecast.report.plots import line_plot, spread_labels, x_of
from modal_forecast.report.report_input import ReportInput, check_color
from modal_forecast.report.sections.accuracy import skill_sentence

# More history than this leaves a daily series less than two pixels per day.
HISTORY_SHOWN = timedelta(days=365)
PLOT_HEIGHT = 190


def preview_svg(report: ReportInput) -> str:
    """Return an SVG of 900 x 300: the last year of history, the forecast with its bounds, the back-test."""
    data = ChartData.of(report)
    start = data.columns["yhat"].start
    first = max(data.start, start - HISTORY_SHOWN)
    last = max(data.history.end, data.columns["yhat"].end)
    days = [first + timedelta(days=index) for index in range((last - first).days + 1)]
    row = {name: [daily.at(day) for day in days] for name, daily in data.columns.items()}
    plot = line_plot(
        [("forecast", row["yhat"]), ("actual", [data.history.at(day) for day in days])],
        spread_labels(days, "%d %b %Y", count=7),
        # The wider interval is painted first.
        [(f"interval{level}", row[f"yhat_lower_{level}"], row[f"yhat_upper_{level}"]) for level in (95, 80)],
        height=PLOT_HEIGHT,
    )
    backtest = report.diagnostics.get("backtest") or {}
    return template("preview.svg.j2").render(
        title=report.title,
        unit=report.unit,
        history_color=check_color(report.color_history),
        prediction_color=check_color(report.color_prediction),
        plot=plot,
        layers=LAYERS,
        forecast_start=x_of((start - first).days, len(days)),
        skill=skill_sentence(report.diagnostics) if backtest.get("origins") else "",
    )
