"""A browser's tab without a network, for tests of the report."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Page, sync_playwright

CHROMIUM = shutil.which("chromium")
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on PATH")

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--no-first-run",
]


@contextmanager
def offline_tab() -> Iterator[Page]:
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser.new_context(offline=True).new_page()
        browser.close()


@contextmanager
def quietly_open(tab: Page, file: Path, width: int = 1200) -> Iterator[None]:
    """The report, freshly opened. Fails a test in which it logs anything or requests anything else."""
    noises: list[str] = []
    listeners = {
        "console": lambda message: noises.append(message.text),
        "pageerror": lambda error: noises.append(str(error)),
        "request": lambda request: noises.append(request.url),
    }
    for event, listener in listeners.items():
        tab.on(event, listener)
    tab.set_viewport_size({"width": width, "height": 900})
    tab.emulate_media(media="screen", color_scheme="light")
    tab.mouse.move(0, 0)
    tab.goto(file.as_uri())
    yield
    for event, listener in listeners.items():
        tab.remove_listener(event, listener)
    inside = (file.as_uri(), "data:,")
    assert [noise for noise in noises if not noise.startswith(inside)] == []
