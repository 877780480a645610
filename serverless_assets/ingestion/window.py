"""The span of time that a load covers: whole months."""

from dataclasses import dataclass
from datetime import date


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
        """The window from the month of `first` to the month of `last`, both included."""
        return cls(first.replace(day=1), next_month(last))

    def months(self) -> list[date]:
        """The first day of every month in the window."""
        months = [self.start]
        while (month := next_month(months[-1])) < self.end:
            months.append(month)
        return months


def next_month(day: date) -> date:
    """The first day of the month after that of `day`."""
    return date(day.year + day.month // 12, day.month % 12 + 1, 1)
