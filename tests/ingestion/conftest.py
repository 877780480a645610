from pathlib import Path
from typing import Any

import pytest

from serverless_assets.ingestion.download import (
    TableSource,
)
from serverless_assets.ingestion.window import Window


@pytest.fixture
def lines() -> list[str]:
    return []


@pytest.fixture
def source():
    """A source that is asked without pauses."""

    def source(base_url: str, attempts: int = 3, **options: Any) -> TableSource:
        return TableSource(
            base_url, attempts, **{"first_pause_seconds": 0.0, "timeout_seconds": 10.0, **options}
        )

    return source


@pytest.fixture
def fetch(tmp_path: Path, lines: list[str], source):
    def fetch(base_url: str, window: Window | None = None, attempts: int = 3, **options: Any):
        path = tmp_path / "raw_orders.download"
        return source(base_url, attempts, **options).fetch("raw_orders", window, path, lines.append)

    return fetch
