"""The numbers behind the chart, in the form that chart.js reads."""

import math
from dataclasses import dataclass
from datetime import date
from functools import cached_property
from typing import Any

from modal_forecast.report.daily import Daily, read_daily
from modal_forecast.report.report_input import ReportInput


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
class Range:
    """A stretch of days to look at. Days are counted from the first one of the chart, both ends included."""

    label: str
    first: int
    last: int


@dataclass(frozen=True)
class ChartData:
    history: Daily
    columns: dict[str, Daily]

    @property
    def forecast(self) -> Daily:
        return self.columns["yhat"]

    @property
    def start(self) -> date:
        return min(self.history.start, self.forecast.start)

    @cached_property
    def largest(self) -> float:
        """Of all values shown, whatever their sign."""
        return max(abs(value) for daily in self._all() for value in daily.known())

    @cached_property
    def decimals(self) -> int:
        """Cents for money, none for counts and for amounts in the millions, more for fractions of one."""
        largest = self.largest
        if largest >= 1e7 or (largest >= 100 and all(value.is_integer() for value in self.history.known())):
            return 0
        return 2 if largest >= 1 or largest == 0 else 2 - math.floor(math.log10(largest))

    def ranges(self) -> list[Range]:
        """The ranges on offer, the whole chart first; those that would show just as much are left out."""
        forecast, last = (
            self._index(self.forecast.start),
            self._index(max(self.history.end, self.forecast.end)),
        )
        wanted = [
            Range("Last year + forecast", forecast - 365, last),
            Range("Last 90 days + forecast", forecast - 90, last),
            Range("Forecast only", forecast, last),
        ]
        return [Range("All", 0, last), *(choice for choice in wanted if choice.first > 0)]

    def payload(self) -> dict[str, Any]:
        """JSON for chart.js. Each layer starts at its own `from`, which spares a null per day of history."""
        return {
            "start": self.start.isoformat(),
            "forecastStart": self._index(self.forecast.start),
            "decimals": self.decimals,
            "layers": [self._layer(layer) for layer in LAYERS],
        }

    def _layer(self, layer: Layer) -> dict[str, Any]:
        dailies = [self.history if layer is HISTORY else self.columns[column] for column in layer.headings]
        return {
            "key": layer.key,
            "label": layer.label,
            "from": self._index(dailies[0].start),
            "bounds": [[self._rounded(value) for value in daily.values] for daily in dailies],
        }

    def _rounded(self, value: float | None) -> float | None:
        # Adding zero turns -0.0 into 0.0.
        return None if value is None else round(value, self.decimals) + 0.0

    def _index(self, day: date) -> int:
        return (day - self.start).days

    def _all(self) -> list[Daily]:
        return [self.history, *self.columns.values()]


def chart_data(report: ReportInput) -> ChartData:
    columns = [column for layer in FORECAST for column in layer.headings]
    return ChartData(
        history=read_daily(report.history, "y"),
        columns={column: read_daily(report.forecast, column) for column in columns},
    )
