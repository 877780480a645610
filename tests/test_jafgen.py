"""The pipeline on data that this project did not make, from a plain folder behind a static server."""

import subprocess
import sys
from functools import partial
from http.server import SimpleHTTPRequestHandler
from pathlib import Path

import dagster as dg
import pyarrow as pa
import pyarrow.csv as csv
import pyarrow.parquet as pq
import pytest

from tests.conftest import NO_FORECAST, Pipeline
from tests.raw_tables import TABLES
from tests.services.listening import listening

pytestmark = pytest.mark.slow


# Its second store opens within the back-test, so that one in fifty draws is refused as worse than naive.
SEEDED_JAFGEN = """
import random
import uuid
import numpy
from jafgen.cli import app
random.seed(2)
numpy.random.seed(2)
uuid.uuid4 = lambda: uuid.UUID(int=random.getrandbits(128), version=4)
app()
"""


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def folder_url(tmp_path_factory):
    folder = tmp_path_factory.mktemp("jafgen")
    subprocess.run(
        [sys.executable, "-c", SEEDED_JAFGEN, "1", "--pre", "raw"],
        cwd=folder, check=True, capture_output=True,
    )  # fmt: skip
    for table in TABLES:
        (source,) = folder.rglob(f"{table.name}.csv")
        pq.write_table(read_csv(source, table.source_schema), folder / f"{table.name}.parquet")
    with listening(partial(QuietHandler, directory=str(folder))) as server:
        yield f"http://127.0.0.1:{server.server_port}"


def read_csv(path: Path, schema: pa.Schema) -> pa.Table:
    ids = {name: pa.string() for name in schema.names if schema.field(name).type == pa.string()}
    return csv.read_csv(path, convert_options=csv.ConvertOptions(column_types=ids))


@pytest.fixture(scope="module")
def loaded(folder_url, tmp_path_factory):
    with dg.DagsterInstance.ephemeral() as instance:
        home = tmp_path_factory.mktemp("jafgen-home")
        pipeline = Pipeline(home, instance, {"SERVERLESS_DATASET_URL": folder_url})
        pipeline.run()
        yield pipeline


def test_the_whole_pipeline_runs_on_jafgen_data(loaded):
    assert loaded.summary["success"], loaded.summary
    assert loaded.summary["published"]
    assert loaded.published_rows("select count(*) from dwh.order_forecast") == [(180,)]


def test_a_server_that_ignores_the_window_still_gives_one_month(loaded):
    by_month = "select date_trunc('month', ordered_at), count(*) from dwh.{} group by 1 order by 1"
    tables = ("raw_orders", "raw_items")
    before = {table: loaded.published_rows(by_month.format(table)) for table in tables}
    month = before["raw_orders"][3][0]
    tags = {"dagster/partition": f"{month:%Y-%m-01}"}
    assert loaded.run(NO_FORECAST, job="ingest", assets=tables, tags=tags).success
    for table in tables:
        assert loaded.facts(table)["dagster/partition_row_count"] == dict(before[table])[month]
    assert {table: loaded.published_rows(by_month.format(table)) for table in tables} == before
