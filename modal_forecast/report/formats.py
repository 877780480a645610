"""Numbers and days as people read them; assets/ticks.js writes them the same way."""

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import date

UNKNOWN = "n/a"
# Smaller shares are described as no difference.
NEGLIGIBLE = 0.005
# Written before an amount, as people write money; any other unit follows it.
SYMBOLS = {"USD": "$", "EUR": "€", "GBP": "£", "$": "$", "€": "€", "£": "£"}


@dataclass(frozen=True)
class Amounts:
    """How the values of one report are written in sentences and cards."""

    unit: str
    decimals: int
    exact_decimals: int

    @classmethod
    def of(cls, unit: str, decimals: int, largest: float) -> "Amounts":
        """decimals: of the values in tables. Beside thousands, cents in a sentence are noise."""
        return cls(unit, 0 if largest >= 1000 else decimals, decimals)

    def __call__(self, value: float | None) -> str:
        """$88,343, 88,343 cups or 163,706 million"""
        if value is None:
            return UNKNOWN
        if abs(value) < 100:
            text = number(value, self.decimals)
        else:
            # A large number is to be grasped at a glance.
            text = number(value, 0) if abs(value) < 1e9 else f"{number(value / 1e6, 0)} million"
        if symbol := SYMBOLS.get(self.unit):
            return f"-{symbol}{text[1:]}" if text.startswith("-") else f"{symbol}{text}"
        return f"{text} {self.unit}".rstrip()

    def of_one_precision(self, values: Iterable[float | None]) -> "Amounts":
        """How values that are read together are written: without decimals if one is too large for them."""
        large = any(value is not None and abs(value) >= 100 for value in values)
        return replace(self, decimals=0) if large else self

    def of_effects(self, values: Iterable[float | None]) -> "Amounts":
        """How differences that are read together are written: with two digits of the largest, or more.

        Those of counts have decimals, as of 22 guests a day a weekday brings a part of one more. Money has
        cents or none.
        """
        largest = max((abs(value) for value in values if value is not None), default=0.0)
        decimals = 0 if largest >= 10 or largest == 0 else 1 - math.floor(math.log10(largest))
        if decimals and self.unit in SYMBOLS:
            decimals = max(decimals, 2)
        return replace(self, decimals=decimals)

    def signed(self, value: float | None) -> str:
        """+$310 or -$310; no sign before a zero"""
        text = self(value)
        return f"+{text}" if value is not None and value > 0 and any(c in "123456789" for c in text) else text

    def range(self, low: float, high: float) -> str:
        """$80,100 and $96,500, or 433 and 439 guests: a unit behind numbers is said once"""
        lower, upper = self(low), self(high)
        behind = f" {self.unit}"
        both_have_it = lower.endswith(behind) and upper.endswith(behind)
        return f"{lower.removesuffix(behind) if both_have_it else lower} and {upper}"

    def exact(self, value: float | None) -> str:
        """2,725.31, for tables that name the unit above"""
        return number(value, self.exact_decimals)


def number(value: float | None, decimals: int) -> str:
    """1,234.50"""
    return UNKNOWN if value is None else f"{value:z,.{decimals}f}"


def compact(value: float, digits: int = 3) -> str:
    """310, 1.3k or 2.5M: for the labels inside small charts, where there is room for few characters"""
    for factor, suffix in ((1e9, "bn"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= factor * 0.9995:
            return f"{value / factor:z.{digits}g}{suffix}"
    return f"{value:z.{digits}g}"


def change(value: float) -> str:
    """+4.2%"""
    return f"{value:+z,.1%}"


def share(value: float | None) -> str:
    """79%, and 8.6% where another digit matters"""
    if value is None:
        return UNKNOWN
    size = abs(value)
    return f"{value:z.1%}" if 0 < size < 0.0995 or 0.995 <= size < 1 else f"{value:z.0%}"


def day(value: date) -> str:
    """Tue 3 Feb 2026"""
    return f"{value:%a} {value.day} {value:%b %Y}"


def short_date(value: date) -> str:
    """3 Feb 2026"""
    return f"{value.day} {value:%b %Y}"


def counted(count: int, noun: str) -> str:
    """1 store, 1,180 stores"""
    return f"1 {noun}" if count == 1 else f"{count:,} {plural(noun)}"


def plural(noun: str) -> str:
    """stores, cities, branches"""
    if re.search("[^aeiou]y$", noun):
        return f"{noun[:-1]}ies"
    return f"{noun}es" if noun.endswith(("s", "x", "z", "ch", "sh")) else f"{noun}s"
