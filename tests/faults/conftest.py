"""The campaign: `make test-faults`. Every test tries some faults and tells what became of each.

FAULT_ROUNDS (1) is how often those that are random are tried, FAULT_SEED (of the day) what they follow from.
"""

import os
import random
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import pytest

from tests.faults.tally import Table, Tally
from tests.faults.world import EndState, World, end_state, world

ROUNDS = int(os.environ.get("FAULT_ROUNDS", "1"))
SEED = int(os.environ.get("FAULT_SEED", date.today().toordinal()))
TABLE = Table()
TALLY = pytest.StashKey[Tally]()


# The longest tests: begun first, they do not keep one process busy while the other has nothing to do.
LONGEST = ("test_thirty_days", "test_ui_cancel", "test_full_disk", "test_readers", "test_together")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    own = [item for item in items if Path(__file__).parent in item.path.parents]
    for item in own:
        item.add_marker("faults")
    if len(own) == len(items):
        order = {name: n for n, name in enumerate(LONGEST)}
        items.sort(key=lambda item: order.get(item.path.stem, len(order)))


@pytest.fixture
def attempt(request: pytest.FixtureRequest) -> Tally:
    """Tries faults: `with attempt("what is tried") as fault: ...`. The module's KIND is their kind."""
    tally = Tally(request.module.KIND)
    request.node.user_properties.append(("kind", tally.kind))
    request.node.stash[TALLY] = tally
    return tally


@pytest.fixture
def chance(request: pytest.FixtureRequest) -> random.Random:
    """What a test draws from, so that the seed that is printed repeats the test."""
    return random.Random(f"{SEED} {request.node.name}")


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A small shop on a socket, and where a home for it is."""
    with world(tmp_path_factory.mktemp("faults") / "world") as found:
        yield found


@pytest.fixture(scope="session")
def template(place: World) -> Path:
    """A home after one green run of everything. Tests take copies of it: `place.put(template)`."""
    code, output = place.run()
    assert code == 0, output
    return place.home.rename(place.home.with_name("template"))


@pytest.fixture(scope="session")
def undisturbed(place: World, template: Path) -> tuple[EndState, str]:
    """The end of a run a week later that nobody disturbed, and what it printed."""
    with place.a_week_later():
        place.put(template)
        code, output = place.run()
    assert code == 0, output
    return end_state(place.home), output


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    result = yield
    tally = item.stash.get(TALLY, None)
    if tally and tally.problems:
        pytest.fail(f"seed {SEED}:\n" + "\n".join(tally.problems), pytrace=False)
    return result


def pytest_runtest_teardown(item: pytest.Item) -> None:
    if tally := item.stash.get(TALLY, None):
        item.user_properties += tally.as_properties()


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    TABLE.add(report)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if TABLE.sums:
        terminalreporter.section(f"faults, seed {SEED}, rounds {ROUNDS}")
        for line in TABLE.lines():
            terminalreporter.write_line(line)
