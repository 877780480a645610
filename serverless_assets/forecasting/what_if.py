"""Totals of a what-if forecast, beside those of the published forecast."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date

import pyarrow as pa

WINDOWS = (7, 30, 90)


@dataclass(frozen=True)
class WindowComparison:
    """The what-if forecast summed over `days` days, and the published one over the same days.

    There are no bounds: the sum of daily bounds is not a bound of the sum. `published` is None if the
    published forecast lacks some of these days.
    """

    window: str
    days: int
    what_if: float
    published: float | None

    @property
    def change_percent(self) -> float | None:
        """4.2 for 4.2 % more than what is published."""
        return round((self.what_if / self.published - 1) * 100, 2) if self.published else None

    def __str__(self) -> str:
        published = "none" if self.published is None else f"{self.published:,.0f}"
        change = "" if self.change_percent is None else f"{self.change_percent:+.2f} %"
        return f"{self.window:<28}{self.what_if:>16,.0f}{published:>16}{change:>12}"


def compare(what_if: pa.Table, published: pa.Table | None) -> list[WindowComparison]:
    """Compare the next 7, 30 and 90 days, the whole horizon, and the days of both if those are fewer.

    The tables have the columns ds and yhat; `published` is None if there is no forecast yet.
    """
    new, old = (
        dict(zip(table["ds"].to_pylist(), table["yhat"].to_pylist(), strict=True))
        if table is not None
        else {}
        for table in (what_if, published)
    )
    days = sorted(new)
    windows = {f"next {count} days": days[:count] for count in WINDOWS if count < len(days)}
    shared = [day for day in days if day in old]
    if shared and len(shared) < len(days):
        windows[f"the {len(shared)} days of both"] = shared
    windows[f"the whole horizon, {len(days)} days"] = days
    return [
        WindowComparison(
            name, len(window), _sum(new, window), _sum(old, window) if old.keys() >= set(window) else None
        )
        for name, window in windows.items()
    ]


def as_text(comparisons: list[WindowComparison]) -> Iterator[str]:
    """Return the comparison as lines."""
    yield f"{'':<28}{'what if':>16}{'published':>16}{'change':>12}"
    yield from map(str, comparisons)


def _sum(values: Mapping[date, float], days: list[date]) -> float:
    return round(sum(values[day] for day in days), 2)
