"""A forecast that is not published, beside the one that is. Pure."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date

import pyarrow as pa

WINDOWS = (7, 30, 90)


@dataclass(frozen=True)
class Compared:
    """The forecast summed over `days` days, and the published one over the same days.

    There are no bounds: the sum of daily bounds is not a bound of the sum. `published` is None if the
    published forecast does not have all of these days.
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


def compare(what_if: pa.Table, published: pa.Table | None) -> list[Compared]:
    """The next 7, 30 and 90 days and the whole horizon, and what both have if that is less.

    The tables have the columns ds and yhat; `published` is None if there is no forecast yet.
    """
    new, old = _by_day(what_if), _by_day(published) if published is not None else {}
    days = sorted(new)
    windows = {f"next {count} days": days[:count] for count in WINDOWS if count < len(days)}
    shared = [day for day in days if day in old]
    if shared and len(shared) < len(days):
        windows[f"the {len(shared)} days of both"] = shared
    windows[f"the whole horizon, {len(days)} days"] = days
    return [
        Compared(name, len(those), _sum(new, those), _sum(old, those) if old.keys() >= set(those) else None)
        for name, those in windows.items()
    ]


def as_text(compared: list[Compared]) -> Iterator[str]:
    """The comparison as lines."""
    yield f"{'':<28}{'what if':>16}{'published':>16}{'change':>12}"
    yield from map(str, compared)


def _by_day(forecast: pa.Table) -> Mapping[date, float]:
    return dict(zip(forecast["ds"].to_pylist(), forecast["yhat"].to_pylist(), strict=True))


def _sum(values: Mapping[date, float], days: list[date]) -> float:
    return round(sum(values[day] for day in days), 2)
