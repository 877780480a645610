"""Publishing and adopting a release, ended before each of their file operations.

A kill, or a disk that is full from there on: readers see the old release or the new one, and the next
run ends as if nothing had happened.
"""

import hashlib
import os
import re
import shutil
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path

import dagster as dg
import duckdb
import pytest

from serverless_assets.publishing.layout import Layout
from serverless_assets.publishing.local import LocalPublisher
from serverless_assets.publishing.outcome import AssetOutcome
from tests.faults.crash_points import CrashPoint, Fault, every_crash_point, restore
from tests.faults.tally import Attempt, Tally
from tests.faults.world import NAMED_BY_RUN

KIND = "crash points of publish and adopt"
LOG = dg.get_dagster_logger()
OLD, NEW = 1, 2
RECORD = "forecast-record-of-the-first-run.parquet"
ASSET = "numbers"


def a_run(home: Path, number: int, first: bool = False) -> None:
    """What a run does with its files: it adopts, cleans up, writes `number` to two databases, publishes."""
    release, layout = LocalPublisher(home, "dwh"), Layout(home)
    try:
        release.begin(f"run-{number}", [ASSET], [ASSET], LOG)
        release.warehouse.prepare_schemas([("other", "dwh")])
        for path in databases(layout.work):
            with duckdb.connect(str(path)) as connection:
                connection.execute(f"create or replace table numbers as select {number} as n")
        with duckdb.connect(str(layout.working_warehouse)) as connection:
            if first:
                connection.execute("create table if not exists kept as select 'of the first run' as value")
        layout.working_artifacts.mkdir(exist_ok=True)
        (layout.working_artifacts / "forecast.html").write_text(str(number))
        if first:
            (layout.working_artifacts / RECORD).write_text("a record")
        assert release.end(f"run-{number}", [AssetOutcome(ASSET, "built", "")], LOG)
    finally:
        release.close()


# ---- what the run finds


def nothing(home: Path) -> None:
    """a new home"""
    shutil.rmtree(home)
    home.mkdir()


def a_release(home: Path) -> None:
    """a release"""


def no_work(home: Path) -> None:
    """a release, and work/ deleted"""
    shutil.rmtree(home / "work")


def no_working_artifacts(home: Path) -> None:
    """a release, and work/artifacts deleted"""
    shutil.rmtree(home / "work" / "artifacts")


def replaced_by_hand(home: Path) -> None:
    """another file in the place of the published one"""
    backup = home.with_name("backup.duckdb")
    shutil.copyfile(home / "current" / "warehouse.duckdb", backup)
    os.replace(backup, home / "warehouse.duckdb")


def no_links(home: Path) -> None:
    """a release, and the links to it deleted"""
    for name in ("warehouse.duckdb", "artifacts"):
        (home / name).unlink()


STATES: list[Callable[[Path], None]] = [
    nothing, a_release, no_work, no_working_artifacts, replaced_by_hand, no_links,
]  # fmt: skip


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("crash") / "home"
    home.mkdir()
    a_run(home, OLD, first=True)
    return home.rename(home.with_name("template"))


@pytest.mark.parametrize("fault", ["kill", "full disk"])
@pytest.mark.parametrize("state", STATES, ids=lambda state: state.__name__)
def test_every_crash_point_of_a_run_leaves_a_home_that_the_next_run_completes(
    released: Path, tmp_path: Path, attempt: Tally, state: Callable[[Path], None], fault: Fault
) -> None:
    template, home = tmp_path / "template", released.with_name("home")
    restore(released, template)
    state(template)
    is_new = state is nothing
    # The end of a run that nothing happened to.
    restore(template, home)
    a_run(home, NEW, first=is_new)
    expected = set(files(home))
    restore(template, home)
    crashes = every_crash_point(
        lambda: a_run(home, NEW, first=is_new), partial(CrashPoint, home, fault=fault)
    )
    for number in crashes:
        with attempt(f"{fault} at file operation {number}, {state.__doc__}") as tried:
            check_readers(home, {NEW} if is_new else {OLD, NEW}, tried)
            a_run(home, NEW, first=is_new)
            check_readers(home, {NEW}, tried)
            if not (home / "artifacts" / RECORD).exists():
                tried.loss("the record of the first forecast is lost")
            _, tables = content(home / "warehouse.duckdb")
            if "kept" not in tables:
                tried.loss("a table of the first run is lost")
            tried.left_overs(set(files(home)) - expected)
        restore(template, home)


@pytest.mark.parametrize("fault", ["kill", "full disk"])
def test_every_crash_point_of_a_rollback_leaves_a_home_that_the_next_one_completes(
    released: Path, tmp_path: Path, attempt: Tally, fault: Fault
) -> None:
    template, home = tmp_path / "template", released.with_name("home")
    restore(released, template)
    a_run(template, NEW)

    def roll_back() -> None:
        with dg.DagsterInstance.ephemeral() as instance:
            LocalPublisher(home, "dwh").rollback(f"run-{OLD}", instance, LOG)

    restore(template, home)
    for number in every_crash_point(roll_back, partial(CrashPoint, home, fault=fault), stride=2):
        with attempt(f"{fault} at file operation {number} of a rollback") as tried:
            check_readers(home, {OLD, NEW}, tried)
            if LocalPublisher(home, "dwh").releases()[0].run_id != f"run-{OLD}":
                roll_back()
            check_readers(home, {OLD}, tried)
            a_run(home, NEW + 1)
            check_readers(home, {NEW + 1}, tried)
            tried.left_overs(path.name for path in home.rglob("releases/.*"))
        restore(template, home)


def check_readers(home: Path, numbers: set[int], tried: Attempt) -> None:
    """Report a release that is neither of those that people may see, or not whole."""
    current = home / "current"
    if not current.exists():
        return
    read = [content(path)[0] for path in databases(current)]
    report = (current / "artifacts" / "forecast.html").read_text()
    if read[0] not in numbers or {report} != {*map(str, read)}:
        tried.loss(f"readers see databases of runs {read} and a report of run {report}")


def databases(folder: Path) -> list[Path]:
    return [folder / "warehouse.duckdb", folder / "databases" / "other.duckdb"]


def content(path: Path) -> tuple[int, set[str]]:
    """The number in a warehouse and the names of its tables, read once for each content that a file has."""
    return _content(hashlib.sha256(path.read_bytes()).hexdigest(), path)


@cache
def _content(digest: str, path: Path) -> tuple[int, set[str]]:
    with duckdb.connect(str(path), read_only=True) as connection:
        (number,) = connection.execute("select n from numbers").fetchall()[0]
        return number, {name for (name,) in connection.execute("show tables").fetchall()}


def files(home: Path) -> Iterator[str]:
    for path in home.rglob("*"):
        if path.is_symlink() or not path.is_dir():
            yield re.sub(r"-run-\d", "", NAMED_BY_RUN.sub("*", str(path.relative_to(home))))
