"""Compute a published forecast again from its record, and compare the two."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from modal_forecast.messages import FORECAST_SCHEMA, ForecastAnswer, ForecastRefused, MessageError
from serverless_assets.forecasting.calls import ForgottenCalls
from serverless_assets.forecasting.compute import Compute, Log, Size
from serverless_assets.forecasting.record import FORECAST_HASH, Record, RecordError, forecast_hash

# Another processor or another number of threads may round differently.
TOLERANCE = 1e-6
VALUES = FORECAST_SCHEMA.names[1:]


@dataclass(frozen=True)
class ReplayResult:
    """Whether the forecast was reproduced, and a sentence that says so or why not."""

    reproduced: bool
    text: str


def replay(record: Record, code: str, compute: Compute, log: Log) -> ReplayResult:
    """Send the record's request to the compute again and compare the answer. Nothing is written.

    Args:
        code: the version of the forecasting code here, which must be the one that made the forecast.

    Raises:
        ComputeError: there is no answer.
    """
    refusal = reason_not_to_replay(record, code)
    if refusal:
        return ReplayResult(False, refusal)
    size = Size(float(record.facts["cpu"]), int(record.facts["memory_mib"]))
    answered = compute.run(record.request, size, log, ForgottenCalls())
    try:
        return compare_answer(record, ForecastAnswer.from_bytes(answered.content))
    except (ForecastRefused, MessageError) as error:
        return ReplayResult(False, f"Not reproduced: {error}")


def reason_not_to_replay(record: Record, code: str) -> str | None:
    """Return why code of this version cannot make the forecast again; None if it can."""
    made_by, made_at = record.facts["forecast_code"], record.facts["made_at"]
    # First, as other code may not even be able to read the request.
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


def compare_answer(record: Record, answer: ForecastAnswer) -> ReplayResult:
    """Compare an answer to the record's request with the recorded forecast."""
    recorded, replayed = ForecastAnswer(record.rows).forecast, answer.forecast
    if forecast_hash(replayed) == record.facts[FORECAST_HASH]:
        return ReplayResult(True, f"Reproduced: all {recorded.num_rows} rows identical.")
    versions_then = record.facts.get("versions") or {}
    versions_now = answer.diagnostics.get("versions") or {}
    changes = [
        f"{name} {versions_then.get(name)} then and {versions_now.get(name)} now"
        for name in sorted({*versions_then, *versions_now})
        if versions_then.get(name) != versions_now.get(name)
    ]
    changed = f" It was made with {', '.join(changes)}." if changes else ""
    if recorded["ds"] != replayed["ds"]:
        days_then, days_now = (
            f"{forecast.num_rows} days from {forecast['ds'][0]}" if forecast.num_rows else "no days"
            for forecast in (recorded, replayed)
        )
        return ReplayResult(
            False, f"Not reproduced: it is of {days_now} now, and was of {days_then}.{changed}"
        )
    difference, day, column = largest_difference(recorded, replayed)
    at = f"{replayed['ds'][day]}, {column}: {replayed[column][day]} now, {recorded[column][day]} then"
    if difference <= TOLERANCE:
        return ReplayResult(
            True, f"Reproduced within {difference:.1e} of each value (at most: {at}).{changed}"
        )
    return ReplayResult(False, f"Not reproduced: values differ by up to {difference:.1%} ({at}).{changed}")


def largest_difference(recorded: pa.Table, replayed: pa.Table) -> tuple[float, int, str]:
    """Return the largest relative difference between two forecasts of the same days, its row and column."""
    before, after = (
        np.column_stack([table[name].to_numpy() for name in VALUES]) for table in (recorded, replayed)
    )
    scale = np.maximum(np.abs(before), np.abs(after))
    with np.errstate(invalid="ignore", divide="ignore"):
        relative = np.where(before == after, 0.0, np.abs(after - before) / scale)
    # NaN on both sides is no difference; NaN on one side is an infinite one.
    relative = np.where(np.isnan(before) & np.isnan(after), 0.0, np.nan_to_num(relative, nan=np.inf))
    day, column = np.unravel_index(np.argmax(relative), relative.shape)
    return float(relative[day, column]), int(day), VALUES[column]
