"""What comes from outside, read with care; and the pieces that the sections' answers are built from."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any


@dataclass(frozen=True)
class Card:
    """A figure to take in at a glance: what it is, its value, and a line or two to judge it by."""

    label: str
    value: str
    detail: str = ""
    beside: tuple[str, ...] = ()


@dataclass(frozen=True)
class Table:
    """Texts, ready to show. The first cell of a row names it."""

    caption: str
    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def figure(of: Mapping[str, Any] | None, name: str) -> float | None:
    """A finite number, or None for one that is missing, NaN or infinite."""
    return finite(of.get(name)) if of else None


def finite(value: float | None) -> float | None:
    return float(value) if value is not None and math.isfinite(value) else None


def finites(values: Iterable[float | None] | None) -> tuple[float | None, ...]:
    return tuple(finite(value) for value in values or ())


def total(values: Iterable[float | None]) -> float | None:
    """None when one of the values is unknown: a sum of fewer days would look like a fall."""
    known = [*values]
    return None if None in known else math.fsum(value for value in known if value is not None)


def a_day(value: str | date) -> date:
    """2026-11-25, or 2026-11 for the first of the month. Raises ValueError for anything else."""
    if isinstance(value, date):
        return value
    return date.fromisoformat(value if len(value) > 7 else f"{value}-01")


def weighted(values: Sequence[tuple[float | None, float]]) -> float | None:
    """The mean of the values that are known, each with its weight."""
    known = [(value, weight) for value, weight in values if value is not None and weight > 0]
    return sum(v * w for v, w in known) / sum(w for _, w in known) if known else None
