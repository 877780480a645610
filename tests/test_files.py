"""What a killed process leaves behind is removed by the next run, and nothing else."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
import pytest

from serverless_assets.files import (
    copy_atomically,
    copy_file,
    move_aside,
    remove_leftovers,
    scratch_folder,
    write_atomically,
)
from serverless_assets.publishing.local import LocalPublisher

IN_SCRATCH = """
import sys
from pathlib import Path
from serverless_assets.files import scratch_folder
with scratch_folder(Path(sys.argv[1]), "ingestion") as folder:
    (folder / "orders.parquet").write_bytes(b"half a download")
    print(folder, flush=True)
    sys.stdin.read()
"""
IN_A_COPY = """
import sys
from pathlib import Path
from serverless_assets import files
with files._replacing(Path(sys.argv[1]) / "work" / "warehouse.duckdb") as temporary:
    temporary.write_bytes(b"half a warehouse")
    print(temporary, flush=True)
    sys.stdin.read()
"""


@contextmanager
def at_work(script: str, home: Path) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """A process in the middle of `script`, and the temporary path that it writes to."""
    command = [sys.executable, "-c", script, str(home)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        try:
            yield process, Path(process.stdout.readline().strip())
        finally:
            process.kill()


@pytest.mark.parametrize("script", [IN_SCRATCH, IN_A_COPY], ids=["a scratch folder", "a copy"])
def test_what_a_killed_process_left_is_removed_and_what_a_live_one_writes_is_kept(tmp_path, script):
    with at_work(script, tmp_path) as (process, path):
        assert path.exists()
        remove_leftovers(tmp_path)
        assert path.exists()
        process.kill()
        process.wait()
        assert path.exists()
        remove_leftovers(tmp_path)
        assert not path.exists()


def test_a_run_removes_what_a_killed_process_left(tmp_path):
    with at_work(IN_SCRATCH, tmp_path) as (process, left):
        process.kill()
        process.wait()
    release = LocalPublisher(home=tmp_path, dbt_schema="dwh")
    release.begin("run", ["orders"], ["orders"], log=dg.get_dagster_logger())
    release.close()
    assert not left.exists()


def test_a_link_that_a_killed_publish_did_not_rename_is_removed(tmp_path):
    (tmp_path / ".current.abcd1234").symlink_to("releases/1")
    remove_leftovers(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_files_of_other_names_are_kept(tmp_path):
    names = [".gitignore", ".DS_Store", "work/.keep", "work/artifacts/notes.txt", "scratch/mine.txt"]
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("mine")
    (tmp_path / "scratch" / "Mine").mkdir()
    remove_leftovers(tmp_path)
    assert all((tmp_path / name).read_text() == "mine" for name in names)
    assert (tmp_path / "scratch" / "Mine").is_dir()


def test_a_scratch_folder_is_gone_at_the_end_whatever_happens(tmp_path):
    with pytest.raises(KeyboardInterrupt), scratch_folder(tmp_path, "plan") as folder:
        (folder / "a.parquet").write_bytes(b"a")
        raise KeyboardInterrupt
    assert not folder.exists()


def test_two_scratch_folders_of_one_purpose_do_not_meet(tmp_path):
    with scratch_folder(tmp_path, "plan") as one, scratch_folder(tmp_path, "plan") as other:
        assert one != other
        assert {one, other} == set((tmp_path / "scratch").iterdir())


def test_a_write_leaves_no_descriptor_open(tmp_path):
    before = len(os.listdir("/dev/fd"))
    for number in range(20):
        write_atomically(tmp_path / "a", str(number).encode())
        copy_atomically(tmp_path / "a", tmp_path / "b")
    assert len(os.listdir("/dev/fd")) == before
    assert (tmp_path / "b").read_text() == "19"


def test_a_folder_in_the_place_of_a_file_is_moved_aside_and_not_deleted(tmp_path):
    (tmp_path / "latest.json").mkdir()
    (tmp_path / "latest.json" / "mine.txt").write_text("mine")
    write_atomically(tmp_path / "latest.json", b"{}")
    assert (tmp_path / "latest.json").read_bytes() == b"{}"
    (aside,) = tmp_path.glob("latest.json.before-*")
    assert (aside / "mine.txt").read_text() == "mine"


def test_to_move_aside_what_is_not_there_does_nothing(tmp_path):
    assert move_aside(tmp_path / "nothing") is None
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_closes_leaves_no_scratch_folder_of_a_step_that_was_never_closed(tmp_path):
    def step() -> Iterator[Path]:
        with scratch_folder(tmp_path, "ingestion") as folder:
            (folder / "raw_orders.parquet").touch()
            yield folder

    cancelled = step()
    folder = next(cancelled)
    LocalPublisher(tmp_path, "dwh").close()
    assert not folder.exists()
    cancelled.close()


def test_a_copy_of_a_file_keeps_its_content_when_the_file_is_written_to(tmp_path):
    # Where the file system has reflinks they share their blocks: that is a matter of the file system.
    source, copy = tmp_path / "source", tmp_path / "copy"
    source.write_bytes(b"first")
    copy.write_bytes(b"something longer that was there before")
    copy_file(source, copy)
    source.write_bytes(b"second")
    assert copy.read_bytes() == b"first"
