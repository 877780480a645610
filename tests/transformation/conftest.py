from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import dagster as dg
import pytest

from tests.backends.conftest import google
from tests.transformation.team import BASE, Team

__all__ = ["google"]

ROWS = [(1, datetime(2024, 11, 5), 10), (2, datetime(2026, 9, 5), 20), (3, datetime(2026, 10, 5), 30)]


@pytest.fixture
def team(tmp_path: Path) -> Iterator[Team]:
    """A project with one raw table, three orders in it, and no model yet."""
    with dg.DagsterInstance.ephemeral() as instance:
        found = Team(tmp_path / "project", tmp_path / "home", instance).write(BASE)
        found.load(ROWS, tmp_path)
        yield found
