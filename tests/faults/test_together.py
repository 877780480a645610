"""Ten runs at once in one home take turns, and all of them end well."""

import itertools
import sqlite3
from contextlib import ExitStack
from pathlib import Path

from tests.faults.conftest import ROUNDS
from tests.faults.processes import RUN_SECONDS, started
from tests.faults.tally import Tally
from tests.faults.test_kills import compare
from tests.faults.world import EndState, World

KIND = "runs at the same time"
# In whatever order they come to their turns, the tables are up to date at the end: some run does everything.
JOBS = [*["serverless_pipeline"] * 3, *["ingest"] * 3, *["transform"] * 2, *["forecast"] * 2]
# The first and the last thing that a run does while nobody else may write.
AT_WORK = """
    select run_id, min(timestamp), max(timestamp) from event_logs
    where dagster_event_type in ('STEP_START', 'STEP_SUCCESS') group by run_id order by 2
"""


def test_ten_runs_in_one_home_take_turns_and_all_succeed(
    place: World, template: Path, undisturbed: tuple[EndState, str], attempt: Tally
) -> None:
    reference, _ = undisturbed
    with place.a_week_later():
        for _ in range(ROUNDS):
            place.put(template)
            run_together(place, attempt)
            with attempt(f"the end of {len(JOBS)} runs") as fault:
                compare(place, reference, fault)
                fault.other(*overlaps(place.home))


def run_together(place: World, attempt: Tally) -> None:
    with ExitStack() as stack:
        commands = [
            stack.enter_context(started(["run", job], place.variables, place.folder / f"output-{n}.txt"))
            for n, job in enumerate(JOBS)
        ]
        for n, command in enumerate(commands):
            with attempt(f"run {n} of {len(JOBS)}, {JOBS[n]}") as fault:
                if code := command.exit_code(RUN_SECONDS * len(JOBS)):
                    fault.other(f"it ends with {code}: {command.text[-600:]}")


def overlaps(home: Path) -> list[str]:
    """Pairs of runs that worked at the same time."""
    times = []
    for path in (home / "dagster" / "history" / "runs").glob("*-*.db"):
        with sqlite3.connect(path) as connection:
            times += connection.execute(AT_WORK).fetchall()
    times.sort(key=lambda run: run[1])
    return [
        f"runs {earlier[0][:8]} and {later[0][:8]} were at work at the same time"
        for earlier, later in itertools.pairwise(times)
        if later[1] < earlier[2]
    ]
