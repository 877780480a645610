"""A place beside a warehouse that is gone afterwards, whatever happens."""

from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest
import requests
from click.testing import CliRunner
from google.cloud import bigquery as client_library

from serverless_assets.artifacts.gcs import GcsArtifacts
from serverless_assets.cli.main import main
from serverless_assets.environments import environment as build_environment
from serverless_assets.settings import Settings
from serverless_assets.warehouse import TableShape, WarehouseError
from serverless_assets.warehouse.bigquery import BigQueryWarehouse
from serverless_assets.warehouse.bigquery_dataset import SCRATCH_LIFETIME
from tests.backends.conftest import Backend, Google
from tests.backends.watched import Watched
from tests.services.proxy import Answer, Asked

pytestmark = pytest.mark.gcp

ROWS = pa.table({"id": [1, 2]})


def test_a_scratch_dataset_is_gone_afterwards_with_all_that_is_in_it(gcp_backend: Backend) -> None:
    warehouse = gcp_backend.warehouse
    assert isinstance(warehouse, BigQueryWarehouse)
    client = client_library.Client(warehouse.project)
    with pytest.raises(KeyboardInterrupt), warehouse.scratch() as beside:
        beside.replace_rows(TableShape("t", ROWS.schema), gcp_backend.file(ROWS), {})
        assert beside.row_count("t") == 2
        found = client.get_dataset(beside.dataset)
        assert found.default_table_expiration_ms in (None, SCRATCH_LIFETIME.total_seconds() * 1000)
        raise KeyboardInterrupt
    left = {dataset.dataset_id for dataset in client.list_datasets()}
    assert warehouse.dataset in left
    assert beside.dataset not in left
    assert beside.dataset.startswith(f"{warehouse.dataset}_ci_")


def test_a_scratch_dataset_whose_answer_got_lost_is_used_and_deleted(
    watched: Watched, google: Google
) -> None:
    created = []

    def lose_first_answer(request: Asked) -> Answer | None:
        if request.method != "POST" or not request.path.split("?")[0].endswith("/datasets") or created:
            return None
        answer = requests.post(google.bigquery.url + request.path, json=request.json, timeout=60)
        created.append((answer.status_code, request.json["datasetReference"]["datasetId"]))
        return Answer.error(503, "backendError", "Try again.")

    watched.proxy.instead = lose_first_answer
    with watched.warehouse.scratch() as beside:
        assert created == [(200, beside.dataset)]
        beside.replace_rows(TableShape("t", ROWS.schema), watched.backend.file(ROWS), {})
        assert beside.row_count("t") == 2
    with client_library.Client(watched.warehouse.project) as client:
        assert beside.dataset not in {dataset.dataset_id for dataset in client.list_datasets()}


def test_a_scratch_dataset_of_which_no_answer_arrived_is_deleted(watched: Watched, google: Google) -> None:
    created = []

    def lose_every_answer(request: Asked) -> Answer | None:
        if request.method != "POST" or not request.path.split("?")[0].endswith("/datasets"):
            return None
        requests.post(google.bigquery.url + request.path, json=request.json, timeout=60)
        created.append(request.json["datasetReference"]["datasetId"])
        return Answer.error(503, "backendError", "Try again.")

    watched.proxy.instead = lose_every_answer
    impatient = replace(watched.warehouse, patience=0.5)
    with pytest.raises(WarehouseError, match="Try again"), impatient.scratch():
        pytest.fail("the dataset is not known to be there")
    assert created
    with client_library.Client(watched.warehouse.project) as client:
        assert set(created).isdisjoint(dataset.dataset_id for dataset in client.list_datasets())


def test_cleaning_a_branch_removes_its_dataset_and_its_folder_and_nothing_else(
    gcp_backend: Backend, tmp_path: Path
) -> None:
    warehouse, artifacts = gcp_backend.warehouse, gcp_backend.artifacts
    assert isinstance(warehouse, BigQueryWarehouse)
    assert isinstance(artifacts, GcsArtifacts)
    artifacts.write("forecast.html", b"production's")
    variables = {
        "SERVERLESS_ENV": "gcp",
        "SERVERLESS_COMPUTE": "subprocess",
        "SERVERLESS_HOME": str(tmp_path / "home"),
        "GOOGLE_CLOUD_PROJECT": warehouse.project,
        "SERVERLESS_BUCKET": artifacts.bucket,
        "SERVERLESS_LOCATION": artifacts.location,
        "DBT_SCHEMA": warehouse.dataset,
        "SERVERLESS_BRANCH": "pr-7",
    }
    release = build_environment(Settings.from_environ(variables)).publisher
    release.warehouse.prepare()
    release.warehouse.replace_rows(TableShape("t", ROWS.schema), gcp_backend.file(ROWS), {})
    mart = f"{release.warehouse.dataset}_mart"
    release.warehouse.prepare_schemas([("other-project", mart)])
    release.warehouse.in_schema("other-project", mart).published().prepare()
    release.artifacts.write("forecast.html", b"the branch's")
    release.artifacts.write("manifest.json", b"{}")
    assert release.artifacts.names("") == ["forecast.html", "manifest.json"]
    assert release.artifacts.read("forecast.html") == b"the branch's"

    cleaned = CliRunner().invoke(main, ["clean", "--yes"], env=variables)

    assert cleaned.exit_code == 0, cleaned.output
    assert f"{warehouse.dataset}_pr_7" in cleaned.output
    assert "/branches/pr-7" in cleaned.output
    left = {dataset.dataset_id for dataset in client_library.Client(warehouse.project).list_datasets()}
    assert warehouse.dataset in left
    assert f"{warehouse.dataset}_pr_7" not in left
    others = client_library.Client(warehouse.project).list_datasets("other-project")
    assert not [one.dataset_id for one in others if one.dataset_id.startswith(warehouse.dataset)]
    assert release.artifacts.names("") == []
    assert artifacts.read("forecast.html") == b"production's"
    # A second time there is nothing left to delete, and no error.
    assert CliRunner().invoke(main, ["clean", "--yes"], env=variables).exit_code == 0
