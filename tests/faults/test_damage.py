"""Damage to the home directory: the next run heals it, or is refused with a sentence that says what to do."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import duckdb
import pytest

from tests.faults.tally import Attempt, Tally
from tests.faults.world import EndState, World, end_state, left_overs, warehouse_content
from tests.publishing.damage import dangling, empty, file, folder, half, noise, remove

KIND = "damage to the home directory"
# A sentence that helps names something to do.
ADVICE = ("move", "delete", "remove", "restore", "replace", "run again", "make clean", "choose", "repair")


# What is damaged below the home, and how; tests/publishing/test_damage.py has what publishing alone keeps.
DAMAGES: dict[str, tuple[str, Callable[[Path], None]]] = {
    "published warehouse: random bytes in its place": ("warehouse.duckdb", file),
    "published warehouse: overwritten through the link": ("current/warehouse.duckdb", noise),
    "published warehouse: cut in half": ("current/warehouse.duckdb", half),
    "published warehouse: the link leads nowhere": ("warehouse.duckdb", dangling),
    "artifacts: the link is gone": ("artifacts", remove),
    "current: a folder": ("current", folder),
    "releases: gone": ("releases", remove),
    "release.json: empty": ("current/release.json", empty),
    "work: gone": ("work", remove),
    "working copy: random bytes": ("work/warehouse.duckdb", noise),
    "working copy: a log of random bytes": ("work/warehouse.duckdb.wal", noise),
    "unsettled.json: random bytes": ("work/unsettled.json", noise),
    "latest.json: random bytes": ("runs/latest.json", noise),
    "latest.json: a folder": ("runs/latest.json", folder),
    "dagster.yaml: random bytes": ("dagster/dagster.yaml", noise),
    "Dagster's history: random bytes": ("dagster/history/runs.db", noise),
    "Dagster's history: gone": ("dagster", remove),
    "dbt's folder: gone": ("dbt", remove),
    "dbt's manifest: random bytes": ("dbt/manifest.json", noise),
    "dbt's partial parse: random bytes": ("dbt/partial_parse.msgpack", noise),
}


@pytest.fixture(scope="session")
def ingested(place: World, template: Path) -> EndState:
    """The end of a run of the raw tables alone that finds no damage."""
    with place.a_week_later():
        place.put(template)
        code, output = place.run("ingest")
    assert code == 0, output
    return end_state(place.home)


@pytest.mark.parametrize("name", DAMAGES)
def test_damage_is_healed_or_refused_in_a_sentence(
    place: World, template: Path, request: pytest.FixtureRequest, attempt: Tally, name: str
) -> None:
    damaged, damage = DAMAGES[name]
    # A run of the raw tables alone, which publishes, too, costs a quarter of a run of everything.
    is_of_dbt = damaged.startswith("dbt")
    job = [] if is_of_dbt else ["ingest"]
    reference: EndState = (
        request.getfixturevalue("undisturbed")[0] if is_of_dbt else request.getfixturevalue("ingested")
    )
    with place.a_week_later(), attempt(name) as fault:
        place.put(template)
        damage(place.home / damaged)
        code, text = place.run(*job)
        if "Traceback" in text:
            fault.silent(f"a traceback: {text[-600:]}")
        if code:
            check_refusal(place, template, damaged, text, fault)
            # A person does what the sentence says: here, puts back what was damaged.
            put_back(template / damaged, place.home / damaged)
            code, text = place.run(*job)
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
