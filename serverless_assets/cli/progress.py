"""A run's events as lines on the terminal, while it works."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import dagster as dg
from dagster import DagsterEventType as Type

from serverless_assets import metadata
from serverless_assets.cli.text import outcome_line
from serverless_assets.publishing.outcome import failure_in_words


@dataclass
class Progress:
    """Call it with each event of a run; it prints those that a person waits for."""

    echo: Callable[[str], None]
    started: float = field(default_factory=time.monotonic)

    def __call__(self, entry: dg.EventLogEntry) -> None:
        line = self._line(entry)
        if line:
            self.echo(f"{time.monotonic() - self.started:6.1f}s  {line}")

    def _line(self, entry: dg.EventLogEntry) -> str | None:
        event = entry.dagster_event
        if event is None:
            return f"    {entry.user_message}" if int(entry.level) >= logging.INFO else None
        if event.event_type == Type.STEP_START:
            return f"{event.step_key} ..."
        if event.event_type == Type.STEP_FAILURE:
            return f"{event.step_key} failed: {failure_in_words(event)}"
        if event.event_type == Type.STEP_UP_FOR_RETRY:
            retry = event.step_retry_data
            return f"{event.step_key} in {retry.seconds_to_wait or 0:.0f} s again: {failure_in_words(event)}"
        if event.event_type == Type.ASSET_MATERIALIZATION and event.partition is None and event.asset_key:
            found = metadata.plain(event.step_materialization_data.materialization.metadata)
            return "    " + outcome_line(event.asset_key.to_user_string(), found)
        return None
