import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
import duckdb
import pytest

from serverless_assets.files import share_atomically
from serverless_assets.publishing.layout import Layout
from serverless_assets.publishing.local import LocalPublisher
from serverless_assets.publishing.local_releases import publish
from serverless_assets.publishing.outcome import SKIPPED_AS_ASKED, AssetOutcome, PendingAssets
from serverless_assets.publishing.working_copy import open_working_copy
from serverless_assets.warehouse import WarehouseError

LOG = dg.get_dagster_logger()
# The assets of the definitions.
ASSETS = {"orders", "customers", "order_forecast"}
READER = """
import duckdb, sys
connection = duckdb.connect(sys.argv[1], read_only=True)
print(connection.sql("select n from numbers").fetchall()[0][0], flush=True)
for _ in sys.stdin:
    print(connection.sql("select n from numbers").fetchall()[0][0], flush=True)
"""


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    found = Layout(tmp_path / "home")
    found.work.mkdir(parents=True)
    return found


def work(layout: Layout, number: int) -> None:
    """What a run does: it writes `number` to the working copy, and a report."""
    with duckdb.connect(str(layout.working_warehouse)) as connection:
        connection.execute(f"create or replace table numbers as select {number} as n")
    layout.working_artifacts.mkdir(exist_ok=True)
    (layout.working_artifacts / "forecast.html").write_text(f"<p>{number}</p>")


def number_in(path: Path) -> int:
    with duckdb.connect(str(path), read_only=True) as connection:
        return connection.sql("select n from numbers").fetchall()[0][0]


def releases(layout: Layout) -> list[Path]:
    return sorted(layout.releases.iterdir())


# ---- publishing


def test_what_was_worked_on_can_be_read_once_published(layout):
    work(layout, 1)
    assert not layout.warehouse.exists()
    assert publish(layout, "run-1")
    assert number_in(layout.warehouse) == 1
    assert (layout.artifacts / "forecast.html").read_text() == "<p>1</p>"


def test_what_is_published_can_be_read_by_anybody(layout):
    work(layout, 1)
    publish(layout, "run-1")
    for path in (layout.warehouse, layout.artifacts / "forecast.html"):
        assert path.stat().st_mode & 0o777 == 0o644


def test_work_after_a_publish_is_not_seen_until_the_next(layout):
    work(layout, 1)
    publish(layout, "run-1")
    work(layout, 2)
    assert number_in(layout.warehouse) == 1
    assert (layout.artifacts / "forecast.html").read_text() == "<p>1</p>"
    assert publish(layout, "run-2")
    assert number_in(layout.warehouse) == 2
    assert (layout.artifacts / "forecast.html").read_text() == "<p>2</p>"


def test_nothing_changed_is_nothing_published(layout):
    work(layout, 1)
    publish(layout, "run-1")
    before = layout.current.readlink()
    assert publish(layout, "run-2") is False
    assert layout.current.readlink() == before
    assert len(releases(layout)) == 1


def test_what_a_source_says_of_the_same_rows_is_not_published_and_not_lost(layout):
    def keep(state: dict[str, object]) -> None:
        with duckdb.connect(str(layout.working_warehouse)) as connection:
            connection.execute(f"comment on table numbers is '{json.dumps(state)}'")

    work(layout, 1)
    keep({"version": "1", "validators": {"whole": {"etag": "a"}}})
    publish(layout, "run-1")
    before = layout.current.readlink()
    keep({"version": "1", "validators": {"whole": {"etag": "b"}}})
    assert publish(layout, "run-2") is False
    assert layout.current.readlink() == before
    assert open_working_copy(layout) is None
    with duckdb.connect(str(layout.working_warehouse), read_only=True) as connection:
        assert '"b"' in connection.sql("select comment from duckdb_tables()").fetchall()[0][0]
    keep({"version": "2", "validators": {"whole": {"etag": "b"}}})
    assert publish(layout, "run-3")


def test_a_changed_artifact_alone_is_published(layout):
    work(layout, 1)
    publish(layout, "run-1")
    (layout.working_artifacts / "forecast.html").write_text("<p>another colour</p>")
    assert publish(layout, "run-2")
    assert (layout.artifacts / "forecast.html").read_text() == "<p>another colour</p>"


def test_as_many_releases_are_kept_as_are_asked_for_the_latest_and_those_before(layout):
    for number in range(1, 6):
        work(layout, number)
        publish(layout, f"run-{number}", keep=2)
    assert [number_in(release / "warehouse.duckdb") for release in releases(layout)] == [4, 5]
    assert layout.current.resolve() == releases(layout)[-1]


@pytest.mark.parametrize("way", ["link", "folder/../home"])
def test_the_releases_of_a_home_behind_a_link_or_dots_are_kept(layout, tmp_path, way):
    (tmp_path / "link").symlink_to(layout.home)
    (tmp_path / "folder").mkdir()
    behind = Layout(tmp_path / way)
    for number in (1, 2, 3):
        work(behind, number)
        publish(behind, f"run-{number}", keep=2)
    assert number_in(behind.warehouse) == 3 and len(releases(behind)) == 2


def test_the_current_release_is_kept_even_if_the_clock_went_back(layout):
    work(layout, 1)
    publish(layout, "run-1")
    for name in ("29990101T000000.000000Z-later", "29990102T000000.000000Z-later"):
        shutil.copytree(releases(layout)[0], layout.releases / name)
    work(layout, 2)
    publish(layout, "run-2")
    assert number_in(layout.warehouse) == 2
    assert len(releases(layout)) == 2


def test_a_strangers_file_among_the_releases_does_not_stop_a_publish(layout):
    layout.releases.mkdir()
    # What a Mac's Finder leaves in every folder that it shows.
    (layout.releases / ".DS_Store").write_bytes(b"\0")
    work(layout, 1)
    assert publish(layout, "run-1")
    assert number_in(layout.warehouse) == 1


def test_leftovers_of_a_killed_publish_are_removed_by_the_next(layout):
    killed = layout.releases / ".20260101T000000.000000Z-killed"
    (killed / "artifacts").mkdir(parents=True)
    (killed / "warehouse.duckdb").write_bytes(b"half a ware")
    work(layout, 1)
    publish(layout, "run-1")
    assert not killed.exists()
    assert number_in(layout.warehouse) == 1


def test_leftovers_of_a_killed_write_are_not_published(layout):
    work(layout, 1)
    (layout.working_artifacts / ".forecast.html.x7k2").write_text("<p>ha")
    publish(layout, "run-1")
    assert [path.name for path in layout.artifacts.iterdir()] == ["forecast.html"]


def test_rows_that_a_killed_run_left_in_the_log_are_published(layout):
    work(layout, 1)
    committed = (
        "import duckdb, os, sys; connection = duckdb.connect(sys.argv[1]);"
        "connection.execute('insert into numbers values (7)'); os._exit(9)"
    )
    subprocess.run([sys.executable, "-c", committed, str(layout.working_warehouse)], check=False)
    assert layout.working_warehouse.with_suffix(".duckdb.wal").exists()
    assert publish(layout, "run-1")
    with duckdb.connect(str(layout.warehouse), read_only=True) as connection:
        assert connection.sql("select sum(n) from numbers").fetchall() == [(8,)]
    assert publish(layout, "run-2") is False


def record_a_forecast(layout: Layout, content: str = "a forecast") -> None:
    layout.working_artifacts.mkdir(exist_ok=True)
    (layout.working_artifacts / "record.parquet").write_text(content)


def inodes(layout: Layout, name: str) -> list[int]:
    return [(release / "artifacts" / name).stat().st_ino for release in releases(layout)]


def test_a_file_that_did_not_change_takes_no_room_in_the_next_release(layout):
    record_a_forecast(layout)
    for number in (1, 2):
        work(layout, number)
        publish(layout, f"run-{number}")
    assert len(set(inodes(layout, "record.parquet"))) == 1
    assert len(set(inodes(layout, "forecast.html"))) == 2


def test_a_later_write_to_the_working_copy_changes_no_release_not_even_in_place(layout):
    record_a_forecast(layout)
    for number in (1, 2):
        work(layout, number)
        publish(layout, f"run-{number}")
    record_a_forecast(layout, "another")
    held = [(release / "artifacts" / "record.parquet").read_text() for release in releases(layout)]
    assert held == ["a forecast", "a forecast"]
    publish(layout, "run-3")
    held = [(release / "artifacts" / "record.parquet").read_text() for release in releases(layout)]
    assert held == ["a forecast", "a forecast", "another"]


def test_a_published_file_that_somebody_wrote_to_is_not_taken_over(layout):
    record_a_forecast(layout)
    work(layout, 1)
    publish(layout, "run-1")
    (layout.artifacts / "record.parquet").write_text("by hand, and longer")
    work(layout, 2)
    publish(layout, "run-2")
    assert (layout.artifacts / "record.parquet").read_text() == "a forecast"


def test_a_file_is_copied_where_the_file_system_has_no_hard_links(layout, monkeypatch):
    def refuse(*_: object) -> None:
        raise OSError("not supported")

    monkeypatch.setattr("serverless_assets.files.os.link", refuse)
    record_a_forecast(layout)
    for number in (1, 2):
        work(layout, number)
        publish(layout, f"run-{number}")
    assert len(set(inodes(layout, "record.parquet"))) == 2
    assert (layout.artifacts / "record.parquet").read_text() == "a forecast"


def test_to_share_a_file_with_itself_leaves_it_and_nothing_else(tmp_path):
    file = tmp_path / "a"
    file.write_text("a")
    share_atomically(file, file)
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_artifacts_alone_can_be_published(layout):
    layout.working_artifacts.mkdir()
    (layout.working_artifacts / "note.txt").write_text("hello")
    assert publish(layout, "run-1")
    assert (layout.artifacts / "note.txt").read_text() == "hello"
    assert not layout.warehouse.exists()


def test_somebodys_own_artifacts_folder_is_moved_aside_and_not_deleted(layout):
    layout.artifacts.mkdir()
    (layout.artifacts / "mine.txt").write_text("mine")
    work(layout, 1)
    publish(layout, "run-1")
    assert (layout.artifacts / "forecast.html").exists()
    (aside,) = layout.home.glob("artifacts.before-*")
    assert (aside / "mine.txt").read_text() == "mine"


def test_a_home_that_was_moved_still_reads(layout, tmp_path):
    work(layout, 1)
    publish(layout, "run-1")
    moved = Layout(layout.home.rename(tmp_path / "elsewhere"))
    assert number_in(moved.warehouse) == 1
    assert publish(moved, "run-2") is False


# ---- readers


@contextmanager
def reader(path: Path) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", READER, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def says(process: subprocess.Popen[str]) -> str:
    assert process.stdout
    return process.stdout.readline().strip()


def asked_again(process: subprocess.Popen[str]) -> str:
    assert process.stdin
    process.stdin.write("\n")
    process.stdin.flush()
    return says(process)


def test_a_reader_neither_blocks_publishing_nor_loses_what_it_reads(layout):
    work(layout, 1)
    publish(layout, "run-1")
    with reader(layout.warehouse) as held:
        assert says(held) == "1"
        # After three more releases, the one that is held open is no longer kept.
        for number in (2, 3, 4):
            work(layout, number)
            assert publish(layout, f"run-{number}")
        assert number_in(layout.warehouse) == 4
        assert asked_again(held) == "1"


def test_what_is_published_is_read_while_a_run_and_other_readers_hold_their_files(release, published):
    work(published, 2)
    write = "import duckdb, sys; c = duckdb.connect(sys.argv[1]); print('1', flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", write, str(published.working_warehouse)]
    with (
        reader(published.warehouse) as held,
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as writer,
    ):
        assert says(held) == says(writer) == "1"
        found = release.published
        assert found.warehouse.query("select n from main.numbers")["n"].to_pylist() == [1]
        assert found.artifacts.read("forecast.html") == b"<p>1</p>"
        with pytest.raises(WarehouseError, match="read-only"):
            found.warehouse.write_states({})
        writer.kill()


def test_before_the_first_release_nothing_is_published_and_to_ask_makes_nothing(release, layout):
    found = release.published
    assert found.warehouse.tables() == set()
    assert found.warehouse.read_states() == {}
    assert found.artifacts.names("") == []
    assert not layout.warehouse.exists()


# ---- the copy to go on from


@pytest.fixture
def published(layout: Layout) -> Layout:
    work(layout, 1)
    publish(layout, "run-1")
    return layout


def replaced_by_hand(layout: Layout, number: int) -> None:
    backup = layout.home / "backup.duckdb"
    with duckdb.connect(str(backup)) as connection:
        connection.execute(f"create table numbers as select {number} as n")
    os.replace(backup, layout.warehouse)


def test_there_is_nothing_to_adopt_in_a_new_home(layout):
    assert open_working_copy(layout) is None


def test_the_working_copy_of_the_last_release_is_gone_on_from(published):
    assert open_working_copy(published) is None


def test_unpublished_work_is_gone_on_from(published):
    work(published, 2)
    PendingAssets(published.home).replace(["orders"])
    assert open_working_copy(published) is None
    assert number_in(published.working_warehouse) == 2
    assert PendingAssets(published.home).read() == {"orders"}


def test_a_missing_working_copy_is_made_from_what_is_published(published):
    shutil.rmtree(published.work)
    assert open_working_copy(published)
    assert number_in(published.working_warehouse) == 1
    assert (published.working_artifacts / "forecast.html").read_text() == "<p>1</p>"


def test_a_file_put_in_the_published_ones_place_is_gone_on_from(published):
    work(published, 2)
    PendingAssets(published.home).replace(["orders"])
    replaced_by_hand(published, 42)
    assert open_working_copy(published)
    assert number_in(published.working_warehouse) == 42
    assert PendingAssets(published.home).read() == set()


def test_a_file_put_in_the_published_ones_place_drops_the_log_of_the_copy_before(published):
    wal = published.working_warehouse.with_suffix(".duckdb.wal")
    wal.write_bytes(b"of another file")
    replaced_by_hand(published, 42)
    open_working_copy(published)
    assert not wal.exists()


def test_after_an_adoption_publishing_makes_it_a_release_like_any_other(published):
    replaced_by_hand(published, 42)
    open_working_copy(published)
    assert publish(published, "run-2")
    assert published.warehouse.is_symlink()
    assert number_in(published.warehouse) == 42
    assert open_working_copy(published) is None
    assert publish(published, "run-3") is False


# ---- unsettled assets


def test_unsettled_assets_survive_the_process_that_noted_them(layout):
    PendingAssets(layout.home).replace(["orders", "customers"])
    assert PendingAssets(layout.home).read() == {"customers", "orders"}


@pytest.fixture
def release(layout: Layout) -> Iterator[LocalPublisher]:
    found = LocalPublisher(home=layout.home, dbt_schema="dwh")
    yield found
    found.close()


def outcome(asset: str, status: str = "built", reason: str = "") -> AssetOutcome:
    return AssetOutcome(asset, status, reason)


def test_a_green_run_is_published(release, layout):
    release.begin("run", ["orders"], ASSETS, log=LOG)
    work(layout, 1)
    assert release.end("run-1", [outcome("orders")], LOG)
    assert number_in(layout.warehouse) == 1


@pytest.mark.parametrize("status", ["failed", "skipped"])
def test_a_run_that_is_not_green_keeps_its_work_and_what_was_published(release, published, status):
    release.begin("run", ["orders", "customers"], ASSETS, log=LOG)
    work(published, 2)
    assert not release.end("run-2", [outcome("orders", status), outcome("customers")], LOG)
    assert number_in(published.warehouse) == 1
    assert number_in(published.working_warehouse) == 2
    assert PendingAssets(published.home).read() == {"orders"}


def test_what_a_person_asked_to_skip_does_not_block(release, layout):
    release.begin("run", ["orders", "order_forecast"], ASSETS, log=LOG)
    work(layout, 1)
    asked = outcome("order_forecast", "skipped", SKIPPED_AS_ASKED)
    assert release.end("run-1", [outcome("orders"), asked], LOG)


def killed_run(published: Layout, assets: list[str]) -> None:
    """A run that writes and is gone before its end."""
    release = LocalPublisher(home=published.home, dbt_schema="dwh")
    release.begin("run", assets, ASSETS, log=LOG)
    work(published, 2)
    release.close()


def test_what_a_killed_run_left_is_not_published_by_a_run_of_something_else(release, published):
    killed_run(published, ["orders"])
    release.begin("run", ["customers"], ASSETS, log=LOG)
    assert not release.end("run-3", [outcome("customers")], LOG)
    assert number_in(published.warehouse) == 1


def test_a_green_run_of_what_a_killed_run_left_publishes(release, published):
    killed_run(published, ["orders"])
    release.begin("run", ["orders"], ASSETS, log=LOG)
    assert release.end("run-3", [outcome("orders")], LOG)
    assert number_in(published.warehouse) == 2


def test_an_asset_that_no_longer_exists_does_not_block_any_run(release, published):
    killed_run(published, ["removed_since"])
    release.begin("run", ["orders"], ASSETS, log=LOG)
    assert release.end("run-3", [outcome("orders")], LOG)
    assert PendingAssets(published.home).read() == set()
