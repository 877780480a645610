"""Runs of the real pipeline, in this process and in a home of their own.

Their Dagster keeps its events in memory, which halves the time of a run that reuses all; those that the
command and the UI start keep them in files.
"""

import os
import re
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property, partial
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb
import pyarrow as pa
import pytest
import yaml
from click.testing import CliRunner, Result
from dagster._core.storage.event_log.in_memory import InMemoryEventLogStorage
from xdist.scheduler.loadfile import LoadFileScheduling

from modal_forecast.code_version import versioned_app
from serverless_assets import metadata
from serverless_assets.artifacts import Artifacts
from serverless_assets.cli import main
from serverless_assets.dagster_storage import adapt_storages
from serverless_assets.definitions import build
from serverless_assets.environments import Environment, environment
from serverless_assets.event_log import BatchedEvents
from serverless_assets.forecasting.compute import Answered, Calls, Log, Size
from serverless_assets.forecasting.declaration import ForecastDeclaration
from serverless_assets.forecasting.local_compute import WORKER, LocalCompute
from serverless_assets.project_root import PROJECT_ROOT
from serverless_assets.publishing.summary import read_summary
from serverless_assets.run_inputs import RunInputs, SkipForecast
from serverless_assets.sample_shop.api import create_app, serve
from serverless_assets.sample_shop.shop import SampleShop
from serverless_assets.settings import Settings
from serverless_assets.warehouse import Warehouse
from tests.services.modal.harness import Server, modal_server

SAMPLE_END = "2026-10-31"
NO_FORECAST = RunInputs(forecast=SkipForecast())
DECLARED = PROJECT_ROOT / "serverless_assets" / "defs" / "forecast" / "defs.yaml"
SHOP = ForecastDeclaration(**yaml.safe_load(DECLARED.read_text())["attributes"])

DBT_PROJECT = f"{PROJECT_ROOT / 'dbt_project'}{os.sep}"

MEMORY = Path("/dev/shm")
ROOM_BYTES = 8 << 30


def pytest_configure(config: pytest.Config) -> None:
    """Keep the tests' files in memory if there is room, as an fsync of a warehouse takes long on a disk."""
    is_worker = hasattr(config, "workerinput")
    if config.option.basetemp or is_worker or not os.access(MEMORY, os.W_OK):
        return
    if shutil.disk_usage(MEMORY).free > ROOM_BYTES:
        folder = tempfile.mkdtemp(prefix="serverless-tests-", dir=MEMORY)
        config.option.basetemp = folder
        config.add_cleanup(partial(shutil.rmtree, folder, ignore_errors=True))


class OneForGreen(LoadFileScheduling):
    """Give a process file by file, but all files of the green pipeline to one, which then makes it once."""

    def _split_scope(self, nodeid: str) -> str:
        file = super()._split_scope(nodeid)
        return "green" if uses_green(self.config.rootpath / file) else file


@cache
def uses_green(file: Path) -> bool:
    return bool(re.search(r"^def \w+\([^)]*\b(green|pipeline|empty)\b", file.read_text(), re.MULTILINE))


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadFileScheduling | None:
    return OneForGreen(config, log) if config.getoption("dist") == "loadfile" else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # Begun first, as it takes half of the time: nothing is then left for one process alone.
    items.sort(key=lambda item: not uses_green(item.path))


def refuse_writes_in_the_project(event: str, arguments: tuple[Any, ...]) -> None:
    if event != "open" or not isinstance(path := arguments[0], str):
        return
    if arguments[2] & (os.O_WRONLY | os.O_RDWR) and path.startswith(DBT_PROJECT):
        raise PermissionError(
            f"A test writes {path}, which other tests read at the same time: copy it first."
        )


sys.addaudithook(refuse_writes_in_the_project)


@cache
def code_location(settings: Settings) -> dg.Definitions:
    """The definitions, loaded once for all tests with these settings, as in a Dagster process."""
    return build(settings)


@dataclass
class Pipeline:
    """The code location with a home and an instance of its own."""

    home: Path
    instance: dg.DagsterInstance
    variables: Mapping[str, str]

    @cached_property
    def settings(self) -> Settings:
        return Settings.from_environ({**self.variables, "SERVERLESS_HOME": str(self.home)})

    @cached_property
    def definitions(self) -> dg.Definitions:
        return code_location(self.settings)

    @cached_property
    def parts(self) -> Environment:
        return environment(self.settings)

    @property
    def warehouse(self) -> Warehouse:
        return self.parts.publisher.warehouse

    @property
    def artifacts(self) -> Artifacts:
        return self.parts.publisher.artifacts

    def run(
        self,
        inputs: RunInputs | None = None,
        job: str = "serverless_pipeline",
        assets: Sequence[str] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> dg.ExecuteInProcessResult:
        return self.definitions.resolve_job_def(job).execute_in_process(
            run_config=dg.RunConfig(resources={"run_inputs": inputs or RunInputs()}),
            instance=self.instance,
            asset_selection=[dg.AssetKey(asset) for asset in assets] if assets else None,
            tags=dict(tags or {}),
            raise_on_error=False,
        )

    @property
    def summary(self) -> dict[str, Any]:
        return read_summary(self.home) or {}

    @property
    def outcomes(self) -> dict[str, dict[str, Any]]:
        """The outcomes of the last run, but for raw tables that the sample shop lacks and their models."""
        return {name: one for name, one in self.summary["assets"].items() if not one.get("optional")}

    def reason(self, asset: str) -> str:
        return str(self.summary["assets"][asset]["reason"])

    def facts(self, asset: str) -> dict[str, Any]:
        """The metadata of the asset's last materialization, and its data version."""
        event = self.instance.get_latest_materialization_event(dg.AssetKey(asset))
        made = event and event.asset_materialization
        assert made, asset
        plain = metadata.plain_values(made.metadata)
        return {**plain.pop("details", {}), **plain, "version": (made.tags or {})["dagster/data_version"]}

    def published(self, query: str) -> pa.Table:
        """The answer to a query on the published warehouse."""
        with duckdb.connect(str(self.home / "warehouse.duckdb"), read_only=True) as connection:
            return connection.sql(query).to_arrow_table()

    def published_rows(self, query: str) -> list[tuple[Any, ...]]:
        return [tuple(row.values()) for row in self.published(query).to_pylist()]


@pytest.fixture(scope="session")
def shop_url() -> Iterator[str]:
    """The sample shop as it stood on a fixed day, on a socket."""
    from datetime import date

    shop = SampleShop(end=date.fromisoformat(SAMPLE_END))
    with serve(create_app(lambda: shop)) as url:
        yield url


@pytest.fixture(scope="session")
def sample_variables(shop_url: str) -> dict[str, str]:
    # One server for the session spares every run the generation of two years of orders.
    return {"SERVERLESS_DATASET_URL": shop_url, "SERVERLESS_FIRST_MONTH": "2024-01"}


@pytest.fixture(scope="session")
def green(tmp_path_factory: pytest.TempPathFactory, sample_variables: dict[str, str]) -> Iterator[Pipeline]:
    """A pipeline after one green run of everything. Read it; a test that runs it takes `pipeline`."""
    with dg.DagsterInstance.ephemeral() as instance:
        pipeline = Pipeline(tmp_path_factory.mktemp("green") / "home", instance, sample_variables)
        result = pipeline.run()
        assert result.success, pipeline.summary
        yield pipeline


@pytest.fixture(scope="session")
def template(green: Pipeline, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The green home as `pipeline` has it: all copies have one path, as dbt parses anew for every other."""
    home = tmp_path_factory.mktemp("pipeline") / "home"
    shutil.copytree(green.home, home, symlinks=True, ignore=shutil.ignore_patterns("lock"))
    Pipeline(home, green.instance, green.variables).parts.project.manifest()
    return home.rename(home.with_name("template"))


@pytest.fixture
def pipeline(template: Path, green: Pipeline) -> Iterator[Pipeline]:
    """A copy of the green pipeline to run and to break. It stays for a look until the next test takes one."""
    home = template.with_name("home")
    shutil.rmtree(home, ignore_errors=True)
    shutil.copytree(template, home, symlinks=True)
    with dg.DagsterInstance.ephemeral() as instance:
        yield Pipeline(home, instance, green.variables)


@pytest.fixture
def empty(template: Path, green: Pipeline) -> Iterator[Pipeline]:
    """A pipeline before its first run, in a home where dbt has parsed the project: that takes seconds."""
    home = template.with_name("home")
    shutil.rmtree(home, ignore_errors=True)
    shutil.copytree(template / "dbt", home / "dbt", ignore=shutil.ignore_patterns("runs"))
    with dg.DagsterInstance.ephemeral() as instance:
        yield Pipeline(home, instance, green.variables)


@pytest.fixture
def serverless(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Result]]:
    """Run a command in this process: one of its own takes seconds to import Dagster.

    tests/test_cli.py has the command as a process.
    """
    monkeypatch.setenv("DAGSTER_HOME", "")

    def run(pipeline: Pipeline, *words: str) -> Result:
        variables = {**pipeline.variables, "SERVERLESS_HOME": str(pipeline.home)}
        return CliRunner().invoke(main, words, env=variables)

    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield run
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.fixture(scope="session")
def modal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A Modal server with the worker deployed, and the variables that lead to it as a user would set them."""
    with (
        modal_server(tmp_path_factory.mktemp("modal"), environments=["staging"]) as server,
        pytest.MonkeyPatch.context() as variables,
    ):
        for name, value in server.variables.items():
            variables.setenv(name, value)
        from serverless_assets.forecasting.modal_compute import deploy

        deploy(versioned_app("serverless-forecast"), None)
        yield server


@pytest.fixture(scope="session", autouse=True)
def migrations_read_once() -> None:
    """Alembic loads Dagster's 90 migrations twice for each new instance, which is most of what one costs."""
    adapt_storages()


class EventsInMemory(BatchedEvents, InMemoryEventLogStorage):
    """Events in memory that are stored in batches, as those on disk are."""

    def store_event_batch(self, events: Sequence[dg.EventLogEntry]) -> None:
        with self.index_connection() as connection:
            self._store_in_index(connection, [(event, self._event_to_row(event)) for event in events])


@pytest.fixture(scope="session", autouse=True)
def events_stored_in_batches() -> Iterator[None]:
    """One by one, the events of a run that reuses all took a third of its time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dagster._core.storage.event_log.InMemoryEventLogStorage", EventsInMemory)
        patch.setenv("DAGSTER_EVENT_BATCH_SIZE", "1000")
        yield


@pytest.fixture(scope="session", autouse=True)
def forecasts_made_once() -> Iterator[None]:
    """The worker answers the same request with the same rows, and takes seconds: it is started once for each.

    tests/forecasting/test_local_compute.py has it answer twice.
    """
    run = LocalCompute.run
    answers: dict[tuple[bytes, Size], Answered] = {}

    def run_once(compute: LocalCompute, request: bytes, size: Size, log: Log, calls: Calls) -> Answered:
        if compute.worker != WORKER:
            return run(compute, request, size, log, calls)
        if (request, size) not in answers:
            answers[request, size] = run(compute, request, size, log, calls)
        return answers[request, size]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LocalCompute, "run", run_once)
        yield


@pytest.fixture(scope="session", autouse=True)
def interruptible() -> None:
    """What a shell starts in the background ignores Ctrl-C, and so does what that starts."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(("SERVERLESS_", "DBT_")):
            monkeypatch.delenv(name)
