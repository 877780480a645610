import shutil
from collections.abc import Iterator
from dataclasses import replace

import dagster as dg
import pytest

from tests.automation.hook import Hook, hook
from tests.conftest import Pipeline
from tests.ingestion.shop import shop


@pytest.fixture
def webhook() -> Iterator[Hook]:
    with hook() as running:
        yield running


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    # In memory: in files, a run takes twice as long.
    with dg.DagsterInstance.ephemeral() as made:
        yield made


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    """A pipeline whose source is a small shop, which a test opens: its definitions take seconds to make."""
    with shop() as closed:
        variables = {"SERVERLESS_DATASET_URL": closed.url, "SERVERLESS_FIRST_MONTH": "2026-09"}
    return Pipeline(tmp_path_factory.mktemp("watched") / "home", dg.DagsterInstance.ephemeral(), variables)


def at(place: Pipeline, instance: dg.DagsterInstance) -> Pipeline:
    """The same pipeline with another instance and an empty warehouse."""
    pipeline = replace(place, instance=instance)
    pipeline.__dict__["definitions"] = place.definitions
    for path in place.home.iterdir():
        if path.name != "dbt":
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    return pipeline
