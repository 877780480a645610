"""What a run prints while it is at work: a line for each event that a person waits for."""

import logging
import os
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
import dagster as dg
from dagster import DagsterEventType as Type
from rich.console import Console
from rich.text import Text

from serverless_assets import metadata
from serverless_assets.asset_keys import asset_name
from serverless_assets.cli.failures import keep_traceback
from serverless_assets.dagster_internals import SerializableErrorInfo
from serverless_assets.failures import RunFailure
from serverless_assets.names import NAMES_IN_A_LINE, NAMES_OF_FAILED, STEP_PREFIX, name_some
from serverless_assets.publishing.outcome import STOPPED_BY_HAND, failure_sentence_of, run_failure_sentence

# Dagster's messages about steps that were skipped. The summary has each skipped asset with its reason.
SKIPPED_STEP_WARNING = re.compile(
    r"op '\w+' did not yield or return expected outputs|Blocking asset check '|Skipping step "
    r"|Dependencies for step "
)
# Messages for the UI: totals of a step, whose assets have a line each in the terminal, and advice.
FOR_THE_UI = re.compile(r"Loaded |Nothing loaded, |[\d,]+ models? built|The source begins in ")
# How far a step is: dbt's line for each model, the worker's for each share of many series, and retries.
HOW_FAR = re.compile(
    r"(?P<done>[\d,]+ of [\d,]+) (OK |series)|.* Attempt (?P<attempt>\d+ of \d+); asking again"
)
# Without a terminal, at most one such line is printed in so many seconds.
PAUSE_SECONDS = 10.0


def echo(text: str) -> None:
    """Print a line. A reader that has read enough and left, such as `head`, does not end a run."""
    try:
        click.echo(text)
    except BrokenPipeError:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), sys.stdout.fileno())


@contextmanager
def moving_line() -> Iterator[tuple[Callable[[str], None], Callable[[str], None] | None]]:
    """Show a line at the bottom of the terminal that moves while a run is at work.

    Yields a function that prints a line above it, and one that sets its text; the second is None without a
    terminal.
    """
    if not sys.stdout.isatty():
        yield echo, None
        return
    # With a dagster.yaml of your own, Dagster may send what a step prints to a file. Not closed, as there are
    # events after the last step.
    terminal = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    console = Console(file=terminal, soft_wrap=True, markup=False, highlight=False)
    with console.status("") as status:
        # A killed process would leave the cursor hidden.
        console.show_cursor()
        yield console.print, lambda text: status.update(Text(text))


@dataclass
class Progress:
    """Call it with each event of a run; it prints those that a person waits for.

    home: below which the traceback of an error that nobody expected is kept.
    move: shows what is at work, see `moving_line`.
    first_month: of a run of a range of months, in which Dagster has an event for each month of an asset.
    in_full: whether to print all lines of a message, as a job without assets has no other result.
    started: when the command was, as of time.monotonic().
    failed: whether something failed outside of the run's steps, such as closing a resource, which Dagster
        does not count.
    refusal: why the run could not begin; the summary says it, and no line does.
    is_stopped: whether the run was stopped. Nothing more is printed then but the last lines.
    """

    home: Path
    echo: Callable[[str], None] = echo
    move: Callable[[str], None] | None = None
    first_month: str | None = None
    in_full: bool = False
    started: float = field(default_factory=time.monotonic)
    failed: bool = False
    refusal: str = ""
    is_stopped: bool = False
    # The names of those that the run is for.
    assets: set[str] = field(default_factory=set)
    # Assets with the same outcome and no rows, which share a line; and those that failed.
    alike: list[str] = field(default_factory=list)
    outcome: Mapping[str, Any] = field(default_factory=dict)
    failed_assets: list[str] = field(default_factory=list)
    last_printed: float = 0.0

    def __call__(self, entry: dg.EventLogEntry) -> None:
        event = entry.dagster_event
        if event is None:
            self._message(entry)
            return
        match event.event_type:
            case Type.ASSET_MATERIALIZATION_PLANNED if event.asset_key:
                self.assets.add(asset_name(event.asset_key))
            case Type.ASSET_MATERIALIZATION if event.asset_key:
                # An event for each month of a range is one for the asset.
                if event.partition is None or event.partition == self.first_month:
                    outcome = metadata.plain_values(event.step_materialization_data.materialization.metadata)
                    self._add_outcome(asset_name(event.asset_key), outcome)
            case Type.ASSET_OBSERVATION if event.asset_key:
                observed = metadata.plain_values(event.asset_observation_data.asset_observation.metadata)
                if observed.get(metadata.STATUS) == "failed":
                    self.failed_assets.append(asset_name(event.asset_key))
            case Type.STEP_START:
                begun = f"{self._step_name(str(event.step_key))} ..."
                if self.move:
                    self.move(begun)
                else:
                    self._print(begun)
            case Type.STEP_SUCCESS:
                self._print_alike()
            case Type.STEP_UP_FOR_RETRY:
                pause = event.step_retry_data.seconds_to_wait or 0
                step = self._step_name(str(event.step_key))
                self._print(f"{step} in {pause:.0f} s again: {failure_sentence_of(event)}")
            case Type.STEP_FAILURE:
                self._step_failure(event)
            case Type.RUN_FAILURE if event.job_failure_data.first_step_failure_event is None:
                self._failure_outside_of_steps(event.job_failure_data.error)
            case Type.ENGINE_EVENT:
                # Of a resource that cannot be closed, say.
                self._failure_outside_of_steps(event.engine_event_data.error)

    def _message(self, entry: dg.EventLogEntry) -> None:
        text = entry.user_message
        if how_far := HOW_FAR.match(text):
            attempt, step = how_far["attempt"], self._step_name(entry.step_key or "")
            if self.move:
                self.move(f"{step}: " + (f"attempt {attempt} failed" if attempt else how_far["done"]))
            elif time.monotonic() - self.last_printed > PAUSE_SECONDS:
                self._print(f"    {text}" if attempt else f"    {step}: {how_far['done']}")
            return
        # Indented lines of the forecast's worker, such as the weight of each method, are for the UI.
        is_for_ui = int(entry.level) < logging.INFO or text.startswith("  ") or FOR_THE_UI.match(text)
        if is_for_ui or SKIPPED_STEP_WARNING.match(text):
            return
        # The lines below the first, such as the decision on each model, are for the UI.
        in_full = self.in_full or int(entry.level) > logging.INFO
        self._print("    " + (text if in_full else text.partition("\n")[0]))

    def _step_name(self, step_key: str) -> str:
        """Return the name of a step for people: without the prefix of a forecast named like its job."""
        asset = step_key.removeprefix(STEP_PREFIX)
        return asset if asset in self.assets else step_key

    def _print(self, line: str) -> None:
        if self.is_stopped:
            return
        self._print_alike()
        self.last_printed = time.monotonic()
        self.echo(f"{self.last_printed - self.started:6.1f}s  {line}")

    def _add_outcome(self, asset: str, outcome: Mapping[str, Any]) -> None:
        """Print what became of an asset; of several that are reused alike, or have no rows, in one line."""
        shared = {name: outcome.get(name) for name in (metadata.STATUS, metadata.REASON)}
        if outcome.get(metadata.STATUS) != "reused" and metadata.ROWS in outcome:
            self._print("    " + outcome_line(asset, outcome))
        elif self.alike and shared == {name: self.outcome.get(name) for name in shared}:
            self.alike.append(asset)
        else:
            self._print_alike()
            self.alike, self.outcome = [asset], outcome

    def _print_alike(self) -> None:
        names, self.alike = self.alike, []
        if len(names) == 1:
            self._print("    " + outcome_line(names[0], self.outcome))
        elif names:
            status, reason = self.outcome.get(metadata.STATUS), self.outcome.get(metadata.REASON)
            self._print(f"    {len(names)} {status}: {reason} ({name_some(names, NAMES_IN_A_LINE)})")

    def _step_failure(self, event: dg.DagsterEvent) -> None:
        sentence, data = failure_sentence_of(event), event.step_failure_data
        step = self._step_name(str(event.step_key))
        if sentence == STOPPED_BY_HAND:
            self.is_stopped = True
        elif self.failed_assets:
            # The summary has the reason of each.
            names, self.failed_assets = name_some(self.failed_assets, NAMES_OF_FAILED), []
            self._print(f"{step} failed: {names}, see below.")
        elif data.user_failure_data or data.error is None or self.is_stopped:
            self._print(f"{step} failed: {sentence}")
        else:
            # The code that failed had no sentence of its own.
            kept = keep_traceback(data.error.to_string(), self.home)
            self._print(f"{step} failed: {sentence}\n{kept}")

    def _failure_outside_of_steps(self, error: SerializableErrorInfo | None) -> None:
        if error is None:
            return
        self.failed, sentence, cause = True, run_failure_sentence(error), error
        while cause.cls_name != RunFailure.__name__ and cause.cause:
            cause = cause.cause
        if cause.cls_name == RunFailure.__name__ and cause.cause is None:
            self.refusal = sentence
        else:
            kept = keep_traceback(error.to_string(), self.home)
            self._print(f"The run failed: {sentence}\n{kept}")


def outcome_line(asset: str, outcome: Mapping[str, Any]) -> str:
    """Return a line on an asset: its name, rows, bytes, seconds and reason, as far as they are known."""
    rows, size, seconds, status, reason = map(
        outcome.get,
        (metadata.ROWS, metadata.BYTES, metadata.SECONDS, metadata.STATUS, metadata.REASON),
    )
    parts = [f"{asset:<28}"]
    parts.append(f"{rows:>10,} rows" if rows is not None else " " * 15)
    parts.append(f"{size_text(size):>9}" if size is not None else " " * 9)
    parts.append(f"{seconds:6.2f} s" if seconds is not None else " " * 8)
    parts.append(f" {status}: {reason}" if reason else "")
    return " ".join(parts).rstrip()


def size_text(size: int) -> str:
    """Return a number of bytes in B, KiB or MiB."""
    if size < 1024:
        return f"{size} B"
    if size < 1024**2:
        return f"{size / 1024:.1f} KiB"
    return f"{size / 1024**2:.1f} MiB"
