"""The checks that new forecasts of the parts must pass, and the warning of those that beat no naive one.

All of them look at whole columns: there may be ten thousand parts.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from modal_forecast.backtest import NAIVE_MEANING
from modal_forecast.grain import Grain
from modal_forecast.messages import ForecastAnswer
from modal_forecast.report.formats import counted, plural
from serverless_assets.forecasting.checks import (
    PARTS_BEAT_NAIVE,
    PARTS_NOT_NEGATIVE,
    CheckResult,
    first_fault,
    value_faults,
)
from serverless_assets.forecasting.declaration import ForecastDeclaration, Parts
from serverless_assets.forecasting.part_history import PartHistories

# In the state of their table: how many parts there are, and which do not beat a naive forecast.
COUNT, WEAK = "parts", "weak_parts"
NAMED, LONGEST_NAME = 5, 60
# Sums of thousands of floats differ in their last digits.
TOLERANCE = 1e-6


def check_parts(
    declaration: ForecastDeclaration,
    parts: Parts,
    rows: pa.Table,
    total: pa.Table,
    facts: Mapping[str, Any],
) -> Sequence[CheckResult]:
    """Return the result of each check on the parts in check_specs().

    Args:
        rows: those of the table of parts, in any order.
        total: the published forecast, ds and yhat in order of ds.
        facts: those kept with the table of parts: COUNT and WEAK.
    """
    grain = declaration.time_grain
    finite, negative, out_of_order = value_faults(rows, parts.name)
    faults = {
        "forecasts_are_complete": _incomplete(parts, grain, rows, total, facts[COUNT]),
        "forecasts_are_finite": finite,
        PARTS_NOT_NEGATIVE: negative,
        "forecasts_bounds_in_order": out_of_order,
        "forecasts_add_up": _gap(parts, grain, rows, total),
        PARTS_BEAT_NAIVE: _weak_text(parts, facts[WEAK]),
    }
    if declaration.sign == "any":
        del faults[PARTS_NOT_NEGATIVE]
    return [CheckResult(parts.asset, name, fault) for name, fault in faults.items()]


def weak_parts(
    parts: Parts, histories: PartHistories, answers: Mapping[str, ForecastAnswer]
) -> Mapping[str, Any]:
    """Return which parts err no less in the back-test than a naive forecast, to be kept as WEAK.

    A part whose history is too short to tell is not among them, nor one that the naive forecast always got
    right.

    Returns:
        count, tested: how many, and of how many. worst: a phrase on each of the worst, and of equally bad
        ones on the largest.
    """
    tested, weak = 0, []
    for id, name in zip(histories.ids, histories.names, strict=True):
        answer = answers[id]
        skill, margin = answer.diagnostics.get("skill"), answer.diagnostics.get("skill_margin")
        if skill is None or (margin and -margin <= skill <= 0):
            continue
        tested += 1
        if skill <= 0 and (answer.diagnostics.get("backtest") or {}).get("wape"):
            expected = float(answer.forecast["yhat"].to_numpy().sum())
            naive = NAIVE_MEANING[answer.diagnostics["best_naive"]]
            than = f"errs {-skill:.0%} more than {naive}" if skill < 0 else f"as {naive}"
            # An id alone, such as 2, says little.
            part = name if name != id else f"{parts.noun} {id}"
            weak.append((skill, -expected, f"{part[:LONGEST_NAME]} ({than})"))
    worst = [phrase for _, _, phrase in sorted(weak)[:NAMED]]
    return {"count": len(weak), "tested": tested, "worst": worst}


def _incomplete(parts: Parts, grain: Grain, rows: pa.Table, total: pa.Table, count: int) -> str:
    """Return what is missing or too much of a row for each part and row of the total; empty if nothing is."""
    days, horizon = total["ds"].to_numpy(), total.num_rows
    ids = rows[parts.id].combine_chunks().dictionary_encode()
    if len(ids.dictionary) != count:
        return f"There are rows of {counted(len(ids.dictionary), parts.noun)}, and {count:,} were forecast."
    index, is_expected = _day_index(rows, total)
    beyond = {f"the total ends on {days[-1]}, after {grain.counted(horizon)}": ~is_expected}
    if fault := first_fault(rows, beyond, parts.name):
        return fault
    cells = np.bincount(ids.indices.to_numpy() * horizon + index, minlength=count * horizon)
    wrong = np.flatnonzero(cells != 1)
    if not len(wrong):
        return ""
    part, day = ids.dictionary[int(wrong[0]) // horizon].as_py(), days[wrong[0] % horizon]
    more = f", as {len(wrong) - 1:,} more of the {len(cells):,}" if len(wrong) > 1 else ""
    return f"{part}, {day}: it has {counted(int(cells[wrong[0]]), 'row')} instead of one{more}."


def _gap(parts: Parts, grain: Grain, rows: pa.Table, total: pa.Table) -> str:
    """Return a sentence on the first row in which the parts do not add up to the total; empty without."""
    index, is_expected = _day_index(rows, total)
    # Values that are not numbers fail another check.
    yhat = np.nan_to_num(rows["yhat"].to_numpy()[is_expected])
    sums, sizes = (np.bincount(index[is_expected], of, total.num_rows) for of in (yhat, np.abs(yhat)))
    expected = total["yhat"].to_numpy()
    bad = np.flatnonzero(np.abs(sums - expected) > TOLERANCE * np.maximum(sizes, np.abs(expected)))
    if not len(bad):
        return ""
    more = f", and {len(bad) - 1:,} more of the {grain.counted(total.num_rows)}" if len(bad) > 1 else ""
    day = total["ds"][int(bad[0])].as_py()
    return (
        f"{day}: the {plural(parts.noun)} add up to {sums[bad[0]]:,.2f}, and the total is "
        f"{expected[bad[0]]:,.2f}{more}."
    )


def _day_index(rows: pa.Table, total: pa.Table) -> tuple[np.ndarray, np.ndarray]:
    """Return for each row which one of the total it is of, and whether it is of one."""
    days, expected = rows["ds"].to_numpy(), total["ds"].to_numpy()
    index = np.minimum(np.searchsorted(expected, days), len(expected) - 1)
    return index, expected[index] == days


def _weak_text(parts: Parts, weak: Mapping[str, Any]) -> str:
    if not weak["count"]:
        return ""
    more = weak["count"] - len(weak["worst"])
    named = ", ".join(weak["worst"]) + (f" and {more:,} more" if more else "")
    verb = "does" if weak["count"] == 1 else "do"
    return (
        f"{weak['count']:,} of {counted(weak['tested'], parts.noun)} {verb} not beat repeating the past in "
        f"the back-test: {named}."
    )
