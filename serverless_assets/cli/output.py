"""What a run prints: a line for each event that a person waits for, and a summary at its end."""

import logging
import re
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dagster as dg
from dagster import DagsterEventType as Type

from serverless_assets import metadata
from serverless_assets.cli.failures import keep_traceback
from serverless_assets.dagster_internals import SerializableErrorInfo
from serverless_assets.failures import RunFailure
from serverless_assets.names import name_some
from serverless_assets.publishing.outcome import STOPPED_BY_HAND, failure_in_words, run_failure_sentence

NAMES_IN_A_LINE = 6
# Dagster's messages about steps that were skipped, as asked or because one before them failed: the summary
# says so of each asset, with the reason.
SKIPPED_STEP_WARNING = re.compile(
    r"op '\w+' did not yield or return expected outputs|Blocking asset check '|Skipping step "
    r"|Dependencies for step "
)


@dataclass
class Progress:
    """Call it with each event of a run; it prints those that a person waits for.

    The traceback of an error that nobody expected is kept below `home`. `failed` says whether something
    failed outside of the run's steps, such as closing a resource, which Dagster does not count. `refusal` is
    why the run could not begin: the summary says it, so that no line does. `first_month` is that of a run of
    a range of months, in which Dagster has an event for each month and none for the asset.
    """

    echo: Callable[[str], None]
    home: Path
    first_month: str | None = None
    failed: bool = False
    refusal: str = ""
    started: float = field(default_factory=time.monotonic)

    def __call__(self, entry: dg.EventLogEntry) -> None:
        line = self._line(entry)
        if line:
            self.echo(f"{time.monotonic() - self.started:6.1f}s  {line}")

    def _line(self, entry: dg.EventLogEntry) -> str | None:
        event = entry.dagster_event
        if event is None:
            is_shown = int(entry.level) >= logging.INFO and not SKIPPED_STEP_WARNING.match(entry.user_message)
            return f"    {entry.user_message}" if is_shown else None
        if event.event_type == Type.STEP_START:
            return f"{event.step_key} ..."
        if event.event_type == Type.STEP_FAILURE:
            return f"{event.step_key} failed: {failure_in_words(event)}{self._traceback_of_step(event)}"
        if event.event_type == Type.STEP_UP_FOR_RETRY:
            retry = event.step_retry_data
            return f"{event.step_key} in {retry.seconds_to_wait or 0:.0f} s again: {failure_in_words(event)}"
        is_asset = event.partition is None or event.partition == self.first_month
        if event.event_type == Type.ASSET_MATERIALIZATION and is_asset and event.asset_key:
            outcome = metadata.plain(event.step_materialization_data.materialization.metadata)
            return "    " + outcome_line(event.asset_key.to_user_string(), outcome)
        if error := _error_outside_of_steps(event):
            self.failed = True
            sentence, traceback = run_failure_sentence(error), self._traceback_of_run(error)
            if not traceback:
                self.refusal = sentence
                return None
            return f"The run failed: {sentence}{traceback}"
        return None

    def _traceback_of_step(self, event: dg.DagsterEvent) -> str:
        """Where the traceback is, if the code that failed had no sentence of its own."""
        data = event.step_failure_data
        if data.user_failure_data or data.error is None or failure_in_words(event) == STOPPED_BY_HAND:
            return ""
        return f"\n{keep_traceback(data.error.to_string(), self.home)}"

    def _traceback_of_run(self, error: SerializableErrorInfo) -> str:
        text, cause = error.to_string(), error
        while cause.cls_name != RunFailure.__name__ and cause.cause:
            cause = cause.cause
        is_expected = cause.cls_name == RunFailure.__name__ and cause.cause is None
        return "" if is_expected else f"\n{keep_traceback(text, self.home)}"


def _error_outside_of_steps(event: dg.DagsterEvent) -> SerializableErrorInfo | None:
    if event.event_type == Type.RUN_FAILURE:
        data = event.job_failure_data
        return data.error if data.first_step_failure_event is None else None
    # A resource that cannot be closed.
    return event.engine_event_data.error if event.event_type == Type.ENGINE_EVENT else None


def outcome_line(asset: str, outcome: Mapping[str, Any]) -> str:
    """Return a line on an asset: its name, rows, bytes, seconds and reason, as far as they are known."""
    rows, size, seconds = (
        outcome.get(metadata.ROWS),
        outcome.get(metadata.BYTES),
        outcome.get(metadata.SECONDS),
    )
    parts = [f"{asset:<24}"]
    parts.append(f"{rows:>10,} rows" if rows is not None else " " * 15)
    parts.append(f"{size_text(size):>9}" if size is not None else " " * 9)
    parts.append(f"{seconds:6.2f} s" if seconds is not None else " " * 8)
    status, reason = outcome.get(metadata.STATUS), outcome.get(metadata.REASON)
    parts.append(f" {status}: {reason}" if reason else "")
    return " ".join(parts).rstrip()


def size_text(size: int) -> str:
    """Return a number of bytes in B, KiB or MiB."""
    if size < 1024:
        return f"{size} B"
    if size < 1024**2:
        return f"{size / 1024:.1f} KiB"
    return f"{size / 1024**2:.1f} MiB"


def summary_text(
    document: Mapping[str, Any], raw_tables: Collection[str] = (), forecasts: Collection[str] = ()
) -> str:
    """Return the summary of `runs/latest.json` as text: what there is now, and what to do next.

    Args:
        raw_tables: the assets that were loaded from the source.
        forecasts: the assets whose rows are days ahead.
    """
    assets, totals = document["assets"], document["totals"]
    counts = ", ".join(f"{totals[status]} {status}" for status in ("built", "reused", "failed", "skipped"))
    verdict = "Failed"
    if document["success"]:
        verdict = "Succeeded" if document["published"] else "Finished, but not published,"
    lines = [f"{verdict} in {document['seconds']:.1f} s: {counts}.", ""]
    lines += _not_done(assets)
    loaded = [
        f"{asset} {outcome['rows']:,}"
        for asset, outcome in assets.items()
        if asset in raw_tables and outcome["rows"]
    ]
    if loaded:
        lines.append(f"  Tables    {', '.join(loaded)}")
    horizons = {asset: outcome["rows"] for asset, outcome in assets.items() if asset in forecasts}
    for asset, horizon in horizons.items():
        if horizon:
            of_asset = f" ({asset})" if len(horizons) > 1 else ""
            lines.append(f"  Forecast  {horizon} days ahead{of_asset}")
    if document["report"]:
        lines.append(f"  Report    {document['report']}")
    if document["warehouse"]:
        lines.append(f"  Warehouse {document['warehouse']}")
    lines += ["", f"Next: {_next_step(document)}"]
    return "\n".join(lines)


def stopped_text(reason: str, seconds: float, has_begun: bool, is_unfinished: bool) -> str:
    """Return the last line of a run that was stopped: why, and what to do next."""
    if not has_begun:
        return f"Stopped {reason} before the run began."
    following = (
        "What it finished is kept: `serverless run --resume` goes on from there."
        if is_unfinished
        else "`serverless run` begins again."
    )
    return f"Stopped {reason} after {seconds:.1f} s. {following}"


def _not_done(assets: Mapping[str, Any]) -> list[str]:
    """What failed or was skipped, each reason once; one line for all if the run was refused as a whole."""
    if reason := _refusal(assets):
        return [f"  failed  all {len(assets)} assets: {reason}"]
    by_reason: dict[tuple[str, str], list[str]] = {}
    for asset, outcome in assets.items():
        if outcome["status"] in ("failed", "skipped"):
            by_reason.setdefault((outcome["status"], outcome["reason"]), []).append(asset)
    return [
        f"  {status:<8}{name_some(names, NAMES_IN_A_LINE)}: {reason}"
        for (status, reason), names in by_reason.items()
    ]


def _refusal(assets: Mapping[str, Any]) -> str:
    """Return why no step of a run began; empty if one did."""
    outcomes = {(outcome["status"], outcome["reason"]) for outcome in assets.values()}
    status, reason = outcomes.pop() if len(outcomes) == 1 and len(assets) > 1 else ("", "")
    return reason if status == "failed" else ""


def _next_step(document: Mapping[str, Any]) -> str:
    if _refusal(document["assets"]):
        return "nothing was begun: do as it says, then run again."
    if not document["success"]:
        return "mend what failed, then `serverless run --resume` goes on from there; `make ui` shows more."
    if not document["published"]:
        return (
            "see above why it was not published. `serverless run` finishes what is left, and publishes all."
        )
    if not document["report"]:
        return "type `make ui` for the graph, the launchpad and the schedules."
    return "open the report in a browser, or type `make ui` for the graph, the launchpad and the schedules."
