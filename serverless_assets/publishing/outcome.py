"""What became of each asset in a run, read from the run's own events, and which assets are pending."""

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast, get_args

import dagster as dg
from dagster import DagsterEventType as Type

from serverless_assets import metadata
from serverless_assets.artifacts import Artifacts
from serverless_assets.asset_keys import asset_name
from serverless_assets.dagster_internals import SerializableErrorInfo
from serverless_assets.errors import machine_sentence
from serverless_assets.failures import RunFailure
from serverless_assets.files import write_atomically
from serverless_assets.metadata import Status
from serverless_assets.names import NAMES_OF_FAILED, name_some


@dataclass
class AssetOutcome:
    """One asset: what the run did with it and why, and what that took, where it is known.

    `bytes_billed` and `slot_seconds` are the warehouse's; `cost_usd` is for all that was charged. All three
    are those of its tests, too. `cost_unknown` says what the cost leaves out. Without an `optional` asset, a
    run succeeds. `warnings` has the name and the sentence of each check that warned.
    """

    asset: str
    status: Status
    reason: str
    rows: int | None = None
    bytes: int | None = None
    seconds: float | None = None
    path: str | None = None
    bytes_billed: int | None = None
    slot_seconds: float | None = None
    cost_usd: float | None = None
    cost_unknown: str | None = None
    optional: bool = False
    warnings: Sequence[str] = ()

    @property
    def is_settled(self) -> bool:
        """Whether the warehouse holds for this asset what the person asked for."""
        return self.status in ("built", "reused") or self.reason == SKIPPED_AS_ASKED or self.optional


@dataclass(frozen=True)
class PendingAssets:
    """The assets that a run set out to write and that have not succeeded since.

    Kept in a file below `home`, so that what a killed run left behind is not published by the next
    one, even if that writes something else altogether. `shared` is where they are kept, too, if runs of
    several machines write to one place: what it says counts.
    """

    home: Path
    shared: Artifacts | None = None

    @property
    def path(self) -> Path:
        return self.home / "work" / "unsettled.json"

    def is_readable(self) -> bool:
        """Whether it is known which assets are pending."""
        return self._read() is not None

    def read(self) -> set[str]:
        """The pending assets; none if that is not known."""
        return self._read() or set()

    def replace(self, assets: Iterable[str]) -> None:
        """Keep these assets, in the place of those that were pending."""
        content = json.dumps(sorted(set(assets))).encode()
        if self.shared:
            self.shared.write(self.path.name, content)
        write_atomically(self.path, content)

    def _read(self) -> set[str] | None:
        try:
            content = self.shared.read(self.path.name) if self.shared else None
            assets = json.loads(content or self.path.read_text())
        except (OSError, ValueError):
            return None
        is_valid = isinstance(assets, list) and all(isinstance(asset, str) for asset in assets)
        return set(assets) if is_valid else None


# The events that tell what became of a run's assets.
OUTCOME_EVENTS = {
    Type.ASSET_MATERIALIZATION_PLANNED,
    Type.ASSET_MATERIALIZATION,
    Type.ASSET_OBSERVATION,
    Type.ASSET_CHECK_EVALUATION,
    Type.STEP_FAILURE,
    Type.STEP_SKIPPED,
}

SKIPPED_AS_ASKED = "skipped as asked"
STOPPED_BY_HAND = "stopped by hand"
NOT_REACHED = "not reached: a step before it failed or the run was stopped"


@dataclass
class _AssetEvents:
    """What the events say of one asset so far."""

    step: str
    materialized: dict[str, Any] | None = None
    observed: dict[str, Any] | None = None
    failed_checks: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    checks: list[dict[str, Any]] = field(default_factory=list)


def asset_outcomes(events: Iterable[dg.DagsterEvent]) -> Sequence[AssetOutcome]:
    """The outcome of every asset that the run had planned, in the order of planning."""
    assets: dict[dg.AssetKey, _AssetEvents] = {}
    step_errors: dict[str, str] = {}
    skipped_steps: set[str] = set()
    for event in events:
        if event.event_type == Type.ASSET_MATERIALIZATION_PLANNED and event.asset_key:
            assets.setdefault(event.asset_key, _AssetEvents(step=str(event.step_key)))
        elif event.event_type == Type.STEP_FAILURE:
            step_errors[str(event.step_key)] = failure_sentence_of(event)
        elif event.event_type == Type.STEP_SKIPPED:
            # What it needs was skipped on purpose. After a failure, a step just never begins.
            skipped_steps.add(str(event.step_key))
        elif event.event_type == Type.ASSET_CHECK_EVALUATION:
            check = event.asset_check_evaluation_data
            if check.asset_key in assets:
                assets[check.asset_key].checks.append(metadata.plain_values(check.metadata))
                if not check.passed and check.severity == dg.AssetCheckSeverity.WARN:
                    sentence = f": {check.description}" if check.description else ""
                    assets[check.asset_key].warnings.append(f"{check.check_name}{sentence}")
                elif not check.passed:
                    fault = f" ({check.description})" if check.description else ""
                    assets[check.asset_key].failed_checks.append(f"{check.check_name}{fault}")
        elif event.asset_key in assets and event.event_type == Type.ASSET_MATERIALIZATION:
            # One event for the whole asset may follow events for single partitions: the last counts.
            values = event.step_materialization_data.materialization.metadata
            assets[event.asset_key].materialized = metadata.plain_values(values)
            assets[event.asset_key].observed = None
        elif event.asset_key in assets and event.event_type == Type.ASSET_OBSERVATION:
            values = metadata.plain_values(event.asset_observation_data.asset_observation.metadata)
            if metadata.REASON in values:
                assets[event.asset_key].observed = values
    outcomes = [_outcome(key, asset, step_errors, skipped_steps) for key, asset in assets.items()]
    failed = [outcome for outcome in outcomes if outcome.status == "failed"]
    if failed and not any(outcome.reason == STOPPED_BY_HAND for outcome in failed):
        names = name_some([outcome.asset for outcome in failed], NAMES_OF_FAILED)
        for outcome in outcomes:
            if outcome.reason == NOT_REACHED:
                outcome.reason = f"not reached: {names} failed before it"
    return outcomes


class RunEvents:
    """The events of a run that tell what becomes of its assets.

    Those that this process logs are kept as they come: to read a thousand of them back takes a second.
    """

    def __init__(self, instance: dg.DagsterInstance, run_id: str) -> None:
        self._events: list[dg.DagsterEvent] = []
        for entry in instance.all_logs(run_id, of_type=OUTCOME_EVENTS):
            self._add(entry)
        instance.add_event_listener(run_id, self._add)

    def _add(self, entry: dg.EventLogEntry) -> None:
        if entry.dagster_event and entry.dagster_event.event_type in OUTCOME_EVENTS:
            self._events.append(entry.dagster_event)

    def outcomes(self) -> Sequence[AssetOutcome]:
        """The outcome of every asset of the run, as far as its events go by now."""
        return asset_outcomes(self._events)

    def all_steps_succeeded(self) -> bool:
        """Whether no step of the run, which has ended, failed or was not reached."""
        has_failed = any(event.event_type == Type.STEP_FAILURE for event in self._events)
        return not has_failed and all(outcome.reason != NOT_REACHED for outcome in self.outcomes())


def _outcome(
    key: dg.AssetKey, events_of_asset: _AssetEvents, step_errors: dict[str, str], skipped_steps: set[str]
) -> AssetOutcome:
    name = asset_name(key)
    values = events_of_asset.materialized or events_of_asset.observed or {}
    parts = (values, *events_of_asset.checks)
    measured: dict[str, Any] = {
        "rows": values.get(metadata.ROWS),
        "bytes": values.get(metadata.BYTES),
        "seconds": values.get(metadata.SECONDS),
        "path": values.get(metadata.REPORT),
        "optional": bool(values.get(metadata.OPTIONAL)),
        "warnings": events_of_asset.warnings,
        metadata.COST_UNKNOWN: next(filter(None, (part.get(metadata.COST_UNKNOWN) for part in parts)), None),
        **{name: total(part.get(name) for part in parts) for name in metadata.SPENT},
    }
    if events_of_asset.failed_checks:
        return AssetOutcome(
            name, "failed", f"tests failed: {', '.join(events_of_asset.failed_checks)}", **measured
        )
    if events_of_asset.observed and events_of_asset.observed.get(metadata.STATUS) == "failed":
        # A test that is no check of one asset says so after it was built.
        return AssetOutcome(name, "failed", str(events_of_asset.observed[metadata.REASON]), **measured)
    if values:
        status = values.get(metadata.STATUS)
        # dbt has words of its own for what it built.
        outcome_status = status if status in get_args(Status) else "built"
        return AssetOutcome(
            name, cast("Status", outcome_status), str(values.get(metadata.REASON, "")), **measured
        )
    if events_of_asset.step in step_errors:
        return AssetOutcome(name, "failed", step_errors[events_of_asset.step])
    return AssetOutcome(
        name, "skipped", SKIPPED_AS_ASKED if events_of_asset.step in skipped_steps else NOT_REACHED
    )


def total(numbers: Iterable[int | float | None]) -> int | float | None:
    """The sum of those that are known; None if none is."""
    addends = [number for number in numbers if number is not None]
    # Prices that add up to 0.30000000000000004 are nothing to show.
    return round(sum(addends), 8) if addends else None


def failure_sentence_of(event: dg.DagsterEvent) -> str:
    """What a step failed with, or is tried again for, in a sentence if the code that failed had one."""
    if event.event_type == Type.STEP_UP_FOR_RETRY:
        return _error_sentence(event.step_retry_data.error)
    data = event.step_failure_data
    if data.user_failure_data and data.user_failure_data.description:
        return data.user_failure_data.description
    return _error_sentence(data.error) if data.error else "failed"


def run_failure_sentence(error: SerializableErrorInfo) -> str:
    """What a run failed with outside of its steps: why it could not begin, or else the innermost error."""
    while error.cls_name != RunFailure.__name__ and error.cause:
        error = error.cause
    message = without_class(error.message.strip())
    if error.cls_name == RunFailure.__name__:
        return message
    *_, last = message.splitlines() or [str(error.cls_name)]
    return last


def without_class(message: str) -> str:
    """A message without the class before it: `dagster._core.definitions.events.Failure: The sentence.`"""
    return re.sub(r"^[\w.]*(Error|Exception|Failure): ", "", message)


def _error_sentence(error: SerializableErrorInfo) -> str:
    if error.cls_name == dg.DagsterExecutionInterruptedError.__name__:
        return STOPPED_BY_HAND
    if error.cls_name == dg.RetryRequested.__name__ and error.cause:
        # Raised about the failure that a person is told of.
        return error.cause.message.partition(": ")[2].strip()
    message = (error.cause or error).message.strip()
    sentence, query, _ = message.partition("\nLINE ")
    if query:
        # DuckDB shows below its sentence where in the query that is.
        return without_class(" ".join(sentence.split()))
    last_line = message.splitlines()[-1]
    return machine_sentence(last_line) or last_line
