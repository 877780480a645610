"""`serverless init`: a project without the sample shop, started and run as docs/your-own.md says."""

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
from serverless_assets.project_root import CLONE
from tests.services.listening import listening

COMMANDS = Path(sys.executable).parent
HOST = "https://example.com/data"


class Files(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.mark.slow
@pytest.mark.parametrize(
    ("page", "title", "host", "table", "rows"),
    [
        ("docs/your-own.md", "A project of your own", "https://example.com/data", "dwh.stg_visits", 5000),
        ("README.md", "Make it yours", "https://data.example.com/shop", "dwh.guests", 180),
    ],
)
def test_a_project_of_ones_own_is_tested_and_runs_as_the_docs_say(
    tmp_path: Path, page: str, title: str, host: str, table: str, rows: int
):
    section = (CLONE / page).read_text().split(f"# {title}\n")[1].split("\n## ")[0]
    commands = "\n".join(re.findall(r"^    (.*)$", section, re.MULTILINE))
    clone, files = tmp_path / "clone", tmp_path / "files"
    clone.mkdir()
    files.mkdir()
    visits = [datetime(2025, 1, 1) + timedelta(hours=hour) for hour in range(5000)]
    served = pa.table(
        {"id": range(5000), "visited_at": pa.array(visits, pa.timestamp("us")), "order": range(5000)}
    )
    pq.write_table(served, files / "raw_visits.parquet")
    # The environment of the clone, instead of a new one of the project.
    commands = commands.replace(".venv/bin", str(COMMANDS)).replace(f"$PWD/{COMMANDS}", str(COMMANDS))
    commands = commands.replace("make ", f"make BIN={COMMANDS} -o .venv/ready ")
    environ = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    with listening(partial(Files, directory=str(files))) as server:
        commands = commands.replace(host, f"http://127.0.0.1:{server.server_port}")
        words = ["sh", "-ec", commands]
        done = subprocess.run(words, cwd=clone, env=environ, capture_output=True, text=True)
    assert done.returncode == 0, f"{commands}\n{done.stdout}{done.stderr}"
    [project] = set(tmp_path.iterdir()) - {clone, files}
    with duckdb.connect(str(project / ".serverless" / "warehouse.duckdb"), read_only=True) as warehouse:
        assert warehouse.sql(f"select count(*) from {table}").fetchall() == [(rows,)]


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
        "tests": "which has a folder tests itself",
        "dbt-project": "which has a folder dbt_project itself",
    }.items():
        with pytest.raises(InitError, match=reason):
            list(start_project(tmp_path / name))
        assert not (tmp_path / name).exists()
    with pytest.raises(InitError, match=r"The folder /proc/visits cannot be made: .+\. Choose one"):
        list(start_project(Path("/proc/visits")))
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
