"""A small static image of the forecast, for places that show images but run no script."""

from __future__ import annotations

from modal_forecast.report.chart_data import LAYERS, ChartData
from modal_forecast.report.page import template
from modal_forecast.report.plots import line_plot, spread_labels, x_of
from modal_forecast.report.report_input import ReportInput, check_color
from modal_forecast.report.sections.accuracy import skill_sentence

PLOT_HEIGHT = 190


def preview_svg(report: ReportInput) -> str:
    """Return an SVG of 900 x 300: the last years of history, the forecast with its bounds, the back-test."""
    data, grain = ChartData.of(report), report.grain
    start = data.columns["yhat"].start
    # More leaves a daily series less than two pixels per day.
    first = max(data.start, grain.start(start, -max(grain.ranges.values())))
    last = max(data.history.end, data.columns["yhat"].end)
    days = [grain.start(first, index) for index in range(grain.between(first, last) + 1)]
    row = {name: [daily.at(day) for day in days] for name, daily in data.columns.items()}
    plot = line_plot(
        [("forecast", row["yhat"]), ("actual", [data.history.at(day) for day in days])],
        spread_labels(days, grain.date_format, count=7),
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
        forecast_start=x_of(grain.between(first, start), len(days)),
        skill=skill_sentence(report.diagnostics) if backtest.get("origins") else "",
    )
