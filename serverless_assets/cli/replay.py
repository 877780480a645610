"""Replay a published forecast from a shell."""

from collections.abc import Callable, Iterator

from modal_forecast.code_version import code_version
from serverless_assets.artifacts import Artifacts
from serverless_assets.environments import Environment
from serverless_assets.forecasting.forecast_file import grain_in, horizon_in
from serverless_assets.forecasting.record import (
    RecordError,
    RecordName,
    find_record,
    list_records,
    read_record,
)
from serverless_assets.forecasting.replay import ReplayResult, replay

HEADING = f"{'made (UTC)':<18}{'run':<38}{'ahead':>9}  {'data as of':<12}{'code':<14}key"


def replayed(parts: Environment, which: str | None, echo: Callable[[str], None]) -> ReplayResult:
    """Find the record that is meant, say what it is, and replay it.

    Raises:
        UserError: there is no such record, or no answer.
    """
    artifacts = parts.publisher.published.artifacts
    name = find_record(list_records(artifacts), which)
    record = read_record(artifacts, name)
    facts = record.facts
    horizon = grain_in(facts).counted(horizon_in(facts))
    echo(f"{name.forecast}: the forecast of {horizon} after {facts['data_as_of']},")
    echo(f"made {_minute(name)} UTC on {facts['compute']} by run {name.run_id},")
    echo(f"again on {parts.compute.name} with {facts['cpu']:g} cores and {facts['memory_mib']} MiB:")
    return replay(record, code_version(), parts.compute, lambda line: echo(f"    {line}"))


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
        yield f"{_minute(name):<18}{name.run_id:<38}{horizon:>9}  {data_as_of:<12}{code:<14}{name.key}"


def _minute(name: RecordName) -> str:
    return f"{name.made_at:%Y-%m-%d %H:%M}"
