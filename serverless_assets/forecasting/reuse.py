"""`ForecastFingerprint`, and the reasons to make a forecast or a table again.

What a forecast was made from is stored with its table, as a fingerprint. The cores and the memory that it
had, and where it was computed, are not part of it: they do not change the answer.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa

from modal_forecast.grain import DAY, GRAINS, Grain
from modal_forecast.messages import AUTOMATIC, ForecastRequest
from serverless_assets.forecasting.forecast_file import SCHEMA
from serverless_assets.hashing import digest
from serverless_assets.names import FORCED, FORECAST_KEY


@dataclass(frozen=True)
class ForecastFingerprint:
    """What a forecast is made from: a hash of the history, the parameters, and the version of the code.

    `key` hashes the whole request and the columns of the table, so that a new field of either is covered.
    """

    key: str
    history: str
    horizon: int
    holidays: str | None
    model: str
    grain: Grain
    code: str

    @classmethod
    def of(cls, request: ForecastRequest, code: str, columns: pa.Schema = SCHEMA) -> "ForecastFingerprint":
        """Return the fingerprint of a request to this version of the code, for a table of these columns."""
        history_only = replace(request, horizon=0, country=None, model=AUTOMATIC)
        return cls(
            key=digest(f"{code}\n{columns.to_string()}\n".encode() + request.to_bytes()),
            history=digest(history_only.to_bytes()),
            horizon=request.horizon,
            holidays=request.country,
            model=request.model,
            grain=GRAINS[request.grain],
            code=code,
        )

    def as_facts(self) -> Mapping[str, Any]:
        """Return the facts to store with the forecast."""
        return {
            FORECAST_KEY: self.key,
            "history_hash": self.history,
            f"horizon_{self.grain.plural}": self.horizon,
            "holidays": self.holidays,
            "asked_model": self.model,
            "grain": self.grain.name,
            "forecast_code": self.code,
        }


def reason_to_forecast(
    state: Mapping[str, Any] | None, fingerprint: ForecastFingerprint, force: bool
) -> str | None:
    """Return why to forecast; None if the stored forecast has the same fingerprint.

    state: stored with the forecast's table; None if there is no such table.
    """
    if force:
        return FORCED
    if state is None:
        return "first forecast"
    if not state.get(FORECAST_KEY):
        return "forecast replaced: it is not known what it was made from"
    if state[FORECAST_KEY] == fingerprint.key:
        return None
    # Forecasts of earlier versions were of days, and made by what is automatic now.
    state = {"asked_model": AUTOMATIC, "grain": DAY.name, **state}
    grain = fingerprint.grain
    if state["grain"] != grain.name:
        return f"grain changed ({state['grain']} to {grain.name})"
    horizon = f"horizon_{grain.plural}"
    changes = {
        "history_hash": "new data",
        horizon: f"horizon changed ({state.get(horizon)} to {grain.counted(fingerprint.horizon)})",
        "holidays": f"holidays changed ({state.get('holidays')} to {fingerprint.holidays})",
        "asked_model": f"model changed ({state.get('asked_model')} to {fingerprint.model})",
        "forecast_code": "code changed",
    }
    facts = fingerprint.as_facts()
    changed = [text for name, text in changes.items() if state.get(name) != facts[name]]
    return "; ".join(changed) or "columns changed"


def reason_by_key(
    state: Mapping[str, Any] | None, name: str, key: str, first: str, changed: str, force: bool
) -> str | None:
    """Return why to make a table; None if the stored one was made from what has the same key.

    state: stored with the table, the key as `name`; None if there is no such table.
    """
    if force:
        return FORCED
    if state is None:
        return first
    return None if state.get(name) == key else changed
