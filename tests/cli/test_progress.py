"""What a run prints while it is at work."""

import math
import os
import pty
import re
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg

from serverless_assets.cli.progress import Progress, echo, moving_line
from serverless_assets.cli.run import QUIET_CONSOLE


def test_a_reader_that_has_read_enough_does_not_end_a_run(monkeypatch):
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as closed:
        monkeypatch.setattr(sys, "stdout", closed)
        echo("a line that nobody reads")
        echo("another one")


def test_a_whole_run_is_told_in_a_line_for_each_asset_and_step(green):
    """Of the events of a whole first run, as a terminal shows them, less the six lines of the summary."""
    lines, moves = [], []
    for move in (moves.append, None):
        progress = Progress(green.home, lines.append, move)
        lines.clear()
        [run] = [run for run in green.instance.get_runs() if run.job_name == "serverless_pipeline"]
        for entry in green.instance.all_logs(run.run_id):
            progress(entry)
        # Raw tables that the sample shop lacks.
        lines[:] = [line for line in lines if "is left out" not in line]
        # Without a terminal, each of seven steps has a line at its begin.
        assert len(lines) <= (26 if move else 33), "\n".join(lines)
    text = "\n".join(lines)
    assert "6 built: new (stg_" in text
    assert "combined: " not in text and text.count(" back-tests of 180 days") == 1, "one line on the forecast"
    assert {"ingestion ...", "transformation ...", "order_forecast ...", "forecast_report ..."} <= {*moves}
    assert any(re.fullmatch(r"transformation: \d+ of \d+", move) for move in moves)


@contextmanager
def terminal(monkeypatch) -> Iterator[int]:
    """Have this process print to a terminal; the file descriptor is its other end."""
    screen, line = pty.openpty()
    with open(line, "w") as stdout, monkeypatch.context() as patch:
        patch.setenv("TERM", "xterm")
        patch.setattr(sys, "stdout", stdout)
        yield screen
    os.close(screen)


def read_until(screen: int, words: str) -> str:
    shown = ""
    while words not in shown:
        shown += os.read(screen, 4096).decode()
    return shown


def test_in_a_terminal_a_line_at_the_bottom_moves_and_says_how_far_a_step_is(tmp_path, monkeypatch):
    @dg.op
    def order_forecast(context: dg.OpExecutionContext) -> None:
        context.log.info("3 of 7 series")
        shown.append(read_until(screen, "order_forecast: 3 of 7"))
        context.log.info("the weights of the methods")
        shown.append(read_until(screen, "the weights of the methods"))

    @dg.job
    def forecast() -> None:
        order_forecast()

    shown, run_id = list[str](), str(uuid.uuid4())
    with terminal(monkeypatch) as screen, dg.DagsterInstance.ephemeral() as instance:
        progress = Progress(tmp_path)
        instance.add_event_listener(run_id, progress)
        with moving_line() as (progress.echo, progress.move):
            config = {"loggers": QUIET_CONSOLE}
            assert forecast.execute_in_process(config, instance=instance, run_id=run_id).success
    # The line moves: what it says is not printed above it.
    assert "3 of 7 series" not in "".join(shown)
    assert re.search(r"\d\.\ds  +the weights", shown[1])


def test_without_a_terminal_nothing_moves(tmp_path, monkeypatch):
    with open(tmp_path / "log", "w") as file:
        monkeypatch.setattr(sys, "stdout", file)
        with moving_line() as (_, move):
            assert move is None


def test_the_step_of_a_forecast_has_the_name_of_its_asset_and_tells_how_far_it_is_in_one_form(tmp_path):
    @dg.multi_asset(name="compute_guests", specs=[dg.AssetSpec("guests")])
    def guests(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        context.log.info("3 of 7 series")
        return dg.MaterializeResult(asset_key="guests")

    lines = list[str]()
    with dg.DagsterInstance.ephemeral() as instance:
        assert dg.materialize([guests], instance=instance).success
        (run,) = instance.get_runs()
        progress = Progress(tmp_path, lines.append)
        for entry in instance.all_logs(run.run_id):
            # As if the last line had been printed long ago.
            progress.last_printed = -math.inf
            progress(entry)
    assert [line.partition("s  ")[2].strip() for line in lines] == ["guests ...", "guests: 3 of 7", "guests"]
