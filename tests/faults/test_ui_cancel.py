"""Runs that somebody cancels in the UI at a random moment: they end soon, and the next run is whole."""

import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.faults.conftest import ROUNDS
from tests.faults.processes import STOP_SECONDS
from tests.faults.tally import Tally
from tests.faults.test_kills import compare
from tests.faults.world import EndState, World, end_state, left_overs
from tests.ui.client import OVER, Ui, steps, until
from tests.ui.serve import serve

KIND = "cancel in the UI"
# Each step in the smallest job that has it.
JOBS = {
    "ingestion": "serverless_pipeline",
    "transformation": "transform",
    "order_forecast": "forecast",
    "forecast_report": "forecast",
}
TERMINATE = (
    "mutation ($id: String!) { terminateRun(runId: $id) { __typename ... on PythonError { message } } }"
)
REBUILD = {"rebuild": "all"}


@dataclass(frozen=True)
class Served:
    """A UI over a home with a green run, what that home shows, and what files the UI itself keeps."""

    ui: Ui
    reference: EndState
    its_files: list[str]


@pytest.fixture(scope="module")
def served(place: World, template: Path) -> Iterator[Served]:
    place.put(template)
    reference = end_state(place.home)
    variables = {name: value for name, value in place.variables.items() if name.startswith("SERVERLESS_")}
    with serve(place.home, {**variables, "TMPDIR": str(place.temporary)}) as ui:
        yield Served(ui, reference, left_overs(place.home, place.temporary, reference))


# One process serves the UI to all of them.
@pytest.mark.xdist_group("ui_cancel")
@pytest.mark.parametrize("step", JOBS)
def test_a_run_after_one_that_was_cancelled_ends_as_if_nothing_had_happened(
    place: World, served: Served, attempt: Tally, chance: random.Random, step: str
) -> None:
    for _ in range(ROUNDS):
        seconds = chance.random() * 2
        with attempt(f"{seconds:.2f} s after {step} began") as fault:
            run_id = served.ui.launch(JOBS[step], REBUILD)
            until(lambda run_id=run_id: has_begun(served.ui, run_id, step), f"{step} has begun")
            time.sleep(seconds)
            cancelled = time.monotonic()
            served.ui.ask(TERMINATE, id=run_id)
            served.ui.status_at_the_end(run_id)
            if time.monotonic() - cancelled > STOP_SECONDS:
                fault.other(f"it ended {time.monotonic() - cancelled:.0f} s after it was cancelled")
            code, text = place.run()
            if code:
                fault.other(f"the next run ends with {code}: {text[-600:]}")
            compare(place, served.reference, fault, besides=served.ui.pid, its_files=served.its_files)


def has_begun(ui: Ui, run_id: str, step: str) -> bool:
    run = ui.run(run_id)
    return step in steps(run) or run["status"] in OVER
