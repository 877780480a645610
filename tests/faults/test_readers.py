"""People and tools read while runs publish: no error, never half a run, never two releases at once."""

from datetime import date
from pathlib import Path

import duckdb

from serverless_assets.publishing.layout import Layout
from serverless_assets.publishing.local_releases import publish
from tests.faults.conftest import ROUNDS
from tests.faults.reader import Readers
from tests.faults.tally import Tally
from tests.faults.world import STORES, World, add_days

KIND = "readers beside it"
FIRST = date(2026, 10, 1).toordinal()


def report(readers: Readers, attempt: Tally) -> None:
    """Stop the readers; every read was a fault that was tried."""
    for seen in readers.stop():
        for problem in seen["problems"]:
            with attempt("a read") as fault:
                fault.loss(problem)
        for _ in range(seen["reads"] - len(seen["problems"])):
            with attempt("a read"):
                pass


def test_readers_see_whole_runs_while_the_pipeline_publishes(
    place: World, template: Path, attempt: Tally, tmp_path: Path
) -> None:
    place.put(template)
    readers = Readers("pipeline", place.home, tmp_path / "stop")
    try:
        with place.restored():
            for n in range(2 * ROUNDS):
                day = date.fromordinal(FIRST + n)
                add_days(place.source, day, day)
                place.source.rows["raw_stores"] = [
                    (id, f"{name} {n}", opened, tax) for id, name, opened, tax in STORES
                ]
                with attempt(f"publish {n} with two readers") as fault:
                    code, output = place.run()
                    if code:
                        fault.other(f"the run ends with {code}: {output[-600:]}")
    finally:
        report(readers, attempt)


def test_a_reader_that_resolves_current_once_reads_one_release(attempt: Tally, tmp_path: Path) -> None:
    layout = Layout(tmp_path / "home")
    layout.working_artifacts.mkdir(parents=True)
    publish_number(layout, 0)
    readers = Readers("numbers", layout.home, tmp_path / "stop")
    try:
        for number in range(1, 60 * ROUNDS):
            publish_number(layout, number)
    finally:
        report(readers, attempt)


def publish_number(layout: Layout, number: int) -> None:
    with duckdb.connect(str(layout.working_warehouse)) as connection:
        connection.execute(f"create or replace table numbers as select {number} as n")
    (layout.working_artifacts / "forecast.html").write_text(str(number))
    publish(layout, f"run-{number}")
