from dataclasses import replace

import pytest

from serverless_assets import metadata
from serverless_assets.warehouse import JobStats
from serverless_assets.warehouse.bigquery import BigQueryWarehouse
from serverless_assets.warehouse.duckdb import DuckDBWarehouse

BIGQUERY = BigQueryWarehouse("project", "dwh", "EU", maximum_bytes_billed=1 << 30)
TIB = 1 << 40


@pytest.mark.parametrize(("size", "usd"), [(0, 0.0), (TIB, 6.25), (10 * 1024**2, 6.25 * 10 / 1024**2)])
def test_bigquery_charges_by_the_bytes(size, usd):
    assert BIGQUERY.price(size) == pytest.approx(usd)


def test_the_price_of_a_region_or_edition_is_a_setting_and_unknown_without():
    frankfurt = replace(BIGQUERY, location="europe-west3")
    unknown = (
        "BigQuery, project.dwh in europe-west3, as SERVERLESS_BIGQUERY_PRICE does not say its price there"
    )
    assert frankfurt.price(TIB) is None
    assert frankfurt.unknown_price == f"{unknown}, such as 6.25/TiB"
    spent = metadata.job_metadata(JobStats(("a job",), TIB, TIB), frankfurt)
    assert "cost_usd" not in spent
    assert spent["cost_unknown"] == frankfurt.unknown_price
    assert replace(frankfurt, usd="8.1/TiB").price(TIB) == pytest.approx(8.1)
    # Nobody knows beforehand how many slots a query takes for how long.
    enterprise = replace(BIGQUERY, usd="0.06/slot-hour")
    assert enterprise.price(TIB) is None
    assert enterprise.unknown_price.endswith(
        "in EU, as how many slot-hours a query takes is known once it has run"
    )
    assert metadata.job_metadata(JobStats(("a job",), TIB, 0, 1_800_000), enterprise)["cost_usd"] == 0.03


def test_a_file_is_free(tmp_path):
    duckdb = DuckDBWarehouse(tmp_path / "warehouse.duckdb", "dwh")
    assert duckdb.price(TIB) is None
    assert metadata.job_metadata(JobStats(("a job",)), duckdb).keys().isdisjoint({"cost_usd", "cost_unknown"})


def test_work_is_told_with_its_price():
    work = JobStats(("one",), 100, TIB // 2, 2500) + JobStats(("two",), 20, TIB // 2, 500)
    assert metadata.job_metadata(work, BIGQUERY) == {
        "warehouse_jobs": "one, two",
        "bytes_processed": 120,
        "bytes_billed": TIB,
        "slot_seconds": 3.0,
        "cost_usd": 6.25,
    }
    assert metadata.job_metadata(JobStats(), BIGQUERY) == {}


@pytest.mark.parametrize(
    ("usd", "told"),
    [((), {}), ((None,), {}), ((0,), {"cost_usd": 0.0}), ((None, 0.1, 0.2), {"cost_usd": 0.3})],
)
def test_the_cost_is_of_all_that_is_charged_and_always_a_float(usd, told):
    assert metadata.cost(*usd) == told
    assert all(isinstance(value, float) for value in metadata.cost(*usd).values())
