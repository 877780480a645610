"""What a forecast must be to follow the last one: sound, and better than no model at all. Pure.

People plan by it, so a fault is an error: it stops the line before anything is stored.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from itertools import pairwise
from typing import Any

import dagster as dg
import pyarrow as pa

from serverless_assets.errors import UserError

ASSET = "order_forecast"
NO_WORSE = "forecast_is_no_worse_than_naive"
# From the lowest to the highest.
VALUES = ("yhat_lower_95", "yhat_lower_80", "yhat", "yhat_upper_80", "yhat_upper_95")

Row = Mapping[str, float]


@dataclass(frozen=True)
class CheckResult:
    """What one check found; `fault` is a sentence with the first bad day, empty if there is none."""

    name: str
    fault: str
    picture: dg.MarkdownMetadataValue | None = None
    blocks: bool = True

    @property
    def result(self) -> dg.AssetCheckResult:
        """The result beside the forecast; one that blocks stops what is made from it."""
        return dg.AssetCheckResult(
            passed=not self.fault,
            asset_key=ASSET,
            check_name=self.name,
            severity=dg.AssetCheckSeverity.ERROR if self.blocks else dg.AssetCheckSeverity.WARN,
            description=self.fault or {**DESCRIPTIONS, **WARNINGS}[self.name],
            metadata={"picture": self.picture} if self.picture else {},
        )


class ForecastUnsound(UserError):
    """An answer that may not take the place of the last forecast; `found` is what each check says of it."""

    def __init__(self, found: Sequence[CheckResult]) -> None:
        super().__init__(f"The forecast was refused, and the last one stays. {unsound(found)}")
        self.found = found


DESCRIPTIONS = {
    "forecast_is_complete": "A row for each day of the horizon, from the day after the history on.",
    "forecast_is_finite": "Every value and bound is a number.",
    "forecast_is_not_negative": "No value and no bound is below zero: revenue cannot be, but for refunds.",
    "forecast_bounds_in_order": "The 95% bounds enclose the 80% bounds, and these the value.",
    NO_WORSE: "In the back-test it errs no more than repeating last week's or last year's days.",
}


# People may plan by the forecast all the same.
HISTORY = "forecast_history_is_plausible"
WARNINGS = {HISTORY: "No order is dated in the future or far from all others, and the history is not old."}


def check_specs() -> list[dg.AssetCheckSpec]:
    """The checks beside the forecast."""
    return [
        dg.AssetCheckSpec(name, asset=ASSET, description=words, blocking=name in DESCRIPTIONS)
        for name, words in {**DESCRIPTIONS, **WARNINGS}.items()
    ]


def history_check(warnings: Sequence[str]) -> CheckResult:
    """The check of the days that the forecast was made from; warnings: what history.py says of them."""
    return CheckResult(HISTORY, " ".join(warnings), blocks=False)


def sanity(
    rows: pa.Table, facts: Mapping[str, Any], picture: Callable[[], dg.MarkdownMetadataValue | None]
) -> Sequence[CheckResult]:
    """What each check finds in a forecast.

    rows: `ds` date32 and VALUES float64, one row a day in any order.
    facts: what is kept with it: the last day of its history, its horizon, and how it did in the back-test.
    picture: draws the back-test, for people who are told that it was lost.
    """
    last_day, horizon = date.fromisoformat(facts["data_as_of"]), facts["horizon_days"]
    by_day = sorted(rows.select(["ds", *VALUES]).to_pylist(), key=lambda row: row["ds"])
    days = [row["ds"] for row in by_day]
    return [
        CheckResult("forecast_is_complete", _incomplete(days, last_day, horizon)),
        CheckResult("forecast_is_finite", _first(by_day, _not_finite)),
        CheckResult("forecast_is_not_negative", _with_cause(_first(by_day, _negative), facts)),
        CheckResult("forecast_bounds_in_order", _first(by_day, _out_of_order)),
        CheckResult(NO_WORSE, facts["why"], picture()) if _is_worse(facts) else CheckResult(NO_WORSE, ""),
    ]


def _is_worse(facts: Mapping[str, Any]) -> bool:
    # A history that is too short to tell is no reason to do without.
    return (facts.get("skill") or 0) < -(facts.get("skill_margin") or 0)


def sanity_of_held(rows: pa.Table, facts: Mapping[str, Any]) -> Sequence[CheckResult]:
    """What each check finds in a stored forecast, by the `facts` that are kept with it."""
    return sanity(rows, facts, lambda: None)


def unsound(found: Sequence[CheckResult]) -> str | None:
    """What is wrong with a forecast, in a line; None if nothing is."""
    return " ".join(f"{check.name}: {check.fault}" for check in found if check.fault) or None


def _incomplete(days: Sequence[date], last_day: date, horizon: int) -> str:
    expected = [last_day + timedelta(days=n) for n in range(1, horizon + 1)]
    if list(days) == expected:
        return ""
    missing = sorted(set(expected) - set(days))
    if missing:
        return f"{missing[0]} is missing, and {len(missing) - 1} more of the {horizon} days."
    beyond = sorted(set(days) - set(expected))
    if beyond:
        return f"{beyond[0]} is not among the {horizon} days after {last_day}."
    return f"{next(day for day in days if days.count(day) > 1)} is there more than once."


def _first(rows: Sequence[Row], fault: Callable[[Row], str]) -> str:
    return next((f"{row['ds']}: {found}." for row in rows if (found := fault(row))), "")


def _not_finite(row: Row) -> str:
    return next((f"{name} is no number ({row[name]})" for name in VALUES if not _is_number(row[name])), "")


def _negative(row: Row) -> str:
    return next((f"{n} is {row[n]:,.2f}" for n in VALUES if _is_number(row[n]) and row[n] < 0), "")


def _with_cause(fault: str, facts: Mapping[str, Any]) -> str:
    """The fault, and how many days of the history are negative: if many are, so is the forecast."""
    negative = facts.get("n_negative")
    if not fault or not negative:
        return fault
    return (
        f"{fault} {negative:,} of the {facts['n_history']:,} days of the history are negative: "
        "see daily_revenue."
    )


def _out_of_order(row: Row) -> str:
    # What is no number is in no order: another check tells of it.
    found = (f"{low} is above {high}" for low, high in pairwise(VALUES) if _exceeds(row[low], row[high]))
    return next(found, "")


def _exceeds(low: float, high: float) -> bool:
    return _is_number(low) and _is_number(high) and low > high


def _is_number(value: float | None) -> bool:
    return value is not None and math.isfinite(value)
