"""The checks that a new forecast must pass before it replaces the last one, and one on its history.

People plan by the forecast, so a failure is an error that stops the run before anything is stored.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from itertools import pairwise
from typing import Any

import dagster as dg
import numpy as np
import pyarrow as pa

from modal_forecast.grain import Grain
from serverless_assets.asset_keys import asset_key
from serverless_assets.errors import UserError
from serverless_assets.forecasting.declaration import ForecastDeclaration
from serverless_assets.forecasting.record import grain_in, horizon_in

NOT_NEGATIVE = "forecast_is_not_negative"
NO_WORSE = "forecast_is_no_worse_than_naive"
DESCRIPTIONS = {
    "forecast_is_complete": "A row for each period of the horizon, from the one after the history on.",
    "forecast_is_finite": "Every value and bound is a number.",
    NOT_NEGATIVE: "No value and no bound is below zero.",
    "forecast_bounds_in_order": "The 95% bounds enclose the 80% bounds, and these the value.",
    NO_WORSE: "In the back-test it errs no more than repeating the last week, month or year.",
}
# Warnings: the forecast may be used all the same.
HISTORY = "forecast_history_is_plausible"
WARNINGS = {HISTORY: "Nothing is dated in the future or far from all else, and the history is not old."}
PARTS_NOT_NEGATIVE, PARTS_BEAT_NAIVE = "forecasts_are_not_negative", "forecasts_beat_naive"
PART_DESCRIPTIONS = {
    "forecasts_are_complete": "A row for each of them and each period of the total.",
    "forecasts_are_finite": DESCRIPTIONS["forecast_is_finite"],
    PARTS_NOT_NEGATIVE: DESCRIPTIONS[NOT_NEGATIVE],
    "forecasts_bounds_in_order": DESCRIPTIONS["forecast_bounds_in_order"],
    "forecasts_add_up": "In every period they add up to the total.",
}
PART_WARNINGS = {
    PARTS_BEAT_NAIVE: "In the back-test each errs less than repeating the last week, month or year."
}
ALL_DESCRIPTIONS = {**DESCRIPTIONS, **WARNINGS, **PART_DESCRIPTIONS, **PART_WARNINGS}
# The columns of values, from the lowest to the highest.
VALUES = ("yhat_lower_95", "yhat_lower_80", "yhat", "yhat_upper_80", "yhat_upper_95")


@dataclass(frozen=True)
class CheckResult:
    """The result of one check: `fault` is a sentence about the first bad day, empty if the check passed."""

    asset: str
    name: str
    fault: str
    picture: dg.MarkdownMetadataValue | None = None

    @property
    def is_warning(self) -> bool:
        """Whether the forecast may be used all the same."""
        return self.name in WARNINGS or self.name in PART_WARNINGS

    @property
    def result(self) -> dg.AssetCheckResult:
        """The result as Dagster shows it; an error stops the assets that follow the forecast."""
        return dg.AssetCheckResult(
            passed=not self.fault,
            asset_key=asset_key(self.asset),
            check_name=self.name,
            severity=dg.AssetCheckSeverity.WARN if self.is_warning else dg.AssetCheckSeverity.ERROR,
            description=self.fault or ALL_DESCRIPTIONS[self.name],
            metadata={"picture": self.picture} if self.picture else {},
        )


class ForecastUnsound(UserError):
    """A new forecast that failed a check and does not replace the last one."""

    def __init__(self, results: Sequence[CheckResult]) -> None:
        super().__init__(f"The forecast was refused, and the last one stays. {failures(results)}")
        self.results = results


def check_specs(declaration: ForecastDeclaration) -> list[dg.AssetCheckSpec]:
    """Return the specs of all checks on the forecasts of the total and of the parts."""
    checks = [(declaration.asset, DESCRIPTIONS, WARNINGS)]
    if declaration.parts:
        checks.append((declaration.parts.asset, PART_DESCRIPTIONS, PART_WARNINGS))
    return [
        dg.AssetCheckSpec(name, asset=asset, description=text, blocking=name in blocking)
        for asset, blocking, warnings in checks
        for name, text in {**blocking, **warnings}.items()
        if name not in (NOT_NEGATIVE, PARTS_NOT_NEGATIVE) or declaration.sign == "non-negative"
    ]


def check_forecast(
    declaration: ForecastDeclaration,
    rows: pa.Table,
    facts: Mapping[str, Any],
    draw_backtest: Callable[[], dg.MarkdownMetadataValue | None] = lambda: None,
) -> Sequence[CheckResult]:
    """Return the result of each blocking check in check_specs().

    Args:
        rows: `ds` date32 and VALUES float64, one row a day, week or month in any order.
        facts: those kept with the forecast: data_as_of, horizon, grain and the scores of the back-test.
        draw_backtest: returns a picture of the back-test, for a forecast that is worse than naive.
    """
    last_day, grain = date.fromisoformat(facts["data_as_of"]), grain_in(facts)
    expected = [grain.start(last_day, later) for later in range(1, horizon_in(facts) + 1)]
    finite, negative, out_of_order = value_faults(rows)
    if negative and facts.get("n_negative"):
        # A history with many negative values gives a forecast with some.
        negative += (
            f" {facts['n_negative']:,} of the {facts['n_history']:,} {grain.plural} of the history are "
            f"negative: see {declaration.relation}."
        )
    # A history that is too short for a back-test has no skill, and passes.
    is_worse = (facts.get("skill") or 0) < -(facts.get("skill_margin") or 0)
    faults = {
        "forecast_is_complete": _incomplete(sorted(rows["ds"].to_pylist()), expected, last_day, grain),
        "forecast_is_finite": finite,
        NOT_NEGATIVE: negative,
        "forecast_bounds_in_order": out_of_order,
        NO_WORSE: facts["why"] if is_worse else "",
    }
    if declaration.sign == "any":
        del faults[NOT_NEGATIVE]
    picture = draw_backtest() if is_worse else None
    return [
        CheckResult(declaration.asset, name, fault, picture if name == NO_WORSE else None)
        for name, fault in faults.items()
    ]


def failures(results: Sequence[CheckResult]) -> str | None:
    """Return the failed checks and their faults in one line; None if all but warnings passed."""
    failed = [check for check in results if check.fault and not check.is_warning]
    return " ".join(f"{check.name}: {check.fault}" for check in failed) or None


def value_faults(rows: pa.Table, part: str = "") -> tuple[str, str, str]:
    """Return a sentence on values that are no numbers, are below zero, and are in the wrong order.

    Each is empty if there is none. part: the column with the name of a part, if rows are of parts.
    """
    values = {name: rows[name].to_numpy() for name in VALUES}
    finite = {name: np.isfinite(column) for name, column in values.items()}
    no_number = {f"{name} is no number": ~finite[name] for name in VALUES}
    # Values that are not numbers fail the first check alone.
    negative = {f"{name} is {{{name}:,.2f}}": finite[name] & (values[name] < 0) for name in VALUES}
    out_of_order = {
        f"{low} is above {high}": finite[low] & finite[high] & (values[low] > values[high])
        for low, high in pairwise(VALUES)
    }
    return (
        first_fault(rows, no_number, part),
        first_fault(rows, negative, part),
        first_fault(rows, out_of_order, part),
    )


def first_fault(rows: pa.Table, masks: Mapping[str, np.ndarray], part: str = "") -> str:
    """Return a sentence on the earliest bad row, and how many there are; empty if there is none.

    Args:
        masks: what is wrong, with the columns of a row in braces -> whether it is, for each row.
        part: the column with the name of a part, if rows are of parts.
    """
    bad = np.flatnonzero(np.logical_or.reduce([*masks.values()]))
    if not len(bad):
        return ""
    first = int(bad[np.argmin(rows["ds"].to_numpy()[bad])])
    [row] = rows.slice(first, 1).to_pylist()
    clause = next(clause for clause, mask in masks.items() if mask[first]).format_map(row)
    name = f"{row[part]}, " if part else ""
    more = f", and {len(bad) - 1:,} more of the {rows.num_rows:,} rows" if len(bad) > 1 else ""
    return f"{name}{row['ds']}: {clause}{more}."


def _incomplete(days: Sequence[date], expected: Sequence[date], last_day: date, grain: Grain) -> str:
    horizon = grain.counted(len(expected))
    if list(days) == expected:
        return ""
    missing = sorted(set(expected) - set(days))
    if missing:
        return f"{missing[0]} is missing, and {len(missing) - 1} more of the {horizon}."
    beyond = sorted(set(days) - set(expected))
    if beyond:
        return f"{beyond[0]} is not among the {horizon} after {last_day}."
    return f"{next(day for day in days if days.count(day) > 1)} is there more than once."
