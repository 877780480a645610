"""A small static picture of the forecast, for places that show images but run no script."""

from __future__ import annotations

import math
from datetime import timedelta
from io import BytesIO
from typing import TYPE_CHECKING, Any

from modal_forecast.report.chart_data import ChartData, chart_data
from modal_forecast.report.colors import check_color
from modal_forecast.report.daily import Daily
from modal_forecast.report.report_input import ReportInput
from modal_forecast.report.sureness import skill_sentence

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# matplotlib plots dates, but its type stubs do not admit them.
Axes = Any

INCHES = (9.0, 3.0)
DPI = 100
PALETTE_COLORS = 128
# More history than this leaves a daily series less than two pixels per day.
HISTORY_SHOWN = timedelta(days=365)
MUTED = "#5d6570"
RULE = "#e4e7eb"


def preview_png(report: ReportInput) -> bytes:
    """900 x 300 pixels: the last year of history, the forecast, its bounds and how its back-test went."""
    # Imported here because matplotlib takes most of a second. Without pyplot no global state is touched.
    from matplotlib.figure import Figure

    data = chart_data(report)
    figure = Figure(figsize=INCHES, dpi=DPI, layout="constrained")
    axes = figure.add_subplot()
    _draw_forecast(axes, data, check_color(report.color_prediction))
    _draw_history(axes, data, check_color(report.color_history))
    _draw_axes(axes, report)
    return _png(figure)


def _draw_forecast(axes: Axes, data: ChartData, color: str) -> None:
    days = data.forecast.days()
    columns = {name: _plottable(daily) for name, daily in data.columns.items()}
    for level, alpha in (("95", 0.11), ("80", 0.22)):
        lower, upper = columns[f"yhat_lower_{level}"], columns[f"yhat_upper_{level}"]
        axes.fill_between(days, lower, upper, color=color, alpha=alpha, linewidth=0, label=f"{level}% bounds")
    # A line through one point is no line.
    axes.plot(
        days,
        columns["yhat"],
        color=color,
        linewidth=1.2,
        marker="o" if len(days) == 1 else "",
        label="Forecast",
    )
    axes.axvline(days[0] - timedelta(hours=12), color=MUTED, linewidth=0.8, dashes=(3, 3))


def _draw_history(axes: Axes, data: ChartData, color: str) -> None:
    skipped = max(0, (data.forecast.start - HISTORY_SHOWN - data.history.start).days)
    days, values = data.history.days(), _plottable(data.history)
    axes.plot(days[skipped:], values[skipped:], color=color, linewidth=0.9, label="Actual")


def _draw_axes(axes: Axes, report: ReportInput) -> None:
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
    from matplotlib.ticker import StrMethodFormatter

    locator = AutoDateLocator(maxticks=9)
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:,.12g}"))
    axes.margins(x=0.01)
    low, high = axes.dataLim.intervaly
    if 0 < low < high / 2:  # as in chart.js
        axes.set_ylim(bottom=0)
    axes.grid(axis="y", color=RULE, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[:].set_visible(False)
    axes.tick_params(colors=MUTED, labelsize=8, length=0)
    # A dollar sign in a title is no formula.
    axes.set_title(report.title, loc="left", fontsize=10, parse_math=False)
    axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=4, frameon=False, fontsize=8, reverse=True)
    if report.backtest:
        axes.set_xlabel(
            skill_sentence(report.backtest), loc="left", color=MUTED, fontsize=8, parse_math=False
        )
    axes.set_ylabel(report.unit, color=MUTED, fontsize=8, parse_math=False)


def _plottable(daily: Daily) -> list[float]:
    return [math.nan if value is None else value for value in daily.values]


def _png(figure: Figure) -> bytes:
    from PIL import Image

    picture = BytesIO()
    figure.savefig(picture, format="png")
    # A palette halves the file, and saving anew drops the version that matplotlib writes into it.
    small = BytesIO()
    Image.open(picture).convert("RGB").quantize(PALETTE_COLORS).save(small, format="png", optimize=True)
    return small.getvalue()
