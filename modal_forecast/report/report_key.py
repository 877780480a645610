"""What a page was made from, kept in the page itself: who has a page of the same need not render it again."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from modal_forecast.report.report_input import ReportInput

# Whatever else a page shows is escaped: nothing but the key's own tag looks like this.
_META = re.compile(rb'<meta name="report-key" content="([a-z0-9 ]*)">')
FOLDER = Path(__file__).parent
_NOT_ON_THE_PAGE = ("preview.py",)


def report_key(report: ReportInput) -> Mapping[str, str]:
    """A hash of each thing that a page depends on; pages of the same key are the same."""
    return {
        "data": _digest(report.history.to_pydict()),
        "forecast": _digest([report.forecast.to_pydict(), list(report.facts.items())]),
        "style": _digest([report.title, report.unit, report.color_history, report.color_prediction]),
        "code": _code(),
    }


def key_text(key: Mapping[str, str]) -> str:
    """A key as a page holds it."""
    return " ".join(f"{part} {value}" for part, value in key.items())


def key_in(page: bytes | None) -> Mapping[str, str]:
    """The key of a page; empty if there is none, or something else in its place."""
    found = _META.search(page or b"")
    words = found.group(1).decode().split() if found else []
    return dict(zip(words[::2], words[1::2], strict=False))


@cache
def _code() -> str:
    files = sorted(FOLDER.glob("*"))
    return _digest(
        [(f.name, f.read_bytes()) for f in files if f.is_file() and f.name not in _NOT_ON_THE_PAGE]
    )


def _digest(value: object) -> str:
    return hashlib.sha256(repr(value).encode()).hexdigest()[:12]
