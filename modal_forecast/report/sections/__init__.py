"""The sections of the page: for each a function from data to texts and plots, and the template for them."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Card:
    """A number to take in at a glance, with lines to judge it by."""

    label: str
    value: str
    detail: str = ""
    beside: tuple[str, ...] = ()


@dataclass(frozen=True)
class Table:
    """A table of texts; the first cell of a row names it."""

    caption: str
    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
