"""What a page was made from, kept in the page itself: who has a page of the same need not render it again."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from modal_forecast.report.report_input import ReportInput

# Whatever else a page shows is escaped: nothing but the key's own tag looks like this.
_META = re.compile(rb'<meta name="report-key" content="([a-z0-9 ]*)">')
FOLDER = Path(__file__).parent
_NOT_ON_THE_PAGE = ("preview.py",)


def report_key(report: ReportInput) -> Mapping[str, str]:
    """A hash of each thing that a page depends on; pages of the same key are the same."""
    of = report
    shown = [of.facts, of.windows, of.backtest, of.components, of.accuracy, of.notes]
    return {
        "data": _digest([of.history, [[store["name"], store["history"]] for store in of.stores]]),
        "forecast": _digest([of.forecast, [store["forecast"] for store in of.stores], *shown]),
        "style": _digest([of.title, of.unit, of.color_history, of.color_prediction]),
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
    files = sorted(path for path in FOLDER.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    shown = [path for path in files if path.name not in _NOT_ON_THE_PAGE]
    return _digest([[path.relative_to(FOLDER).as_posix(), path.read_bytes()] for path in shown])


def _digest(value: object) -> str:
    return hashlib.sha256(repr(_plain(value)).encode()).hexdigest()[:12]


def _plain(value: Any) -> Any:
    """Lists of what has a stable text: equal input of any kind of mapping or sequence comes out equal."""
    if hasattr(value, "to_pydict"):
        value = value.to_pydict()
    if isinstance(value, Mapping):
        return [[name, _plain(part)] for name, part in value.items()]
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [_plain(part) for part in value]
    return value
