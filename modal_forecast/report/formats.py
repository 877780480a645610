"""Numbers and days as people read them. ticks.js writes them the same way."""

from datetime import date

UNKNOWN = "n/a"


def number(value: float | None, decimals: int) -> str:
    """1,234.50"""
    return UNKNOWN if value is None else f"{value:z,.{decimals}f}"


def headline_number(value: float | None, decimals: int) -> str:
    """1,234,568 or 163,706 million: a large figure is to be grasped at a glance."""
    if value is None or abs(value) < 1000:
        return number(value, decimals)
    return number(value, 0) if abs(value) < 1e9 else f"{number(value / 1e6, 0)} million"


def percent(change: float) -> str:
    """+4.2%"""
    return f"{change:+z,.1%}"


def day(value: date) -> str:
    """Tue 3 Feb 2026"""
    return f"{value:%a} {value.day} {value:%b %Y}"


def days(count: int) -> str:
    """1 day, 180 days"""
    return "1 day" if count == 1 else f"{count} days"
