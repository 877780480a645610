"""The worker's code version changes with what the worker does, and with nothing else."""

import shutil

import pytest

from modal_forecast.code_version import PACKAGE, code_version


@pytest.fixture
def copy(tmp_path):
    return shutil.copytree(PACKAGE, tmp_path / "modal_forecast")


def edit(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def test_a_copy_has_the_same_version(copy):
    assert code_version(copy) == code_version()


def test_comments_and_docstrings_do_not_count(copy):
    edit(copy / "metrics.py", '"""Mean absolute error', '"""The mean absolute error')
    edit(copy / "series.py", "# ", "# Another remark: ")
    with (copy / "requirements.lock").open("a") as file:
        file.write("    # via something else\n")
    assert code_version(copy) == code_version()


@pytest.mark.parametrize("file", ["__main__.py", "csv_files.py", "report/document.py"])
def test_what_a_worker_does_not_run_does_not_count(copy, file):
    with (copy / file).open("a") as source:
        source.write("\nSEED = 2\n")
    assert code_version(copy) == code_version()


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("metrics.py", "SHORTEST_SEASONS = 0.25", "SHORTEST_SEASONS = 0.5"),
        ("candidates/naive.py", "YEARS_BACK = (1.0, 0.6)", "YEARS_BACK = (1.0, 0.5)"),
        ("requirements.lock", "numpy==", "numpy==1"),
    ],
)
def test_a_change_of_code_or_of_a_locked_library_counts(copy, file, old, new):
    edit(copy / file, old, new)
    assert code_version(copy) != code_version()
