from pathlib import Path

import pytest

from serverless_assets.ingestion.download import (
    TableSource,
)
from serverless_assets.ingestion.window import Window


@pytest.fixture
def lines() -> list[str]:
    return []


@pytest.fixture
def fetch(tmp_path: Path, lines: list[str]):
    def fetch(base_url: str, window: Window | None = None, attempts: int = 3):
        source = TableSource(base_url, attempts, first_pause_seconds=0.0, timeout_seconds=0.2)
        return source.fetch("raw_orders", window, tmp_path / "raw_orders.download", lines.append)

    return fetch
