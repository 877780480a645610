import pytest

from modal_forecast.code_version import versioned_app
from serverless_assets.environments import BRANCH_LIFETIME, environment
from serverless_assets.errors import UserError
from serverless_assets.ingestion.http_client import DownloadLimits
from serverless_assets.settings import Settings, SettingsError

NO_TOKEN = {"MODAL_CONFIG_PATH": "/nowhere/modal.toml"}
TOKEN = {"MODAL_TOKEN_ID": "ak-1", "MODAL_TOKEN_SECRET": "as-1"}
GCP = {"SERVERLESS_ENV": "gcp", "GOOGLE_CLOUD_PROJECT": "my-shop", "SERVERLESS_BUCKET": "my-shop-forecasts"}


@pytest.fixture
def parts(tmp_path):
    return lambda **variables: environment(
        Settings.from_environ({"SERVERLESS_HOME": str(tmp_path), **NO_TOKEN, **variables})
    )


def test_a_laptop_needs_nothing(parts):
    found = parts()
    assert found.publisher.warehouse.qualified_name("orders") == "warehouse.dwh.orders"
    assert found.compute.name == "a process on this machine"


@pytest.mark.parametrize("source", [{}, {"SERVERLESS_DATASET_URL": "https://shop.test"}])
def test_downloads_are_held_to_the_limits_of_the_settings(parts, source):
    limits = {
        "SERVERLESS_DOWNLOAD_DEADLINE": "600",
        "SERVERLESS_DOWNLOAD_MIN_RATE": "0",
        "SERVERLESS_LOAD_MEMORY": "256",
    }
    found = parts(**limits, **source).source
    assert found.limits == DownloadLimits(600, 0, memory_mib=256)
    with found.open() as opened:
        assert opened.limits == found.limits


def test_the_cloud_is_bigquery_a_bucket_and_modal(parts):
    found = parts(**GCP, **TOKEN)
    assert found.publisher.warehouse.qualified_name("orders") == "my-shop.dwh.orders"
    assert found.publisher.published.artifacts.bucket == "my-shop-forecasts"
    assert found.compute.name == "Modal"
    assert found.project.variables["GOOGLE_CLOUD_PROJECT"] == "my-shop"


def test_modal_can_be_tried_with_the_local_warehouse(parts):
    found = parts(SERVERLESS_COMPUTE="modal", SERVERLESS_MODAL_APP="trial", **TOKEN)
    assert found.publisher.warehouse.qualified_name("orders") == "warehouse.dwh.orders"
    assert (found.compute.name, found.compute.app) == ("Modal", versioned_app("trial"))


def test_the_cloud_can_do_without_modal(parts):
    assert parts(**GCP, SERVERLESS_COMPUTE="subprocess").compute.name == "a process on this machine"


def test_all_that_is_missing_is_named_at_once(parts):
    with pytest.raises(SettingsError) as raised:
        parts(SERVERLESS_ENV="gcp")
    for name in ("'gcp'", "GOOGLE_CLOUD_PROJECT", "SERVERLESS_BUCKET", "MODAL_TOKEN_ID", "modal token new"):
        assert name in str(raised.value)


def test_each_axis_is_chosen_by_itself(parts):
    environment = parts(SERVERLESS_ARTIFACTS_URL="memory://forecasts")
    assert environment.publisher.warehouse.kind == "duckdb"
    assert environment.publisher.artifacts.place("r.html").address == "memory://forecasts/r.html"
    environment = parts(SERVERLESS_WAREHOUSE="bigquery", GOOGLE_CLOUD_PROJECT="my-shop")
    assert environment.publisher.warehouse.qualified_name("orders") == "my-shop.dwh.orders"
    assert environment.project.variables["SERVERLESS_ENV"] == "gcp"
    assert environment.compute.name == "a process on this machine"


def test_a_branch_has_a_folder_of_its_own_at_an_address(tmp_path):
    settings = Settings.from_environ(
        {
            **NO_TOKEN,
            "SERVERLESS_HOME": str(tmp_path / "home"),
            "SERVERLESS_BRANCH": "pr-1",
            "SERVERLESS_ARTIFACTS_URL": f"file://{tmp_path}/store",
        }
    )
    publisher = environment(settings).publisher
    publisher.artifacts.write("r.html", b"report")
    assert (tmp_path / "store" / "branches" / "pr-1" / "_work" / "r.html").read_bytes() == b"report"
    (clear,) = publisher.scratch_places.values()
    clear()
    assert publisher.artifacts.names("") == []


@pytest.mark.parametrize(
    "name", ["SERVERLESS_ENV", "SERVERLESS_WAREHOUSE", "SERVERLESS_ARTIFACTS", "SERVERLESS_COMPUTE"]
)
def test_an_unknown_name_is_refused_with_those_that_are_known(parts, name):
    with pytest.raises(SettingsError, match=f"Unknown {name} 'prod': expected one of "):
        parts(**{name: "prod"})


def test_a_branch_has_a_dataset_a_folder_and_a_home_of_its_own_that_do_not_last(tmp_path):
    settings = Settings.from_environ(
        {**NO_TOKEN, **GCP, **TOKEN, "SERVERLESS_HOME": str(tmp_path / "home"), "SERVERLESS_BRANCH": "pr-123"}
    )
    found = environment(settings).publisher
    assert found.home == tmp_path / "home-pr-123"
    assert found.warehouse.qualified_name("orders") == "my-shop.dwh_pr_123.orders"
    assert found.warehouse.lifetime == BRANCH_LIFETIME
    assert found.artifacts.place("r.html").address == "gs://my-shop-forecasts/branches/pr-123/r.html"
    assert len(found.scratch_places) == 2


def test_what_is_no_branch_is_to_last(parts):
    found = parts(**GCP, **TOKEN).publisher
    assert found.scratch_places == {}
    for refuse in (found.warehouse.drop, found.artifacts.clear):
        with pytest.raises(UserError, match=r"is not (deleted|cleared)"):
            refuse()
