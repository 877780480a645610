"""Calendar months: the next one, and a few of them in a sentence."""

from collections.abc import Iterable
from datetime import date

from serverless_assets.names import name_some

MONTHS_NAMED = 6


def next_month(day: date) -> date:
    """Return the first day of the month after that of `day`."""
    return date(day.year + day.month // 12, day.month % 12 + 1, 1)


def name_months(months: Iterable[date | str]) -> str:
    """Return the first few months for a sentence, such as "2026-01, 2026-02 and 3 more".

    months: a day of each, as a date or in ISO form.
    """
    return name_some([str(month)[:7] for month in months], MONTHS_NAMED)
