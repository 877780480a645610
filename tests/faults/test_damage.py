"""Damage to the home directory: the next run heals it, or is refused with a sentence that says what to do."""

import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import duckdb
import pytest

from tests.faults.tally import Attempt, Tally
from tests.faults.world import EndState, World, end_state, left_overs, warehouse_content

KIND = "damage to the home directory"
NOISE = bytes(range(256)) * 64
# A sentence that helps names something to do.
ADVICE = ("move", "delete", "remove", "restore", "replace", "run again", "make clean", "choose", "repair")


def write(path: Path, content: bytes) -> None:
    """Put a file in the place of whatever is at `path`."""
    remove(path)
    path.write_bytes(content)


def remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def folder(path: Path) -> None:
    """Put a folder with a file of somebody's own in the place of whatever is at `path`."""
    remove(path)
    path.mkdir()
    (path / "notes.txt").write_text("mine")


def link(path: Path, target: str) -> None:
    remove(path)
    path.symlink_to(target)


def cut(path: Path) -> None:
    path = path.resolve()
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content[: len(content) // 2])


def overwrite(path: Path, content: bytes = NOISE) -> None:
    """Change a file's content where it lies, links followed."""
    path.resolve().write_bytes(content)


def noise(path: Path) -> None:
    write(path, NOISE)


def emptied(path: Path) -> None:
    overwrite(path, b"")


# What is damaged below the home, and how.
DAMAGES: dict[str, tuple[str, Callable[[Path], None]]] = {
    "published warehouse: random bytes in its place": ("warehouse.duckdb", noise),
    "published warehouse: an empty file in its place": ("warehouse.duckdb", lambda path: write(path, b"")),
    "published warehouse: overwritten through the link": ("current/warehouse.duckdb", overwrite),
    "published warehouse: cut in half": ("current/warehouse.duckdb", cut),
    "published warehouse: the link is gone": ("warehouse.duckdb", remove),
    "published warehouse: the link leads nowhere": ("warehouse.duckdb", lambda path: link(path, "nowhere")),
    "published warehouse: a folder": ("warehouse.duckdb", folder),
    "artifacts: the link is gone": ("artifacts", remove),
    "artifacts: a file": ("artifacts", noise),
    "artifacts: somebody's folder": ("artifacts", folder),
    "current: gone": ("current", remove),
    "current: leads nowhere": ("current", lambda path: link(path, "releases/nowhere")),
    "current: a folder": ("current", folder),
    "current: a file": ("current", noise),
    "releases: gone": ("releases", remove),
    "release.json: random bytes": ("current/release.json", overwrite),
    "release.json: empty": ("current/release.json", emptied),
    "release.json: a list": ("current/release.json", lambda path: overwrite(path, b"[1]")),
    "release.json: gone": ("current/release.json", remove),
    "work: gone": ("work", remove),
    "working copy: random bytes": ("work/warehouse.duckdb", overwrite),
    "working copy: cut in half": ("work/warehouse.duckdb", cut),
    "working copy: empty": ("work/warehouse.duckdb", emptied),
    "working copy: a folder": ("work/warehouse.duckdb", folder),
    "working copy: a log of random bytes": ("work/warehouse.duckdb.wal", noise),
    "work/artifacts: gone": ("work/artifacts", remove),
    "work/artifacts: a file": ("work/artifacts", noise),
    "unsettled.json: random bytes": ("work/unsettled.json", overwrite),
    "unsettled.json: empty": ("work/unsettled.json", emptied),
    "unsettled.json: a number": ("work/unsettled.json", lambda path: overwrite(path, b"5")),
    "unsettled.json: a folder": ("work/unsettled.json", folder),
    "latest.json: random bytes": ("runs/latest.json", overwrite),
    "latest.json: a folder": ("runs/latest.json", folder),
    "dagster.yaml: random bytes": ("dagster/dagster.yaml", overwrite),
    "Dagster's history: random bytes": ("dagster/history/runs.db", overwrite),
    "Dagster's history: gone": ("dagster", remove),
    "dbt's folder: gone": ("dbt", remove),
    "dbt's manifest: random bytes": ("dbt/manifest.json", overwrite),
    "dbt's partial parse: random bytes": ("dbt/partial_parse.msgpack", overwrite),
}


# A run that loads one table and publishes costs a fifth of a run of everything.
JOBS = {False: ["ingest"], True: ["serverless_pipeline"]}


@contextmanager
def changed(place: World) -> Iterator[None]:
    """A source with another store name, so that a run has something to load and to publish."""
    with place.restored():
        stores = place.source.rows["raw_stores"]
        stores[0] = (stores[0][0], "Brooklyn Heights", *stores[0][2:])
        yield


@pytest.fixture(scope="module")
def references(place: World, template: Path) -> Callable[[bool], EndState]:
    """The end of a run that finds no damage: of everything, or of the raw tables alone."""

    @cache
    def reference(everything: bool) -> EndState:
        with changed(place):
            place.put(template)
            code, output = place.run(*JOBS[everything])
            assert code == 0, output
            return end_state(place.home)

    return reference


@pytest.mark.parametrize("name", DAMAGES)
def test_damage_is_healed_or_refused_in_a_sentence(
    place: World, template: Path, references: Callable[[bool], EndState], attempt: Tally, name: str
) -> None:
    damaged, damage = DAMAGES[name]
    of_dbt = damaged.startswith("dbt")
    reference = references(of_dbt)
    with changed(place), attempt(name) as fault:
        place.put(template)
        damage(place.home / damaged)
        code, text = place.run(*JOBS[of_dbt])
        if "Traceback" in text:
            fault.silent(f"a traceback: {text[-600:]}")
        if code:
            check_refusal(place, template, damaged, text, fault)
            # A person does what the sentence says: here, puts back what was damaged.
            put_back(template / damaged, place.home / damaged)
            code, text = place.run(*JOBS[of_dbt])
            if code:
                fault.other(f"after the repair, a run ends with {code}: {text[-600:]}")
        fault.loss(*end_state(place.home).differences(reference))
        fault.left_overs(
            path
            for path in left_overs(place.home, place.temporary, reference)
            # What was somebody's own, or may be of use, is moved aside and never deleted.
            if Path(path).name != "notes.txt" and not re.search(r"\.(before|damaged)-", path)
        )


def check_refusal(place: World, template: Path, damaged: str, text: str, fault: Attempt) -> None:
    """A refusal says what to do, and nothing that was good is overwritten."""
    if not any(word in text.lower() for word in ADVICE):
        fault.silent(f"nobody says what to do: {text[-600:]}")
    for copy in ("work/warehouse.duckdb", "current/warehouse.duckdb"):
        is_linked = damaged == "warehouse.duckdb" and copy.startswith("current")
        if damaged.split("/")[0] == copy.split("/")[0] or is_linked:
            continue
        try:
            is_good = warehouse_content(place.home / copy) == warehouse_content(template / copy)
        except duckdb.Error:
            is_good = False
        if not is_good:
            fault.loss(f"the good {copy} is overwritten")


def put_back(good: Path, path: Path) -> None:
    remove(path)
    path.parent.mkdir(exist_ok=True)
    if not good.exists() and not good.is_symlink():
        return
    if good.is_dir() and not good.is_symlink():
        shutil.copytree(good, path, symlinks=True)
    else:
        shutil.copy2(good, path, follow_symlinks=False)
