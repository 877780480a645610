"""Every kind of damage to what runs publish and write to is healed by the next run, or refused."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import dagster as dg
import duckdb
import pytest

from serverless_assets.publishing.layout import HomeError, Layout
from serverless_assets.publishing.local import LocalPublisher
from serverless_assets.publishing.outcome import AssetOutcome
from serverless_assets.warehouse.duckdb_file import verify
from tests.publishing.damage import NOISE, copied, dangling, empty, file, folder, half, noise, remove

LOG = dg.get_dagster_logger()
RECORD = "forecast-record-1.parquet"
OTHER = "databases/other.duckdb"


def run(home: Path, number: int) -> None:
    """What a run does: it writes its number to the warehouse and to a report, unless they have it."""
    release = LocalPublisher(home=home, dbt_schema="main")
    try:
        release.begin(f"run-{number}", ["numbers"], ["numbers"], LOG)
        release.warehouse.prepare_schemas([("other", "main")])
        for path in (release.warehouse.path, release.layout.work / OTHER):
            with duckdb.connect(str(path)) as connection:
                connection.execute("create table if not exists numbers (n integer)")
                if connection.execute("select n from numbers").fetchall() != [(number,)]:
                    connection.execute(f"create or replace table numbers as select {number} as n")
        if release.artifacts.read("forecast.html") != str(number).encode():
            release.artifacts.write("forecast.html", str(number).encode())
        assert release.end(f"run-{number}", [AssetOutcome("numbers", "built", "")], LOG)
    finally:
        release.close()


@pytest.fixture(scope="module")
def two_releases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with two releases, of which the first had a record of a forecast."""
    home = tmp_path_factory.mktemp("two-releases") / "home"
    release = LocalPublisher(home=home, dbt_schema="main")
    release.open("run-0", LOG)
    release.artifacts.write(RECORD, b"a record")
    release.close()
    run(home, 1)
    run(home, 2)
    return home


@pytest.fixture
def layout(two_releases: Path, tmp_path: Path) -> Layout:
    """A copy of it to damage."""
    return Layout(shutil.copytree(two_releases, tmp_path / "home", symlinks=True))


def number_in(path: Path) -> int:
    with duckdb.connect(str(path), read_only=True) as connection:
        return int(connection.execute("select n from numbers").fetchall()[0][0])


HEALED: list[tuple[str, Callable[[Path], None]]] = [
    ("warehouse.duckdb", remove),
    ("warehouse.duckdb", dangling),
    ("warehouse.duckdb", folder),
    ("artifacts", remove),
    ("artifacts", dangling),
    ("artifacts", file),
    ("artifacts", folder),
    ("artifacts", copied),
    ("current", remove),
    ("current", dangling),
    ("current", folder),
    ("current", file),
    ("current", copied),
    ("current/warehouse.duckdb", remove),
    (f"current/{OTHER}", remove),
    ("current/artifacts", remove),
    ("current/artifacts/forecast.html", noise),
    ("current/artifacts/forecast.html", remove),
    (f"current/artifacts/{RECORD}", remove),
    ("current/release.json", noise),
    ("current/release.json", remove),
    ("releases", remove),
    ("releases", file),
    ("work", remove),
    ("work", file),
    ("work/warehouse.duckdb", remove),
    ("work/warehouse.duckdb", noise),
    ("work/warehouse.duckdb", empty),
    ("work/warehouse.duckdb", half),
    ("work/warehouse.duckdb", folder),
    ("work/warehouse.duckdb.wal", noise),
    (f"work/{OTHER}", remove),
    (f"work/{OTHER}", noise),
    (f"work/{OTHER}.wal", noise),
    ("work/databases", remove),
    ("work/databases", file),
    ("work/artifacts", remove),
    ("work/artifacts", file),
    (f"work/artifacts/{RECORD}", remove),
    (f"work/artifacts/{RECORD}", noise),
    (f"work/artifacts/{RECORD}", folder),
    ("work/base.json", remove),
    ("work/base.json", noise),
    ("work/base.json", lambda path: path.write_text("[]")),
    ("work/base.json", folder),
    ("work/unsettled.json", remove),
    ("work/unsettled.json", noise),
    ("work/unsettled.json", lambda path: path.write_text('{"orders": 1}')),
    ("work/unsettled.json", folder),
]


@pytest.mark.parametrize(("damaged", "damage"), HEALED)
def test_damage_that_can_be_healed_is_healed_by_the_next_run(layout, damaged, damage):
    damage(layout.home / damaged)
    run(layout.home, 2)
    warehouse, artifacts = layout.published()
    assert number_in(warehouse) == number_in(layout.warehouse) == number_in(layout.current / OTHER) == 2
    assert (layout.artifacts / "forecast.html").read_text() == "2"
    assert (layout.artifacts / RECORD).read_bytes() == b"a record"
    assert artifacts == layout.artifacts.resolve()
    before = layout.release
    run(layout.home, 2)
    assert layout.release == before


@pytest.mark.parametrize("damage", [noise, empty, half])
@pytest.mark.parametrize("by_hand", [True, False], ids=["in its place", "through the link"])
def test_a_published_file_that_is_no_database_is_refused_and_not_adopted(layout, damage, by_hand):
    if by_hand:
        content = layout.warehouse.read_bytes()
        layout.warehouse.unlink()
        layout.warehouse.write_bytes(content)
    damage(layout.warehouse)
    path = layout.warehouse.resolve()
    with pytest.raises(HomeError) as refused:
        run(layout.home, 3)
    assert str(refused.value).startswith(f"{path} cannot be read as a DuckDB database (")
    assert "Put a good copy of it in its place, or delete it" in str(refused.value)
    for ask in (LocalPublisher(layout.home, "dwh").look_ahead, LocalPublisher(layout.home, "dwh").check):
        # `plan` and `why`, and `doctor`. They do not copy the file, whose name is in DuckDB's own message.
        with pytest.raises(HomeError, match="cannot be read as a DuckDB database") as refused_again:
            ask()
        assert str(refused_again.value).partition("). ")[2] == str(refused.value).partition("). ")[2]
    assert number_in(layout.working_warehouse) == 2
    # What the sentence says is what helps.
    path.unlink()
    run(layout.home, 3)
    assert number_in(layout.warehouse) == 3
    assert (layout.artifacts / RECORD).exists()


def test_a_block_that_is_damaged_within_the_published_file_is_refused(layout):
    with duckdb.connect(str(layout.warehouse)) as connection:
        connection.execute("create table large as select range as n, hash(range) as h from range(200000)")
    with layout.warehouse.open("r+b") as opened:
        opened.seek(layout.warehouse.stat().st_size // 2)
        opened.write(NOISE)
    with pytest.raises(HomeError, match="cannot be read as a DuckDB database"):
        run(layout.home, 3)
    assert number_in(layout.working_warehouse) == 2


def test_what_somebody_put_in_the_place_of_a_link_is_moved_aside_and_not_deleted(layout):
    file(layout.current)
    folder(layout.artifacts)
    (layout.artifacts / "mine.txt").write_text("mine")
    run(layout.home, 2)
    (current,) = layout.home.glob("current.before-*")
    (artifacts,) = layout.home.glob("artifacts.before-*")
    assert current.read_bytes() == NOISE
    assert (artifacts / "mine.txt").read_text() == "mine"


def test_an_earlier_release_that_somebody_made_current_is_gone_on_from(layout):
    (earlier,) = (path for path in layout.releases.iterdir() if path != layout.release)
    layout.current.unlink()
    layout.current.symlink_to(f"releases/{earlier.name}")
    release = LocalPublisher(home=layout.home, dbt_schema="main")
    release.open("run", LOG)
    release.close()
    assert number_in(layout.working_warehouse) == 1


def test_a_first_publish_that_was_killed_before_its_links_is_completed_though_nothing_changed(layout):
    for path in (layout.warehouse, layout.artifacts):
        path.unlink()
    before = layout.release
    run(layout.home, 2)
    assert layout.release == before
    assert (number_in(layout.warehouse), (layout.artifacts / "forecast.html").read_text()) == (2, "2")


def test_the_work_of_a_failed_run_on_a_restored_backup_is_gone_on_from(layout):
    backup = layout.home / "backup.duckdb"
    shutil.copyfile(layout.warehouse, backup)
    os.replace(backup, layout.warehouse)
    release = LocalPublisher(home=layout.home, dbt_schema="main")
    release.begin("failed", ["numbers"], ["numbers"], LOG)
    with duckdb.connect(str(release.warehouse.path)) as connection:
        connection.execute("create or replace table numbers as select 7 as n")
    release.end("failed", [AssetOutcome("numbers", "failed", "")], LOG)
    release.close()
    release.begin("next", ["numbers"], ["numbers"], LOG)
    release.close()
    assert number_in(layout.working_warehouse) == 7


def test_a_release_names_the_one_before_it(layout):
    (earlier,) = (path for path in layout.releases.iterdir() if path != layout.release)
    assert json.loads((layout.current / "release.json").read_text())["previous"] == earlier.name


def test_a_schema_with_the_name_of_the_database_is_no_damage(tmp_path):
    path = tmp_path / "warehouse.duckdb"
    with duckdb.connect(str(path)) as connection:
        connection.execute(
            "create schema warehouse; create table warehouse.warehouse.orders as select 1 as id"
        )
    assert verify(path) is None
