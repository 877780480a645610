"""What a report is made from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from modal_forecast.report.colors import check_color

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class ReportInput:
    """A daily series, its forecast, and how to show them.

    history: ds date32, y float64, null where a day is missing.
    forecast: ds date32, and float64 yhat, yhat_lower_80, yhat_upper_80, yhat_lower_95, yhat_upper_95.
    facts: label to value, shown under "How it was made" in the order given.

    Raises ValueError for a colour that is none, and when there is nothing to show.
    """

    history: pa.Table
    forecast: pa.Table
    title: str = "Forecast"
    unit: str = ""
    color_history: str = "blue"
    color_prediction: str = "red"
    facts: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_color(self.color_history)
        check_color(self.color_prediction)
        if self.history["y"].null_count == self.history.num_rows:
            raise ValueError("A report needs at least one day of history.")
        if self.forecast.num_rows == 0:
            raise ValueError("A report needs at least one day of forecast.")
