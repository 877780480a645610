"""One UI with a green run for all the tests here, and a browser to look at it."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from serverless_assets.project_root import PROJECT_ROOT
from serverless_assets.settings import Settings
from tests.chromium import CHROMIUM, chromium
from tests.conftest import code_location
from tests.pictures import save
from tests.ui.client import Ui
from tests.ui.serve import serve

VIEWPORT = {"width": 1440, "height": 860}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker("ui")


@pytest.fixture(scope="session")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("ui") / "home"


@pytest.fixture(scope="session")
def dbt_project(tmp_path_factory):
    """A copy of the dbt project, to edit."""
    path = tmp_path_factory.mktemp("dbt") / "dbt_project"
    shutil.copytree(PROJECT_ROOT / "dbt_project", path)
    return path


@pytest.fixture(scope="session")
def served(home, dbt_project) -> Iterator[Ui]:
    """A UI whose assets have never been materialized, unless a test did so."""
    # A picture of a report on the fixed data of tests would warn that it is old.
    today = {"SERVERLESS_SAMPLE_END": ""} if os.environ.get("PICTURES") else {}
    with serve(home, {"SERVERLESS_DBT_PROJECT": str(dbt_project), **today}) as ui:
        yield ui


@pytest.fixture(scope="session")
def ui(served) -> Ui:
    """The UI after a run of everything."""
    assert served.status_at_the_end(served.launch()) == "SUCCESS"
    return served


@pytest.fixture(scope="module")
def nothing_pending(ui):
    """What tests of other modules left unfinished would keep runs of a part from being published."""
    assert ui.status_at_the_end(ui.launch()) == "SUCCESS"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("no chromium on PATH: the pages were not opened")
    with chromium() as browser:
        yield browser


@pytest.fixture
def page(browser):
    """A page of a browser that has never been here."""
    context = browser.new_context(viewport=VIEWPORT, device_scale_factor=2)
    context.set_default_timeout(60_000)
    yield context.new_page()
    context.close()


@pytest.fixture
def picture(page, home, dbt_project) -> Callable[..., None]:
    """Take a picture for docs/ if PICTURES is set, as `make pictures` does."""
    is_wanted = bool(os.environ.get("PICTURES"))

    def take(name: str, **how: object) -> None:
        if is_wanted:
            page.wait_for_load_state("networkidle")
            page.mouse.move(0, 0)
            variables = {"SERVERLESS_HOME": str(home), "SERVERLESS_DBT_PROJECT": str(dbt_project)}
            screenshot = page.screenshot(**{"animations": "disabled", "scale": "css", **how})
            save(screenshot, name, code_location(Settings.from_environ(variables)))

    return take
