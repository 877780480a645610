"""The same promises on each backend: on this machine, on Google's services emulated, and on the real ones.

`live` runs with the credentials of whoever runs it, and needs SERVERLESS_LIVE_PROJECT and
SERVERLESS_LIVE_BUCKET; with SERVERLESS_LIVE_EXECUTION_PROJECT, jobs run there. It works in datasets of its
own, and leaves nothing.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from uuid import uuid4

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from google.cloud import bigquery as client_library
from google.cloud import storage

from serverless_assets.artifacts import Artifacts
from serverless_assets.artifacts.gcs import GcsArtifacts
from serverless_assets.artifacts.local import LocalArtifacts
from serverless_assets.publishing.bigquery import BigQueryPublisher
from serverless_assets.warehouse import Warehouse
from serverless_assets.warehouse.bigquery import BigQueryWarehouse
from serverless_assets.warehouse.duckdb import DuckDBWarehouse
from tests.backends.parity import HEADING
from tests.backends.released_shop import Shop
from tests.backends.stock import ORDERS, STOCK, orders
from tests.backends.watched import Watched
from tests.services.bigquery import PROJECT, BigQuery, bigquery
from tests.services.gcs import Gcs, gcs
from tests.services.proxy import proxy

OUTSIDE = dict(os.environ)
GOOGLE_VARIABLES = (
    "BIGQUERY_EMULATOR_HOST",
    "STORAGE_EMULATOR_HOST",
    "GOOGLE_APPLICATION_CREDENTIALS",
    "GOOGLE_CLOUD_PROJECT",
)
EXECUTION_PROJECT = OUTSIDE.get("SERVERLESS_LIVE_EXECUTION_PROJECT", "")
GIB = 1 << 30

# A line for each relation that was compared between the backends.
PARITY: list[str] = []


@dataclass(frozen=True)
class Google:
    """Google's services on loopback."""

    bigquery: BigQuery
    gcs: Gcs


@dataclass(frozen=True)
class Backend:
    """What a test works with: a warehouse without tables, and names in a store that nobody else uses."""

    warehouse: Warehouse
    artifacts: Artifacts
    folder: Path
    prefix: str = ""

    def file(self, rows: pa.Table, name: str = "rows.parquet") -> Path:
        """The rows as a parquet file."""
        path = self.folder / name
        pq.write_table(rows, path)
        return path

    def name(self, name: str) -> str:
        """A file name for the store."""
        return self.prefix + name


@pytest.fixture(scope="session")
def google(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Google]:
    """Both services, and the variables that lead to them as a user would set them."""
    folder = tmp_path_factory.mktemp("google")
    with (
        gcs(folder / "gcs") as store,
        bigquery(folder / "bigquery", store.root) as warehouse,
        # Without credentials, Google's library looks for a machine in the cloud, for seconds.
        environment({**store.variables, **warehouse.variables, "NO_GCE_CHECK": "true"}),
    ):
        yield Google(warehouse, store)


@pytest.fixture(
    params=[
        "local",
        pytest.param("gcp", marks=pytest.mark.gcp),
        pytest.param("live", marks=pytest.mark.live),
    ]
)
def backend(request: pytest.FixtureRequest) -> Backend:
    return request.getfixturevalue(f"{request.param}_backend")


@pytest.fixture
def local_backend(tmp_path: Path) -> Backend:
    store = LocalArtifacts(tmp_path / "artifacts", tmp_path / "published")
    return Backend(DuckDBWarehouse(tmp_path / "warehouse.duckdb", "dwh"), store, tmp_path)


@pytest.fixture
def gcp_backend(google: Google, tmp_path: Path) -> Backend:
    return _prepared(PROJECT, f"bucket-{uuid4().hex}", "EU", tmp_path)


@pytest.fixture
def watched(gcp_backend: Backend, google: Google, monkeypatch: pytest.MonkeyPatch) -> Iterator[Watched]:
    warehouse = gcp_backend.warehouse
    assert isinstance(warehouse, BigQueryWarehouse)
    warehouse.replace_rows(ORDERS, gcp_backend.file(orders(*STOCK)), {"content": "first"})
    with proxy(google.bigquery.url) as running:
        # By the same monkeypatch as the tests, which may send calls elsewhere.
        monkeypatch.setenv("BIGQUERY_EMULATOR_HOST", running.url)
        path = gcp_backend.file(orders(("x", datetime(2026, 2, 14), 20)))
        yield Watched(gcp_backend, warehouse, running, path)


@pytest.fixture
def shop(request: pytest.FixtureRequest, tmp_path: Path) -> Shop:
    """On the emulated services; on the real ones, too, where a test is marked as `everywhere`."""
    where = getattr(request, "param", "gcp")
    backend: Backend = request.getfixturevalue(f"{where}_backend")
    warehouse, store = backend.warehouse, backend.artifacts
    assert isinstance(warehouse, BigQueryWarehouse)
    if where == "live":
        # The bucket is not the test's own.
        store = store.in_folder(f"{backend.prefix}shop")
        warehouse = replace(warehouse, execution_project=EXECUTION_PROJECT)
    return Shop(BigQueryPublisher(tmp_path / "home", warehouse, store))


everywhere = pytest.mark.parametrize(
    "shop",
    [pytest.param("gcp", marks=pytest.mark.gcp), pytest.param("live", marks=pytest.mark.live)],
    indirect=True,
)
on_real_services = pytest.mark.parametrize(
    "shop", [pytest.param("live", marks=pytest.mark.live)], indirect=True
)


@pytest.fixture
def live_backend(tmp_path: Path) -> Iterator[Backend]:
    project, bucket = OUTSIDE.get("SERVERLESS_LIVE_PROJECT"), OUTSIDE.get("SERVERLESS_LIVE_BUCKET")
    if not project or not bucket:
        pytest.skip("set SERVERLESS_LIVE_PROJECT and SERVERLESS_LIVE_BUCKET to test on the real services")
    with environment({name: OUTSIDE.get(name) for name in GOOGLE_VARIABLES}):
        backend = _prepared(project, bucket, OUTSIDE.get("SERVERLESS_LIVE_LOCATION", "EU"), tmp_path)
        try:
            yield backend
        finally:
            _delete(backend)


@contextmanager
def environment(variables: Mapping[str, str | None]) -> Iterator[None]:
    """Set these variables while the block runs; None unsets one."""
    before = {name: os.environ.get(name) for name in variables}
    _set(variables)
    try:
        yield
    finally:
        _set(before)


def _set(variables: Mapping[str, str | None]) -> None:
    for name, value in variables.items():
        os.environ.pop(name, None)
        if value is not None:
            os.environ[name] = value


def _prepared(project: str, bucket: str, location: str, folder: Path) -> Backend:
    unique = f"serverless_test_{uuid4().hex}"
    labels = {"run": "Test-1"}
    warehouse = BigQueryWarehouse(project, unique, location, GIB, labels, patience=5)
    artifacts = GcsArtifacts(project, bucket, location, patience=5)
    warehouse.prepare()
    # The first file makes the bucket.
    artifacts.write(unique, b"")
    artifacts.delete(unique)
    return Backend(warehouse, artifacts, folder, f"{unique}-")


def _delete(backend: Backend) -> None:
    artifacts = backend.artifacts
    assert isinstance(artifacts, GcsArtifacts)
    delete_dataset(backend.warehouse)
    bucket = storage.Client(artifacts.project).bucket(artifacts.bucket)
    bucket.delete_blobs(list(bucket.list_blobs(prefix=backend.prefix)))


def delete_dataset(warehouse: Warehouse) -> None:
    """Delete a test's dataset with all that is in it."""
    assert isinstance(warehouse, BigQueryWarehouse)
    with client_library.Client(warehouse.project) as client:
        for dataset in {warehouse.dataset, warehouse.working().dataset, warehouse.published().dataset}:
            client.delete_dataset(dataset, delete_contents=True, not_found_ok=True)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what the comparison of the backends found."""
    if PARITY:
        terminalreporter.section("the same on both backends")
        terminalreporter.write_line("\n".join([HEADING, *PARITY]))
