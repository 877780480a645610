from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page

from tests.chromium import chromium
from tests.modal_forecast.report_tab import quietly_open


@pytest.fixture(scope="module")
def tab() -> Iterator[Page]:
    """One tab, without a network, for all tests of a file: with one per test they took half as long again."""
    with chromium() as browser:
        yield browser.new_context(offline=True).new_page()


@pytest.fixture
def page(tab: Page, file: Path, request: pytest.FixtureRequest) -> Iterator[Page]:
    """The module's `file`, freshly opened."""
    with quietly_open(tab, file, width=getattr(request, "param", 1200)):
        yield tab
