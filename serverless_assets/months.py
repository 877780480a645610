"""Calendar months: the next one, those of a window, and a few of them in a sentence."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date

from serverless_assets.names import name_some

MONTHS_NAMED = 6


def next_month(day: date) -> date:
    """Return the first day of the month after that of `day`."""
    return date(day.year + day.month // 12, day.month % 12 + 1, 1)


@dataclass(frozen=True)
class Window:
    """Days from `start` up to, not including, `end`; both the first of a month."""

    start: date
    end: date

    def __str__(self) -> str:
        return f"{self.start} up to {self.end}"

    def __contains__(self, day: date | str) -> bool:
        """Whether a day, or the ISO form of one, lies in the window."""
        return self.start.isoformat() <= str(day) < self.end.isoformat()

    @classmethod
    def of_months(cls, first: date, last: date) -> "Window":
        """Return the window from the month of `first` to the month of `last`, both included."""
        return cls(first.replace(day=1), next_month(last))

    def with_lookback(self, months: int) -> "Window":
        """Return the window that begins so many months earlier."""
        month = self.start.year * 12 + self.start.month - 1 - months
        return Window(date(month // 12, month % 12 + 1, 1), self.end)

    def months(self) -> list[date]:
        """Return the first day of every month in the window."""
        months = [self.start]
        while (month := next_month(months[-1])) < self.end:
            months.append(month)
        return months


def name_months(months: Iterable[date | str]) -> str:
    """Return the first few months for a sentence, such as "2026-01, 2026-02 and 3 more".

    months: a day of each, as a date or in ISO form.
    """
    return name_some([str(month)[:7] for month in months], MONTHS_NAMED)
