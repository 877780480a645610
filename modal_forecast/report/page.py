"""The report as one self-contained HTML page: it makes no request, and equal input gives an equal page."""

from __future__ import annotations

import base64
import hashlib
import math
from dataclasses import dataclass
from datetime import date
from functools import cache, cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from modal_forecast.calendars import holiday_periods
from modal_forecast.report import formats
from modal_forecast.report.report_input import FOLDER, ReportInput, check_color, report_key
from modal_forecast.report.sections.accuracy import accuracy, track_record
from modal_forecast.report.sections.data_quality import data_quality
from modal_forecast.report.sections.more import more_sections
from modal_forecast.report.sections.outlook import main_window, measured_widths, outlook, window_totals
from modal_forecast.report.sections.parts import SPARK_HEIGHT, by_part
from modal_forecast.report.sections.periods import by_period
from modal_forecast.report.sections.reasons import reasons
from modal_forecast.report.values import PeriodValues, read_values

if TYPE_CHECKING:
    import jinja2

STYLES = ("page.css", "chart.css", "sections.css", "narrow.css", "print.css")
SCRIPTS = ("ticks.js", "tooltip.js", "chart.js", "report.js")


@dataclass(frozen=True)
class Layer:
    """Something drawn, listed and switched as one: a line has one column, an interval two."""

    key: str
    label: str
    headings: dict[str, str]  # of its columns, in the table


HISTORY = Layer("actual", "Actual", {"y": "Actual"})
# In the order that people read them; the chart paints the last one first.
FORECAST = (
    Layer("forecast", "Forecast", {"yhat": "Forecast"}),
    Layer("interval80", "80% bounds", {"yhat_lower_80": "80% from", "yhat_upper_80": "80% to"}),
    Layer("interval95", "95% bounds", {"yhat_lower_95": "95% from", "yhat_upper_95": "95% to"}),
)
LAYERS = (HISTORY, *FORECAST)
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
    colors = f":root {{ --chosen-history: {history_color}; --chosen-prediction: {prediction_color}; }}\n"
    return template("page.html.j2").render(
        key=" ".join(f"{part} {value}" for part, value in report_key(report).items()),
        title=report.title,
        grain=report.grain,
        page_step=PAGE_STEPS[report.grain.name],
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
        payload={**data.payload(country), "symbol": formats.SYMBOLS.get(report.unit)},
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
    sentences = opening.answer, opening.warning, backtest.warning if backtest else ""
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


@dataclass(frozen=True)
class ChartData:
    """The numbers of the interactive chart and of the table below; columns: those of the forecast."""

    history: PeriodValues
    columns: dict[str, PeriodValues]
    chosen_decimals: int | None = None

    @classmethod
    def of(cls, report: ReportInput) -> ChartData:
        names = [name for layer in FORECAST for name in layer.headings]
        columns = {name: read_values(report.forecast, name, report.grain) for name in names}
        return cls(read_values(report.history, "y", report.grain), columns, report.decimals)

    @property
    def start(self) -> date:
        return min(self.history.start, self.columns["yhat"].start)

    @cached_property
    def largest(self) -> float:
        """The largest absolute value shown."""
        return max(abs(value) for daily in (self.history, *self.columns.values()) for value in daily.known())

    @cached_property
    def decimals(self) -> int:
        """As chosen; else none for counts and amounts in the millions, cents for money, or what it takes.

        A count of less than ten a day has one, as a forecast of 0.4 would be zero without.
        """
        if self.chosen_decimals is not None:
            return self.chosen_decimals
        largest = self.largest
        if largest >= 1e7:
            return 0
        if all(value.is_integer() for value in self.history.known()):
            return 1 if 0 < largest < 10 else 0
        return 2 if largest >= 1 or largest == 0 else 2 - math.floor(math.log10(largest))

    def ranges(self) -> list[dict[str, Any]]:
        """The ranges on offer, the whole chart first, without those that would show just as much.

        first, last: periods counted from the first one of the chart, both ends included.
        """
        forecast = self.columns["yhat"]
        first, last = self._index(forecast.start), self._index(max(self.history.end, forecast.end))
        starts = {label: first - back for label, back in self.history.grain.ranges.items()}
        starts["Forecast only"] = first
        narrower = {label: start for label, start in starts.items() if start > 0}
        return [
            {"label": label, "first": start, "last": last} for label, start in {"All": 0, **narrower}.items()
        ]

    def payload(self, country: str | None) -> dict[str, Any]:
        """JSON for chart.js, with the holidays of the country.

        Each layer starts at its own `from`, which spares a null per period of history.
        """
        layers = []
        for layer in LAYERS:
            dailies = [self.history if layer is HISTORY else self.columns[name] for name in layer.headings]
            bounds = [
                # Adding zero turns -0.0 into 0.0.
                [None if value is None else round(value, self.decimals) + 0.0 for value in daily.values]
                for daily in dailies
            ]
            first = self._index(dailies[0].start)
            layers.append({"key": layer.key, "label": layer.label, "from": first, "bounds": bounds})
        end = max(self.history.end, self.columns["yhat"].end)
        grain = self.history.grain
        all_days = grain.calendar(np.datetime64(self.start), np.datetime64(end))
        holidays: dict[int, list[str]] = {}
        for name, days in holiday_periods(country, all_days, grain).items():
            for day in days.astype(object):
                holidays.setdefault(self._index(day), []).append(name)
        return {
            "start": self.start.isoformat(),
            "grain": grain.name,
            "holidays": {day: ", ".join(names) for day, names in holidays.items()},
            "forecastStart": self._index(self.columns["yhat"].start),
            "decimals": self.decimals,
            "layers": layers,
        }

    def _index(self, day: date) -> int:
        return self.history.grain.between(self.start, day)
