"""Whether the forecast that there is will do, or why not. Pure.

What it was made from is kept with its table. How many cores it had, how much memory, and where it was
computed are not part of that: they do not change the answer.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa

from modal_forecast.messages import ForecastRequest
from serverless_assets.forecasting.forecast_file import SCHEMA

KEY, STORES_KEY = "forecast_key", "store_forecast_key"


@dataclass(frozen=True)
class ForecastFingerprint:
    """What a forecast is made from: a hash of the history, the parameters, and the version of the code.

    `key` covers all that is asked of the worker and the columns of the answer's table, so that whatever a
    request or a table comes to hold is not forgotten.
    """

    key: str
    history: str
    horizon: int
    holidays: str | None
    code: str

    @classmethod
    def of(cls, request: ForecastRequest, code: str, columns: pa.Schema = SCHEMA) -> "ForecastFingerprint":
        """The basis of what `request` asks of code of this version, for a table of these columns."""
        same_for_all = replace(request, horizon=0, country=None)
        return cls(
            key=digest(f"{code}\n{columns.to_string()}\n".encode() + request.to_bytes()),
            history=digest(same_for_all.to_bytes()),
            horizon=request.horizon,
            holidays=request.country,
            code=code,
        )

    def as_facts(self) -> Mapping[str, Any]:
        """What to keep with the forecast."""
        return {
            KEY: self.key,
            "history_hash": self.history,
            "horizon_days": self.horizon,
            "holidays": self.holidays,
            "forecast_code": self.code,
        }


def reason_to_forecast(held: Mapping[str, Any] | None, basis: ForecastFingerprint, force: bool) -> str | None:
    """Why to forecast; None if the forecast that there is was made from the same.

    `held` is the note of the forecast's table, None if there is no such table.
    """
    if force:
        return "forced: rebuild all"
    if held is None:
        return "first forecast"
    if not held.get(KEY):
        return "forecast replaced: it is not known what it was made from"
    if held[KEY] == basis.key:
        return None
    return "; ".join(_changes(held, basis)) or "columns changed"


def _changes(held: Mapping[str, Any], basis: ForecastFingerprint) -> Iterable[str]:
    now = basis.as_facts()
    changed = {name for name in now if held.get(name) != now[name]}
    if "history_hash" in changed:
        yield "new data"
    if "horizon_days" in changed:
        yield f"horizon changed ({held.get('horizon_days')} to {basis.horizon} days)"
    if "holidays" in changed:
        yield f"holidays changed ({held.get('holidays')} to {basis.holidays})"
    if "forecast_code" in changed:
        yield "code changed"


def reason_to_forecast_stores(note: Mapping[str, Any] | None, key: str, force: bool) -> str | None:
    """Why to forecast the stores; None if the forecasts that there are were made from the same.

    note: of their table, None if there is no such table. key: a hash of all that they are made from.
    """
    if force:
        return "forced: rebuild all"
    if note is None:
        return "first forecast of stores"
    return None if note.get(STORES_KEY) == key else "new total, stores or code"


def digest(content: bytes) -> str:
    """What tells these bytes from others: 16 hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()[:16]
