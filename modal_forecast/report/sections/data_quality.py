"""What the forecast is based on, in sentences."""

from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

from modal_forecast.grain import DAY, Grain
from modal_forecast.report import formats
from modal_forecast.report.values import PeriodValues

RUNS_NAMED = 5
# A larger share of days of zero is counted, not named.
FEW_ZEROS = 0.2


def data_quality(history: PeriodValues, notes: Sequence[str], diagnostics: Mapping[str, Any]) -> list[str]:
    """Return how long the history is, what it lacks, and what was done about it."""
    grain = history.grain
    days = [*zip(history.days(), history.values, strict=True)]
    missing = [day for day, value in days if value is None]
    zero = [day for day, value in days if value == 0]
    observed = len(days) - len(missing)
    sentences = [
        f"{grain.counted(observed)} of history, from {grain.label(history.start)} "
        f"to {grain.label(history.end)}.",
        f"{_runs_text(missing, 'missing', grain)} The forecast does without them."
        if missing
        else f"No {grain.name} is missing.",
    ]
    if zero and len(zero) < FEW_ZEROS * observed:
        sentences.append(_runs_text(zero, "zero (closed, it seems)", grain))
    elif zero:
        sentences.append(f"{len(zero):,} of {grain.counted(observed)} are zero.")
    sentences += [*notes, *diagnostics.get("fallbacks", ())]
    if clipped := diagnostics.get("clipped_yhat_days"):
        where = f"{grain.preposition} {grain.counted(clipped)}"
        sentences.append(f"The forecast was below zero {where} and raised to zero there.")
    return sentences


def _runs_text(days: Sequence[date], quality: str, grain: Grain) -> str:
    """3 days are missing: 2 Jan 2026 to 3 Jan 2026, 9 Jan 2026."""
    runs: list[tuple[date, date]] = []
    for day in days:
        if runs and grain.between(runs[-1][1], day) == 1:
            runs[-1] = (runs[-1][0], day)
        else:
            runs.append((day, day))
    ends = [[_name(day, grain) for day in run] for run in runs[-RUNS_NAMED:]]
    named = ", ".join(first if first == last else f"{first} to {last}" for first, last in ends)
    rest = "; the last of them " if len(runs) > RUNS_NAMED else ": "
    return f"{grain.counted(len(days))} {'is' if len(days) == 1 else 'are'} {quality}{rest}{named}."


def _name(day: date, grain: Grain) -> str:
    """3 Feb 2026, or February 2026"""
    return formats.short_date(day) if grain is DAY else grain.label(day)
