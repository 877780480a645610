"""Values of consecutive periods, and sums and means of values that may be missing."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Any

from modal_forecast.grain import DAY, Grain

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class PeriodValues:
    """One value per period from that of `start` on, None where a period has none.

    A period is named by its first day.
    """

    start: date
    values: tuple[float | None, ...]
    grain: Grain = DAY

    @property
    def end(self) -> date:
        """The first day of the last period."""
        return self.day(len(self.values) - 1)

    def day(self, index: int) -> date:
        return self.grain.start(self.start, index)

    def days(self) -> list[date]:
        return [self.day(index) for index in range(len(self.values))]

    def index(self, day: date) -> int:
        return self.grain.between(self.start, day)

    def at(self, day: date) -> float | None:
        index = self.index(day)
        return self.values[index] if 0 <= index < len(self.values) else None

    def known(self) -> list[float]:
        return [value for value in self.values if value is not None]


def read_values(table: pa.Table, column: str, grain: Grain = DAY) -> PeriodValues:
    """Return the column by its `ds`, in date order; NaN, infinity and periods without a row become None."""
    values = map(finite, table[column].to_pylist())
    by_number = dict(zip(map(grain.number, table["ds"].to_pylist()), values, strict=True))
    first, last = min(by_number), max(by_number)
    return PeriodValues(grain.first_day(first), tuple(map(by_number.get, range(first, last + 1))), grain)


def finite(value: float | None) -> float | None:
    """Return the value, or None for one that is missing, NaN or infinite."""
    return float(value) if value is not None and math.isfinite(value) else None


def number_in(mapping: Mapping[str, Any] | None, name: str) -> float | None:
    """Return a finite number of a mapping; None if either is missing."""
    return finite(mapping.get(name)) if mapping else None


def total(values: Iterable[float | None]) -> float | None:
    """Return the sum; None when one of the values is unknown: a sum of fewer days would look like a fall."""
    addends = [*values]
    return None if None in addends else math.fsum(value for value in addends if value is not None)


def weighted_mean(pairs: Sequence[tuple[float | None, float]]) -> float | None:
    """Return the mean of (value, weight) pairs, without those whose value is unknown."""
    usable = [(value, weight) for value, weight in pairs if value is not None and weight > 0]
    return sum(v * w for v, w in usable) / sum(w for _, w in usable) if usable else None
