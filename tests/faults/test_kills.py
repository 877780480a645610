"""Runs that are killed or stopped at random moments: the next run ends as if nothing had happened."""

import random
import re
import signal
import sqlite3
import time
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from tests.faults.conftest import ROUNDS
from tests.faults.processes import STOP_SECONDS, Command, processes_of, started
from tests.faults.tally import Attempt, Tally
from tests.faults.world import EndState, World, end_state, left_overs

KIND = "kill or stop of a run"
# Each phase begins with the line that has this text.
PHASES = {
    "ingestion": "ingestion ...",
    "dbt": "transformation ...",
    "forecast": "order_forecast ...",
    "publish": "forecast_report ...",
}
# Ctrl-C and SIGTERM end a run by the same way: each phase has one of them, and in the long form both.
KILLS = [(signal.SIGKILL, phase) for phase in PHASES]
STOPS = [(number, phase) for phase in PHASES for number in (signal.SIGTERM, signal.SIGINT)]
ENDS = [*KILLS, *(STOPS if ROUNDS > 1 else [STOPS[n] for n in (0, 3, 4, 7)])]
TIME = re.compile(r"^ *(\d+\.\d)s  ")


@dataclass(frozen=True)
class Moment:
    """A moment of a run: so many seconds after it has printed so many lines."""

    lines: int
    seconds: float


def moments(output: str, phase: str, chance: random.Random) -> Moment:
    """A random moment in a phase of the run that printed `output`."""
    lines = output.splitlines()
    times = [float(found[1]) if (found := TIME.match(line)) else None for line in lines]
    first = next(n for n, line in enumerate(lines) if line.endswith(PHASES[phase]))
    later = list(PHASES)[list(PHASES).index(phase) + 1 :]
    last = next(
        (n for n, line in enumerate(lines) if later and line.endswith(PHASES[later[0]])), len(lines) - 1
    )
    stamped = [n for n in range(first, last) if times[n] is not None]
    n = chance.choice(stamped)
    following = next((times[m] for m in range(n + 1, len(lines)) if times[m] is not None), times[n])
    return Moment(n + 1, chance.random() * max(0.1, (following or 0.0) - (times[n] or 0.0)))


@pytest.mark.parametrize(("number", "phase"), ENDS, ids=[f"{number.name}-{phase}" for number, phase in ENDS])
def test_a_run_after_one_that_was_ended_ends_as_if_nothing_had_happened(
    place: World,
    template: Path,
    undisturbed: tuple[EndState, str],
    attempt: Tally,
    chance: random.Random,
    number: signal.Signals,
    phase: str,
) -> None:
    reference, output = undisturbed
    for _ in range(ROUNDS):
        moment = moments(output, phase, chance)
        name = f"{number.name} {moment.seconds:.2f} s after line {moment.lines}, {phase}"
        with place.a_week_later(), attempt(name) as fault:
            place.put(template)
            with started(["run"], place.variables, place.output) as command:
                wait_until(command, moment)
                end(command, number, fault)
            code, text = place.run()
            if code:
                fault.other(f"the next run ends with {code}: {text[-600:]}")
            compare(place, reference, fault)


def wait_until(command: Command, moment: Moment) -> None:
    while command.process.exitcode is None and command.text.count("\n") < moment.lines:
        time.sleep(0.01)
    time.sleep(moment.seconds)


def end(command: Command, number: signal.Signals, fault: Attempt) -> None:
    """Send the signal; a run that is asked to end does so soon, and says so."""
    printed = len(command.text)
    # A run that has printed its result is over, though its process may still be about to end.
    is_over = command.process.exitcode is not None or "\nSucceeded in " in command.text
    command.send(number)
    if number == signal.SIGKILL or is_over:
        command.exit_code()
        return
    try:
        code = command.exit_code(STOP_SECONDS)
    except TimeoutError:
        fault.other(f"it still runs {STOP_SECONDS:g} s after {number.name}")
        return
    since = command.text[printed:]
    if code and not since.strip():
        fault.silent(f"it ends with {code} and prints nothing after {command.text[-200:]!r}")
    if "Traceback" in since:
        fault.silent(f"it prints a traceback: {since[-600:]}")


def compare(
    place: World,
    reference: EndState,
    fault: Attempt,
    besides: int | None = None,
    its_files: Collection[str] = (),
) -> None:
    """Report what is not as it is after a run that nobody disturbed.

    Processes of the home are left over, `besides` the one of this id and those that it started; `its_files`
    are what it keeps in the temporary folder.
    """
    fault.loss(*end_state(place.home).differences(reference))
    fault.left_overs(set(left_overs(place.home, place.temporary, reference)) - set(its_files))
    processes = processes_of(place.home)
    if besides:
        own = {besides, *(child.pid for child in psutil.Process(besides).children(recursive=True))}
        # A run that the UI launched is over, and so are all its processes.
        processes = {
            pid: line for pid, line in processes.items() if pid not in own or "modal_forecast" in line
        }
    fault.left_overs(f"process {pid}: {line}" for pid, line in processes.items())
    fault.left_overs(f"a run that is {status}" for status in unfinished_runs(place.home))


def unfinished_runs(home: Path) -> list[str]:
    """The states of Dagster's runs that are not over."""
    with sqlite3.connect(home / "dagster" / "history" / "runs.db") as connection:
        rows = connection.execute(
            "select status from runs where status not in ('SUCCESS', 'FAILURE', 'CANCELED')"
        ).fetchall()
    return [str(status) for (status,) in rows]
