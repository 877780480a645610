"""A place beside a warehouse that is gone afterwards, whatever happens."""

import pyarrow as pa
import pytest
from google.cloud import bigquery as client_library

from serverless_assets.warehouse import TableShape
from serverless_assets.warehouse.bigquery import SCRATCH_LIFETIME, BigQueryWarehouse
from tests.backends.conftest import Backend

pytestmark = pytest.mark.gcp

ROWS = pa.table({"id": [1, 2]})


def test_a_scratch_dataset_is_gone_afterwards_with_all_that_is_in_it(gcp_backend: Backend) -> None:
    warehouse = gcp_backend.warehouse
    assert isinstance(warehouse, BigQueryWarehouse)
    client = client_library.Client(warehouse.project)
    with pytest.raises(KeyboardInterrupt), warehouse.scratch() as beside:
        beside.replace(TableShape("t", ROWS.schema), gcp_backend.file(ROWS), {})
        assert beside.row_count("t") == 2
        found = client.get_dataset(beside.dataset)
        assert found.default_table_expiration_ms in (None, SCRATCH_LIFETIME.total_seconds() * 1000)
        raise KeyboardInterrupt
    left = {dataset.dataset_id for dataset in client.list_datasets()}
    assert warehouse.dataset in left
    assert beside.dataset not in left
    assert beside.dataset.startswith(f"{warehouse.dataset}_ci_")
