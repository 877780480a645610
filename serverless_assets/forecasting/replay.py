"""Whether a forecast is what its record says: asked again, does it come out the same?"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from modal_forecast.messages import FORECAST_SCHEMA, ForecastAnswer, ForecastRefused, MessageError
from serverless_assets.forecasting.calls import ForgottenCalls
from serverless_assets.forecasting.compute import Compute, Log, Size
from serverless_assets.forecasting.record import FORECAST_HASH, Record, RecordError, forecast_hash

# Another processor or another number of threads may round otherwise.
TOLERANCE = 1e-6
VALUES = FORECAST_SCHEMA.names[1:]


@dataclass(frozen=True)
class Verdict:
    """Whether the forecast was reproduced, and what to say of it."""

    reproduced: bool
    text: str


def replay(record: Record, code: str, compute: Compute, log: Log) -> Verdict:
    """Have the forecast computed again, as it was asked for, and compare. Nothing is written.

    Raises:
        ComputeError: there is no answer.
    """
    refusal = reason_not_to_replay(record, code)
    if refusal:
        return Verdict(False, refusal)
    size = Size(float(record.facts["cpu"]), int(record.facts["memory_mib"]))
    answered = compute.run(record.request, size, log, ForgottenCalls())
    try:
        return verdict(record, ForecastAnswer.from_bytes(answered.content))
    except (ForecastRefused, MessageError) as error:
        return Verdict(False, f"Not reproduced: {error}")


def reason_not_to_replay(record: Record, code: str) -> str | None:
    """Why code of this version cannot make the forecast again; None if it can. Pure."""
    made_by, made_at = record.facts["forecast_code"], record.facts["made_at"]
    # Before all else: other code may not even read what was asked.
    if made_by != code:
        return (
            f"Not reproduced: it was made by code {made_by}, and this is {code}. Check out the commit of the "
            f"code that made it (`git log -1 --before={made_at} -- modal_forecast`), then replay."
        )
    try:
        record.verify()
    except RecordError as error:
        return f"Not reproduced: the record does not hold together, {error}."
    return None


def verdict(record: Record, answer: ForecastAnswer) -> Verdict:
    """What an answer to the same request says of the forecast. Pure."""
    then, now = ForecastAnswer(record.rows).forecast, answer.forecast
    if forecast_hash(now) == record.facts[FORECAST_HASH]:
        return Verdict(True, f"Reproduced: all {then.num_rows} days identical.")
    changed = _changed_versions(record.facts, answer.diagnostics)
    if then["ds"] != now["ds"]:
        return Verdict(
            False, f"Not reproduced: it is of {_days(now)} now, and was of {_days(then)}.{changed}"
        )
    difference, day, column = largest_difference(then, now)
    at = f"{now['ds'][day]}, {column}: {now[column][day]} now, {then[column][day]} then"
    if difference <= TOLERANCE:
        return Verdict(True, f"Reproduced within {difference:.1e} of each value (at most: {at}).{changed}")
    return Verdict(False, f"Not reproduced: values differ by up to {difference:.1%} ({at}).{changed}")


def largest_difference(then: pa.Table, now: pa.Table) -> tuple[float, int, str]:
    """The largest relative difference between two forecasts of the same days, with its row and column."""
    before, after = (np.column_stack([table[name].to_numpy() for name in VALUES]) for table in (then, now))
    scale = np.maximum(np.abs(before), np.abs(after))
    with np.errstate(invalid="ignore", divide="ignore"):
        relative = np.where(before == after, 0.0, np.abs(after - before) / scale)
    # A value where there was none, or none where there was one.
    relative = np.where(np.isnan(before) & np.isnan(after), 0.0, np.nan_to_num(relative, nan=np.inf))
    day, column = np.unravel_index(np.argmax(relative), relative.shape)
    return float(relative[day, column]), int(day), VALUES[column]


def _days(forecast: pa.Table) -> str:
    return f"{forecast.num_rows} days from {forecast['ds'][0]}" if forecast.num_rows else "no days"


def _changed_versions(then: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    before, after = then.get("versions") or {}, now.get("versions") or {}
    changed = [
        f"{name} {before.get(name)} then and {after.get(name)} now"
        for name in sorted({*before, *after})
        if before.get(name) != after.get(name)
    ]
    return f" It was made with {', '.join(changed)}." if changed else ""
