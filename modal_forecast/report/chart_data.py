"""The numbers that the interactive chart draws: by the forecast's own periods, and by longer ones."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import date
from functools import cached_property
from typing import Any

import numpy as np

from modal_forecast.calendars import holiday_periods
from modal_forecast.grain import DAY, MONTH, WEEK, Grain
from modal_forecast.report.report_input import ReportInput
from modal_forecast.report.sections.outlook import BOUNDED, total_of
from modal_forecast.report.sections.periods import whole_periods
from modal_forecast.report.values import PeriodValues, read_values, total


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


@dataclass(frozen=True)
class ChartData:
    """The numbers of one view of the chart; of the first one also those of the table below.

    columns: those of the forecast. adds_bounds: whether the bounds are sums of those of each day.
    """

    history: PeriodValues
    columns: Mapping[str, PeriodValues]
    chosen_decimals: int | None = None
    adds_bounds: bool = False

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

    @property
    def grain(self) -> Grain:
        return self.history.grain

    def ranges(self) -> list[dict[str, Any]]:
        """The ranges on offer, the whole chart first, without those that would show just as much.

        first, last: periods counted from the first one of the chart, both ends included.
        """
        forecast = self.columns["yhat"]
        first, last = self._index(forecast.start), self._index(max(self.history.end, forecast.end))
        starts = {label: first - back for label, back in self.grain.ranges.items()}
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
        for layer in (
            HISTORY,
            *(layer for layer in FORECAST if layer.headings.keys() <= self.columns.keys()),
        ):
            dailies = [self.history if layer is HISTORY else self.columns[name] for name in layer.headings]
            bounds = [
                # Adding zero turns -0.0 into 0.0.
                [None if value is None else round(value, self.decimals) + 0.0 for value in daily.values]
                for daily in dailies
            ]
            first = self._index(dailies[0].start)
            label = layer.label + (", at the widest" if self.adds_bounds and len(bounds) > 1 else "")
            layers.append({"key": layer.key, "label": label, "from": first, "bounds": bounds})
        end = max(self.history.end, self.columns["yhat"].end)
        all_days = self.grain.calendar(np.datetime64(self.start), np.datetime64(end))
        holidays: dict[int, list[str]] = {}
        for name, days in holiday_periods(country, all_days, self.grain).items():
            for day in days.astype(object):
                holidays.setdefault(self._index(day), []).append(name)
        return {
            "start": self.start.isoformat(),
            "grain": self.grain.name,
            "holidays": {day: ", ".join(names) for day, names in holidays.items()},
            "forecastStart": self._index(self.columns["yhat"].start),
            "decimals": self.decimals,
            "layers": layers,
        }

    def _index(self, day: date) -> int:
        return self.grain.between(self.start, day)


def chart_views(data: ChartData, widths: Mapping[int, float]) -> list[ChartData]:
    """Return the views of the chart: `data` itself, and of days also their sums by week and month.

    widths: see outlook.sum_width().
    """
    longer = (WEEK, MONTH) if data.grain is DAY else ()
    return [data, *(view for period in longer if (view := _sums(data, period, widths)))]


def _sums(data: ChartData, period: Grain, widths: Mapping[int, float]) -> ChartData | None:
    """Return the sums of whole periods; None if history or forecast has no complete one.

    A period that has begun is part of the forecast, as in the tables of weeks and months.
    """
    history, forecast = data.history, data.columns
    first = period.start(history.start, 0 if period.start(history.start) == history.start else 1)
    ahead = whole_periods(forecast["yhat"], period)
    if not ahead or first >= ahead[0][0]:
        return None
    past = []
    for index in range(period.between(first, ahead[0][0])):
        begin, end = (history.index(period.start(first, number)) for number in (index, index + 1))
        values = history.values[begin:end]
        past.append(total(values) if len(values) == end - begin else None)
    totals = [total_of(days, (), history, forecast, widths) for days in ahead]
    sums = zip(*((amount.total, amount.lower, amount.upper) for amount in totals), strict=True)
    columns = {
        name: PeriodValues(ahead[0][0], values, period) for name, values in zip(BOUNDED, sums, strict=True)
    }
    summed = PeriodValues(first, tuple(past), period)
    if not summed.known() or not columns["yhat"].known():
        return None
    view = ChartData(summed, columns, data.decimals, any(amount.adds_bounds for amount in totals))
    # Beside thousands, cents are noise.
    return replace(view, chosen_decimals=0) if view.largest >= 1000 else view
