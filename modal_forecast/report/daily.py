"""A column of a table as a run of consecutive days."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import date, timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class Daily:
    """One value per day from `start` on, None where a day has none."""

    start: date
    values: tuple[float | None, ...]

    @property
    def end(self) -> date:
        return self.day(len(self.values) - 1)

    def day(self, index: int) -> date:
        return self.start + timedelta(days=index)

    def days(self) -> list[date]:
        return [self.day(index) for index in range(len(self.values))]

    def at(self, day: date) -> float | None:
        index = (day - self.start).days
        return self.values[index] if 0 <= index < len(self.values) else None

    def known(self) -> list[float]:
        return [value for value in self.values if value is not None]


def read_daily(table: pa.Table, column: str) -> Daily:
    """The column by its `ds`, in date order. NaN and infinity become None, and so do days without a row."""
    values = (_finite(value) for value in table[column].to_pylist())
    by_day = dict(zip(table["ds"].to_pylist(), values, strict=True))
    start, end = min(by_day), max(by_day)
    days = (start + timedelta(days=index) for index in range((end - start).days + 1))
    return Daily(start, tuple(by_day.get(day) for day in days))


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
