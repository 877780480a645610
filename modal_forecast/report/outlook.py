"""What to expect: the totals that a decision is taken on."""

from collections.abc import Sequence
from dataclasses import dataclass

from modal_forecast.report import formats
from modal_forecast.report.daily import Daily
from modal_forecast.report.figures import Card
from modal_forecast.report.formats import Amounts
from modal_forecast.report.windows import WindowTotal, last_actual, main_window

WIDEST = "“At the widest” adds up each day's 80% bounds. Good and bad days partly cancel out: less is likely."
BOUNDS = "“Between” holds the total in about 80 of 100 cases."
LAST_YEAR = "Last year means 52 weeks earlier, so that the same weekdays are compared."


@dataclass(frozen=True)
class Outlook:
    answer: str
    cards: tuple[Card, ...]
    notes: tuple[str, ...]


def outlook(history: Daily, windows: Sequence[WindowTotal], amounts: Amounts) -> Outlook:
    """The opening sentence, and a card for each window and for the last day that is known."""
    last_day, last_value = last_actual(history)
    last = Card("Last actual day", amounts(last_value), formats.day(last_day))
    answer = _answer(main_window(windows), amounts)
    return Outlook(answer, (*(_card(window, amounts) for window in windows), last), _notes(windows))


def range_text(window: WindowTotal, amounts: Amounts) -> str:
    """between $80,100 and $96,500, with what kind of bounds these are; empty if they are unknown"""
    if window.lower is None or window.upper is None:
        return ""
    text = f"between {amounts(window.lower)} and {amounts(window.upper)}"
    return text if window.of_sum else f"at the widest {text}"


def _answer(window: WindowTotal, amounts: Amounts) -> str:
    period = "the next day" if window.days == 1 else f"the next {window.days} days"
    between = range_text(window, amounts)
    expected = f"Expect about {amounts(window.total)} in {period}" + (f", {between}." if between else ".")
    if window.change is None:
        return expected
    if abs(window.change) < formats.NOTHING:
        return f"{expected} That is about as much as on the same days of last year."
    change = f"{formats.share(abs(window.change))} {'more' if window.change > 0 else 'less'}"
    return f"{expected} That is {change} than on the same days of last year."


def _card(window: WindowTotal, amounts: Amounts) -> Card:
    if window.change is not None:
        compared = f"{formats.percent(window.change)} on last year's {amounts(window.last_year)}"
    elif window.last_year is not None:
        compared = f"last year {amounts(window.last_year)}"
    elif not window.days_known_last_year:
        compared = "no last year to compare with"
    else:
        compared = f"last year known on {window.days_known_last_year} of {formats.days(window.days)}"
    return Card(
        label="Next day" if window.days == 1 else f"Next {window.days} days",
        value=amounts(window.total),
        detail=("to " if window.days > 1 else "") + formats.day(window.last_day),
        beside=tuple(line for line in (range_text(window, amounts), compared) if line),
    )


def _notes(windows: Sequence[WindowTotal]) -> tuple[str, ...]:
    notes = []
    if any(window.of_sum for window in windows):
        notes.append(BOUNDS)
    if not all(window.of_sum for window in windows):
        notes.append(WIDEST)
    if any(window.days_known_last_year for window in windows):
        notes.append(LAST_YEAR)
    return tuple(notes)
