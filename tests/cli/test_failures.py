"""Commands that fail: one sentence, a file with the traceback, exit code 1."""

import errno
import os
import re
import sqlite3
from collections.abc import Callable
from pathlib import Path

import dagster as dg
import pytest
from click.testing import CliRunner, Result

from serverless_assets.cli.failures import Commands, keep_traceback
from serverless_assets.errors import UserError, error_sentence


@pytest.fixture
def home(tmp_path: Path, monkeypatch) -> Path:
    monkeypatch.setenv("SERVERLESS_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    return tmp_path / "home"


def command(work: Callable[[], object]) -> Result:
    """What a command prints and ends with that does this."""
    group = Commands("serverless")
    group.command("work")(lambda: work())
    return CliRunner().invoke(group, ["work"])


def fail(error: BaseException) -> Callable[[], None]:
    def work() -> None:
        raise error

    return work


def traceback_in(output: str) -> Path:
    found = re.search(r"^The full traceback is in (.*)\.$", output, re.MULTILINE)
    assert found, output
    return Path(found[1])


def test_an_unexpected_error_is_one_line_and_a_file_with_the_traceback(home):
    ended = command(fail(KeyError("stg_orders")))
    assert ended.exit_code == 1
    assert "Error: KeyError: 'stg_orders'\n" in ended.output
    file = traceback_in(ended.output)
    assert file.parent == home / "logs"
    assert "Traceback (most recent call last)" in file.read_text()
    assert "Traceback" not in ended.output


def test_an_error_that_a_user_can_cause_is_its_own_sentence_without_a_file(home):
    ended = command(fail(UserError("Unknown colour 'grun': expected a CSS colour.")))
    assert (ended.exit_code, ended.output) == (1, "Error: Unknown colour 'grun': expected a CSS colour.\n")
    assert not home.exists()


def test_a_failure_that_dagster_would_show_is_its_own_sentence(home):
    ended = command(fail(dg.Failure("There is no daily_revenue yet: run the transform job first.")))
    assert ended.output == "Error: There is no daily_revenue yet: run the transform job first.\n"


def test_where_the_home_cannot_be_written_the_traceback_is_in_the_temporary_folder(home, tmp_path):
    home.write_text("a file where a folder should be")
    ended = command(fail(KeyError("stg_orders")))
    assert traceback_in(ended.output).parent == tmp_path / "temporary" / "serverless-logs"


def test_a_home_that_cannot_be_used_is_named_in_one_sentence(home):
    home.write_text("a file where a folder should be")
    ended = command(lambda: (home / "work").mkdir())
    assert ended.output == (
        f"Error: SERVERLESS_HOME is {home}, and {home}/work cannot be used: Not a directory. Make room "
        "there, make it writable for this user, or choose another folder.\n"
    )


def test_where_nothing_can_be_written_the_traceback_is_printed(home, tmp_path):
    home.write_text("a file")
    (tmp_path / "temporary").write_text("a file, too")
    ended = command(fail(KeyError("stg_orders")))
    assert ended.exit_code == 1
    assert "could not be written to a file" in ended.output
    assert "Traceback (most recent call last)" in ended.output


def test_settings_that_cannot_be_read_hide_no_error(home, monkeypatch):
    monkeypatch.setenv("SERVERLESS_RUN_DEADLINE", "soon")
    assert "KeyError: 'stg_orders'" in command(fail(KeyError("stg_orders"))).output


def test_a_secret_is_neither_printed_nor_kept(home):
    ended = command(fail(ValueError("no answer from https://ann:hunter2@shop.test/data?token=s3cret")))
    text = ended.output + traceback_in(ended.output).read_text()
    assert "https://shop.test/data" in text
    assert "hunter2" not in text
    assert "s3cret" not in text


def test_two_errors_at_once_keep_two_files(home):
    assert keep_traceback("one", home) != keep_traceback("two", home)


def full_database(path: Path) -> None:
    """Write to a database that may not grow, as on a full disk."""
    with sqlite3.connect(path) as connection:
        connection.execute("pragma max_page_count = 2")
        connection.execute("create table t as select zeroblob(100000)")


def test_a_full_disk_under_a_database_is_said_as_such(tmp_path):
    with pytest.raises(sqlite3.OperationalError) as full:
        full_database(tmp_path / "runs.db")
    wrapped = RuntimeError("cannot record the event")
    wrapped.__cause__ = full.value
    assert error_sentence(wrapped).startswith("The disk that holds Dagster's history is full: free space")


@pytest.mark.parametrize(
    ("number", "sentence"),
    [
        (
            errno.ENOSPC,
            "The disk is full at /x/work: No space left on device. Free space there, then run again.",
        ),
        (errno.EROFS, "This user may not use the file or folder at /x/work: Read-only file system."),
        (errno.EACCES, "This user may not use the file or folder at /x/work: Permission denied."),
        (errno.EISDIR, "The file or folder at /x/work cannot be used: Is a directory."),
    ],
)
def test_what_the_machine_refuses_is_said_with_the_path_and_what_to_do(number, sentence):
    error = OSError(number, os.strerror(number), "/x/work")
    assert error_sentence(error).startswith(sentence)


def test_an_error_without_a_message_is_said_by_its_class():
    assert error_sentence(AssertionError()) == "AssertionError"


def test_an_io_error_of_the_history_names_the_disk():
    error = error_sentence(sqlite3.OperationalError("disk I/O error"))
    assert error.startswith("Dagster's history cannot be read or written: the disk is full or fails.")


def test_a_reader_that_has_what_it_wanted_is_no_error():
    result = command(fail(BrokenPipeError(errno.EPIPE, "Broken pipe")))
    assert (result.exit_code, result.output) == (1, "")
