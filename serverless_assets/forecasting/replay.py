"""List the records of published forecasts; compute one again from its record, and compare the two."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from modal_forecast.code_version import code_version
from modal_forecast.messages import FORECAST_SCHEMA, ForecastAnswer, ForecastRefused
from modal_forecast.wire import MessageError
from serverless_assets.artifacts import Artifacts
from serverless_assets.forecasting.compute import Calls, Compute, Log, Size
from serverless_assets.forecasting.record import (
    FORECAST_HASH,
    Record,
    RecordError,
    RecordName,
    forecast_hash,
    grain_in,
    horizon_in,
    list_records,
    read_record,
)

# Another processor or another number of threads may round differently.
TOLERANCE = 1e-6
VALUES = FORECAST_SCHEMA.names[1:]
RECORDS_LISTED = 10
HEADING = f"{'made (UTC)':<18}{'run':<38}{'ahead':>9}  {'data as of':<12}{'code':<14}key"


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
    answered = compute.run(record.request, size, log, Calls())
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


def replayed(
    artifacts: Artifacts, compute: Compute, which: str | None, echo: Callable[[str], None]
) -> ReplayResult:
    """Find the record that is meant, say what it is, and replay it.

    Raises:
        UserError: there is no such record, or no answer.
    """
    name = find_record(list_records(artifacts), which)
    record = read_record(artifacts, name)
    facts = record.facts
    horizon = grain_in(facts).counted(horizon_in(facts))
    echo(f"{name.forecast}: the forecast of {horizon} after {facts['data_as_of']},")
    echo(f"made {name.made_at:%Y-%m-%d %H:%M} UTC on {facts['compute']} by run {name.run_id},")
    echo(f"again on {compute.name} with {facts['cpu']:g} cores and {facts['memory_mib']} MiB:")
    return replay(record, code_version(), compute, lambda line: echo(f"    {line}"))


def find_record(names: Sequence[RecordName], selector: str | None) -> RecordName:
    """Return the newest record that matches: a run id or its first characters, a key, or a day (YYYY-MM-DD).

    names: from the oldest to the newest. Without a selector, the newest of all.

    Raises:
        RecordError: no record matches, or several runs begin with the selector.
    """
    if not names:
        raise RecordError("No forecast was published with a record yet: run serverless_pipeline first.")
    if selector is None:
        return names[-1]
    exact = [name for name in names if selector in (name.key, f"{name.made_at:%Y-%m-%d}", name.run_id)]
    matches = exact or [name for name in names if selector and name.run_id.startswith(selector)]
    if exact or len(matches) == 1:
        return matches[-1]
    problem = f"Several runs begin with {selector!r}." if matches else f"There is no forecast {selector!r}."
    listed = matches or names
    lines = [
        f"  {name.made_at:%Y-%m-%d %H:%M} UTC, run {name.run_id}, key {name.key}"
        for name in reversed(listed[-RECORDS_LISTED:])
    ]
    if len(listed) > RECORDS_LISTED:
        lines.append(f"  and {len(listed) - RECORDS_LISTED} older ones: serverless replay --list")
    raise RecordError("\n".join([f"{problem} There are:", *lines]))


def listed(artifacts: Artifacts) -> Iterator[str]:
    """All records as a table, the newest first."""
    names = list_records(artifacts)
    yield HEADING if names else "No forecast was published with a record yet."
    for name in reversed(names):
        try:
            facts = read_record(artifacts, name).facts
        except RecordError as error:
            yield str(error)
            continue
        horizon = grain_in(facts).counted(horizon_in(facts))
        data_as_of, code = facts["data_as_of"], facts["forecast_code"]
        made_at = f"{name.made_at:%Y-%m-%d %H:%M}"
        yield f"{made_at:<18}{name.run_id:<38}{horizon:>9}  {data_as_of:<12}{code:<14}{name.key}"
