"""What a forecast was made from, and the reasons to make a forecast or a table again.

What a forecast was made from is stored with its table, as a fingerprint. The cores and the memory that it
had, and where it was computed, are not part of it: they do not change the answer.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pyarrow as pa

from modal_forecast.grain import DAY, GRAINS
from modal_forecast.messages import AUTOMATIC, ForecastRequest
from serverless_assets.forecasting.tables import TOTAL_SCHEMA
from serverless_assets.hashing import digest
from serverless_assets.names import FORCED, FORECAST_KEY

# The reasons of assets that are not there yet.
FIRST_FORECAST, FIRST_SCORES, FIRST_REPORT = "first forecast", "first scores", "first report of this name"
# The reasons of assets that stay as they are; of the parts, such as stores, with their plural.
SAME_FORECAST = "unchanged: same history, parameters and code"
SAME_PARTS = "unchanged: same total, {} and code"
SAME_SCORES = "unchanged: same forecasts and history"
SAME_REPORT = "unchanged: same forecast, history, style and code"


def fingerprint(request: ForecastRequest, code: str, columns: pa.Schema = TOTAL_SCHEMA) -> Mapping[str, Any]:
    """Return the facts on what a forecast is made from: its history, the parameters, and the code.

    FORECAST_KEY hashes the whole request and the columns of the table, so that a new field of either is
    covered.

    Args:
        code: the version of the forecasting code.
        columns: of the forecast's table.
    """
    history_only = replace(request, horizon=0, country=None, model=AUTOMATIC)
    return {
        FORECAST_KEY: digest(f"{code}\n{columns.to_string()}\n".encode() + request.to_bytes()),
        "history_hash": digest(history_only.to_bytes()),
        f"horizon_{GRAINS[request.grain].plural}": request.horizon,
        "holidays": request.country,
        "asked_model": request.model,
        "grain": request.grain,
        "forecast_code": code,
    }


def reason_to_forecast(state: Mapping[str, Any] | None, facts: Mapping[str, Any], force: bool) -> str | None:
    """Return why to forecast; None if the stored forecast has the same fingerprint.

    state: stored with the forecast's table; None if there is no such table. facts: the fingerprint.
    """
    if force:
        return FORCED
    if state is None:
        return FIRST_FORECAST
    if not state.get(FORECAST_KEY):
        return "forecast replaced: it is not known what it was made from"
    if state[FORECAST_KEY] == facts[FORECAST_KEY]:
        return None
    # Forecasts of version 0.1.0 were of days, and made by what is automatic now.
    state = {"asked_model": AUTOMATIC, "grain": DAY.name, **state}
    grain = GRAINS[facts["grain"]]
    if state["grain"] != grain.name:
        return f"grain changed ({state['grain']} to {grain.name})"
    horizon = f"horizon_{grain.plural}"
    changes = {
        "history_hash": "new data",
        horizon: f"horizon changed ({state.get(horizon)} to {grain.counted(facts[horizon])})",
        "holidays": f"holidays changed ({state.get('holidays')} to {facts['holidays']})",
        "asked_model": f"model changed ({state['asked_model']} to {facts['asked_model']})",
        "forecast_code": "code changed",
    }
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
