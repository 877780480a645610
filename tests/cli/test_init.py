"""`serverless init`: a project without the sample shop, started and run as docs/your-own.md says."""

import json
import os
import re
import subprocess
import sys
from datetime import datetime, timedelta
from functools import partial
from http.server import SimpleHTTPRequestHandler
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from serverless_assets.cli.init import InitError, dependency_on, start_project
from serverless_assets.settings import CLONE
from tests.services.listening import listening

COMMANDS = Path(sys.executable).parent
HOST = "https://example.com/data"


class Files(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.mark.slow
def test_a_project_of_ones_own_is_tested_and_runs_as_the_docs_say(tmp_path: Path):
    page = (CLONE / "docs" / "your-own.md").read_text().split("# A project of your own")[1].split("\n## ")[0]
    lines = re.findall(r"^    (\S.*)$", page, re.MULTILINE)
    init, enter, *steps = lines
    clone, files = tmp_path / "clone", tmp_path / "files"
    clone.mkdir()
    files.mkdir()
    visits = [datetime(2026, 1, 1) + timedelta(hours=hour) for hour in range(1000)]
    table = pa.table({"id": range(1000), "visited_at": pa.array(visits, pa.timestamp("us"))})
    pq.write_table(table, files / "raw_visits.parquet")
    environ = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}

    def run(line: str, folder: Path) -> str:
        words = ["sh", "-ec", line]
        done = subprocess.run(words, cwd=folder, env=environ, capture_output=True, text=True)
        assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
        return done.stdout

    run(init.replace(".venv/bin", str(COMMANDS)), clone)
    project = clone / enter.removeprefix("cd ")
    # The environment of the clone, instead of a new one.
    with listening(partial(Files, directory=str(files))) as server:
        for step in steps:
            line = step.replace(HOST, f"http://127.0.0.1:{server.server_port}")
            line = line.replace(".venv/bin", str(COMMANDS))
            line = line.replace("make ", f"make BIN={COMMANDS} -o .venv/ready ")
            run(line, project)
    with duckdb.connect(str(project / ".serverless" / "warehouse.duckdb"), read_only=True) as warehouse:
        assert warehouse.sql("select count(*) from dwh.stg_visits").fetchall() == [(1000,)]
    listed = json.loads(run(f"{COMMANDS}/dg list defs --json", project))
    assert {asset["asset_key"] for asset in listed["assets"]} == {"raw_visits", "stg_visits", "pipeline_runs"}


def test_a_new_project_says_nothing_of_the_shop_and_has_its_own_name(tmp_path: Path):
    list(start_project(tmp_path / "guest-visits"))
    files = [path for path in (tmp_path / "guest-visits").rglob("*") if path.is_file()]
    assert tmp_path / "guest-visits" / "guest_visits" / "defs" / "__init__.py" in files
    texts = {path.name: path.read_text() for path in files if path.suffix != ".lock"}
    for word in ("my.project", "sample.?shop", "raw_orders", "revenue_usd", "dollars"):
        assert [name for name, text in texts.items() if re.search(word, text)] == []


def test_a_folder_that_cannot_become_a_project_is_refused_and_left_as_it_is(tmp_path: Path):
    for name, reason in {
        "My Shop": "cannot be the name",
        "pandas": "installed",
        "tests": "installed",
    }.items():
        with pytest.raises(InitError, match=reason):
            list(start_project(tmp_path / name))
        assert not (tmp_path / name).exists()
    (tmp_path / "visits").mkdir()
    (tmp_path / "visits" / "mine.txt").touch()
    with pytest.raises(InitError, match="visits is not empty"):
        list(start_project(tmp_path / "visits"))
    assert [path.name for path in (tmp_path / "visits").iterdir()] == ["mine.txt"]


@pytest.mark.parametrize(
    ("remote", "source"),
    [
        ("https://ann:token@example.com/team/assets.git", "git+https://example.com/team/assets.git@"),
        ("git@example.com:team/assets.git", "git+ssh://git@example.com/team/assets.git@"),
        ("ssh://git@example.com/team/assets.git", "git+ssh://git@example.com/team/assets.git@"),
        (None, "file:///"),
    ],
)
def test_a_project_depends_on_the_commit_of_the_clone_without_its_token(tmp_path: Path, remote, source):
    def git(*words: str) -> str:
        identity = ("-c", "user.name=Ann", "-c", "user.email=ann@example.com")
        return subprocess.check_output(["git", *identity, "-C", str(tmp_path), *words], text=True).strip()

    git("init", "-q")
    git("commit", "-q", "--allow-empty", "-m", "Start")
    if remote:
        git("remote", "add", "origin", remote)
    dependency = dependency_on(tmp_path)
    assert dependency.startswith(f"serverless-assets @ {source}")
    if remote:
        assert dependency.endswith(f"@{git('rev-parse', 'HEAD')}")
