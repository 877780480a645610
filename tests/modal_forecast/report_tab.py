"""The report in a browser's tab, for tests of it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Page


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
