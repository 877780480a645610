"""What the forecast rests on, in sentences."""

from collections.abc import Sequence
from datetime import date, timedelta

from modal_forecast.report import formats
from modal_forecast.report.daily import Daily

NAMED = 5
# More days of zero than this share are counted, not named.
FEW = 0.2


def basis(history: Daily, notes: Sequence[str]) -> tuple[str, ...]:
    """How long the history is, which days it lacks, and what was done about it (`notes`)."""
    days = [*zip(history.days(), history.values, strict=True)]
    missing = [day for day, value in days if value is None]
    nothing = [day for day, value in days if value == 0]
    known = len(days) - len(missing)
    return (
        f"{formats.counted(known, 'day')} of history, from {formats.day(history.start)} "
        f"to {formats.day(history.end)}.",
        f"{_which(missing, 'missing')} The forecast does without them." if missing else "No day is missing.",
        *_zeros(nothing, known),
        *(str(note) for note in notes),
    )


def _zeros(days: Sequence[date], known: int) -> Sequence[str]:
    if not days:
        return ()
    if len(days) < FEW * known:
        return (_which(days, "zero (closed, it seems)"),)
    return (f"{len(days):,} of {formats.days(known)} are zero.",)


def _which(days: Sequence[date], what: str) -> str:
    """3 days are missing: 2 to 3 Jan 2026, 9 Jan 2026."""
    runs = _runs(days)
    named = ", ".join(_run(*run) for run in runs[-NAMED:])
    rest = "; the last of them " if len(runs) > NAMED else ": "
    return f"{formats.days(len(days))} {'is' if len(days) == 1 else 'are'} {what}{rest}{named}."


def _runs(days: Sequence[date]) -> list[tuple[date, date]]:
    runs: list[tuple[date, date]] = []
    for day in days:
        if runs and day - runs[-1][1] == timedelta(days=1):
            runs[-1] = (runs[-1][0], day)
        else:
            runs.append((day, day))
    return runs


def _run(first: date, last: date) -> str:
    end = f"{last.day} {last:%b %Y}"
    return end if first == last else f"{first.day} {first:%b %Y} to {end}"
