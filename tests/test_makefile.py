"""`make` before there is an environment: which Python it takes."""

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from serverless_assets.project_root import PROJECT_ROOT

# An interpreter that says that it is of another version: the last word is the program after `-c`.
OTHER_PYTHON = """\
#!/bin/sh
exec {python} -c 'import sys; sys.version_info = {version}; exec(sys.argv[2])' "$@"
"""


@pytest.fixture
def makefile() -> Path:
    return PROJECT_ROOT / "Makefile"


@pytest.fixture
def project(tmp_path: Path, makefile: Path) -> Path:
    """A folder that was never set up; to set it up fails at once, as there is nothing to install."""
    (tmp_path / "Makefile").write_bytes(makefile.read_bytes())
    for name in ("requirements-uv.lock", "requirements.lock", "pyproject.toml"):
        (tmp_path / name).touch()
    return tmp_path


def make(project: Path, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environ = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    return subprocess.run(
        ["make", *words], cwd=project, env={**environ, **variables}, capture_output=True, text=True
    )


def python_of(version: tuple[int, int, int], folder: Path, name: str = "python3") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text(OTHER_PYTHON.format(python=sys.executable, version=version))
    path.chmod(0o755)
    return path


@pytest.mark.parametrize(
    "makefile",
    [PROJECT_ROOT / "Makefile", PROJECT_ROOT / "project_template" / "Makefile"],
    ids=["clone", "own"],
)
@pytest.mark.parametrize("version", [(2, 7, 18), (3, 9, 18), (3, 10, 13), (3, 13, 0), (3, 14, 0)])
def test_another_python_is_refused_before_anything_is_installed(project, tmp_path, version):
    python_of(version, tmp_path / "bin")
    refused = make(project, "run", PATH=f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    assert refused.returncode != 0
    assert refused.stdout == ""
    sentence = (
        "This needs Python 3.11 or 3.12, and python3 is Python {}.{}.{}: "
        "choose one that you have: make run PYTHON=python3.11"
    )
    assert sentence.format(*version) in refused.stderr
    assert not (project / ".venv").exists()


def test_a_python_that_is_not_there_is_refused(project):
    refused = make(project, "test", "PYTHON=python3.99")
    assert "python3.99 is not there: choose one that you have: make test PYTHON=" in refused.stderr


def test_an_environment_of_another_python_is_refused(project):
    python_of((3, 9, 18), project / ".venv" / "bin", "python")
    refused = make(project, "run", f"PYTHON={sys.executable}")
    assert ".venv/bin/python is Python 3.9.18: delete .venv, then try again." in refused.stderr


@pytest.mark.parametrize("version", [(3, 11, 0), (3, 12, 9)])
def test_the_pythons_that_the_package_takes_are_taken(project, tmp_path, version):
    taken = make(project, "-n", "run", f"PYTHON={python_of(version, tmp_path / 'bin')}")
    assert taken.returncode == 0
    # The recipe's first line, as make would run it.
    check = taken.stdout.partition("done\n")[0] + "done\n"
    assert subprocess.run(["sh", "-c", check], cwd=project).returncode == 0


def test_the_versions_are_those_of_the_package():
    project = tomllib.loads((PROJECT_ROOT / "pyproject.toml").read_text())["project"]
    assert project["requires-python"] == ">=3.11,<3.13"
