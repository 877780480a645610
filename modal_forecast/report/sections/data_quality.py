"""What the forecast is based on, in sentences."""

from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from typing import Any

from modal_forecast.report import formats
from modal_forecast.report.values import PeriodValues

RUNS_NAMED = 5
# A larger share of days of zero is counted, not named.
FEW_ZEROS = 0.2


def data_quality(history: PeriodValues, notes: Sequence[str], diagnostics: Mapping[str, Any]) -> list[str]:
    """Return how long the history is, which days it lacks, and what was done about it."""
    days = [*zip(history.days(), history.values, strict=True)]
    missing = [day for day, value in days if value is None]
    zero = [day for day, value in days if value == 0]
    observed = len(days) - len(missing)
    sentences = [
        f"{formats.days(observed)} of history, from {formats.day(history.start)} "
        f"to {formats.day(history.end)}.",
        f"{_days_text(missing, 'missing')} The forecast does without them."
        if missing
        else "No day is missing.",
    ]
    if zero and len(zero) < FEW_ZEROS * observed:
        sentences.append(_days_text(zero, "zero (closed, it seems)"))
    elif zero:
        sentences.append(f"{len(zero):,} of {formats.days(observed)} are zero.")
    sentences += [*notes, *diagnostics.get("fallbacks", ())]
    if clipped := diagnostics.get("clipped_yhat_days"):
        sentences.append(f"The forecast was below zero on {clipped} days and raised to zero there.")
    return sentences


def _days_text(days: Sequence[date], quality: str) -> str:
    """3 days are missing: 2 Jan 2026 to 3 Jan 2026, 9 Jan 2026."""
    runs: list[tuple[date, date]] = []
    for day in days:
        if runs and day - runs[-1][1] == timedelta(days=1):
            runs[-1] = (runs[-1][0], day)
        else:
            runs.append((day, day))
    ends = [[f"{day.day} {day:%b %Y}" for day in run] for run in runs[-RUNS_NAMED:]]
    named = ", ".join(first if first == last else f"{first} to {last}" for first, last in ends)
    rest = "; the last of them " if len(runs) > RUNS_NAMED else ": "
    return f"{formats.days(len(days))} {'is' if len(days) == 1 else 'are'} {quality}{rest}{named}."
