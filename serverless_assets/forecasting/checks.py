"""The checks that a new forecast must pass before it replaces the last one, and one on its history.

People plan by the forecast, so a failure is an error that stops the run before anything is stored.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from itertools import pairwise
from typing import Any

import dagster as dg
import pyarrow as pa

from modal_forecast.grain import Grain
from serverless_assets.asset_keys import asset_key
from serverless_assets.errors import UserError
from serverless_assets.forecasting.declaration import ForecastDeclaration
from serverless_assets.forecasting.forecast_file import grain_in, horizon_in

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

Row = Mapping[str, Any]


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
    by_day = sorted(rows.select(["ds", *VALUES]).to_pylist(), key=lambda row: row["ds"])
    negative = _first_fault(by_day, _negative)
    if negative and facts.get("n_negative"):
        # A history with many negative values gives a forecast with some.
        negative += (
            f" {facts['n_negative']:,} of the {facts['n_history']:,} {grain.plural} of the history are "
            f"negative: see {declaration.relation}."
        )
    # A history that is too short for a back-test has no skill, and passes.
    is_worse = (facts.get("skill") or 0) < -(facts.get("skill_margin") or 0)
    faults = {
        "forecast_is_complete": _incomplete([row["ds"] for row in by_day], expected, last_day, grain),
        "forecast_is_finite": _first_fault(by_day, _not_finite),
        NOT_NEGATIVE: negative,
        "forecast_bounds_in_order": _first_fault(by_day, _out_of_order),
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


def _first_fault(rows: Sequence[Row], find_fault: Callable[[Row], str | None]) -> str:
    return next((f"{row['ds']}: {fault}." for row in rows if (fault := find_fault(row))), "")


def _not_finite(row: Row) -> str | None:
    return next((f"{name} is no number ({row[name]})" for name in VALUES if not _is_number(row[name])), None)


def _negative(row: Row) -> str | None:
    return next((f"{n} is {row[n]:,.2f}" for n in VALUES if _is_number(row[n]) and row[n] < 0), None)


def _out_of_order(row: Row) -> str | None:
    # Values that are not numbers fail another check.
    pairs = [(low, high) for low, high in pairwise(VALUES) if _is_number(row[low]) and _is_number(row[high])]
    return next((f"{low} is above {high}" for low, high in pairs if row[low] > row[high]), None)


def _is_number(value: float | None) -> bool:
    return value is not None and math.isfinite(value)
