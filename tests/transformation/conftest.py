import shutil
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import dagster as dg
import pytest

from tests.backends.conftest import google
from tests.transformation.team import BASE, Team

__all__ = ["google"]

ROWS = [(1, datetime(2024, 11, 5), 10), (2, datetime(2026, 9, 5), 20), (3, datetime(2026, 10, 5), 30)]


@pytest.fixture(scope="session")
def parsed_team(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a team after dbt's first parse, for copies at one path: dbt parses anew for another."""
    folder = tmp_path_factory.mktemp("team") / "team"
    with dg.DagsterInstance.ephemeral() as instance:
        Team(folder / "project", folder / "home", instance).write(BASE).project.manifest()
    return folder.rename(folder.with_name("template"))


@pytest.fixture
def team(parsed_team: Path, tmp_path: Path) -> Iterator[Team]:
    """A project with one raw table, three orders in it, and no model yet."""
    folder = parsed_team.with_name("team")
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(parsed_team, folder)
    with dg.DagsterInstance.ephemeral() as instance:
        found = Team(folder / "project", folder / "home", instance)
        found.load(ROWS, tmp_path)
        yield found
