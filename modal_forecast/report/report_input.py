"""What a report is made from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from modal_forecast.report.colors import check_color

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class ReportInput:
    """A daily series, its forecast, what is known about that forecast, and how to show them.

    The first two are needed. Everything after them may be missing: the page then leaves a section out, or
    says in a line why it is empty. A figure that is missing, None or NaN is shown as not known. Shares and
    errors are 0..1. A bias is a share of what came, above zero if the forecast was too high. Days are ISO
    texts or dates.

    history: ds date32, y float64, null where a day is missing.
    forecast: ds date32, and float64 yhat, yhat_lower_80, yhat_upper_80, yhat_lower_95, yhat_upper_95.
    unit: of the series; a currency such as USD or $ is written before its amounts.
    facts: label to value, shown under "How it was made" in the order given.
    windows: bounds of sums, each {days, lower_80, upper_80}: of the first `days` days of the forecast.
    backtest: origins, horizon (counts); mase, wape, bias, coverage_80, coverage_95; naive {name, mase, wape},
        where "repeating <name>" reads well; skill (0.28: errs 28% less than naive); beats_naive;
        models [{name, mase, weight}]; last_origin: a Compared, see below.
    components: weekly, 7 effects, Monday first; yearly, 12 (months) or 53 (weeks) effects; trend
        [{ds: month, value: level of a day}]; holidays [{name, ds, effect}]. Effects are in the unit.
    stores: each {name, history, forecast}, tables as above; optionally windows.
    accuracy: vintages [{made_on, days, wape, bias, mase, coverage_80, coverage_95}], where `days` is how many
        have come and were scored; compared: a Compared with made_on.
    notes: sentences on fallbacks and clipping.

    A Compared holds lists of one length: ds, actual (None where not known yet), yhat, lower_80, upper_80.

    Raises ValueError for a colour that is none, and when there is nothing to show.
    """

    history: pa.Table
    forecast: pa.Table
    title: str = "Forecast"
    unit: str = ""
    color_history: str = "blue"
    color_prediction: str = "red"
    facts: Mapping[str, str] = field(default_factory=dict)
    windows: Sequence[Mapping[str, Any]] = ()
    backtest: Mapping[str, Any] | None = None
    components: Mapping[str, Any] | None = None
    stores: Sequence[Mapping[str, Any]] = ()
    accuracy: Mapping[str, Any] | None = None
    notes: Sequence[str] = ()

    def __post_init__(self) -> None:
        check_color(self.color_history)
        check_color(self.color_prediction)
        if self.history["y"].null_count == self.history.num_rows:
            raise ValueError("A report needs at least one day of history.")
        if self.forecast.num_rows == 0:
            raise ValueError("A report needs at least one day of forecast.")
