"""A run's events as lines on the terminal, while it works."""

import logging
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import dagster as dg
from dagster import DagsterEventType as Type

from serverless_assets import metadata
from serverless_assets.cli.failures import keep_traceback
from serverless_assets.cli.text import outcome_line
from serverless_assets.dagster_internals import SerializableErrorInfo
from serverless_assets.failures import RunFailure
from serverless_assets.publishing.outcome import STOPPED_BY_HAND, failure_in_words, run_failure_sentence

# Dagster's warnings about the outputs of a step that was skipped as asked.
OF_SKIPPED = re.compile(
    r"op '\w+' did not yield or return expected outputs|Blocking asset check '|Skipping step "
)


@dataclass
class Progress:
    """Call it with each event of a run; it prints those that a person waits for.

    The traceback of an error that nobody expected is kept below `home`. `failed` says whether something
    failed outside of the run's steps, such as closing a resource, which Dagster does not count. `refusal` is
    why the run could not begin: the summary says it, so that no line does.
    """

    echo: Callable[[str], None]
    home: Path
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
            is_shown = int(entry.level) >= logging.INFO and not OF_SKIPPED.match(entry.user_message)
            return f"    {entry.user_message}" if is_shown else None
        if event.event_type == Type.STEP_START:
            return f"{event.step_key} ..."
        if event.event_type == Type.STEP_FAILURE:
            return f"{event.step_key} failed: {failure_in_words(event)}{self._traceback_of_step(event)}"
        if event.event_type == Type.STEP_UP_FOR_RETRY:
            retry = event.step_retry_data
            return f"{event.step_key} in {retry.seconds_to_wait or 0:.0f} s again: {failure_in_words(event)}"
        if event.event_type == Type.ASSET_MATERIALIZATION and event.partition is None and event.asset_key:
            found = metadata.plain(event.step_materialization_data.materialization.metadata)
            return "    " + outcome_line(event.asset_key.to_user_string(), found)
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
