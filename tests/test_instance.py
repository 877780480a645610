"""DAGSTER_HOME: made for people who have none, and never taken from those who have."""

import os

import dagster as dg
import pytest

from serverless_assets.instance import MARK, prepare_dagster_home


@pytest.fixture(autouse=True)
def dagster_home_as_before(monkeypatch):
    monkeypatch.setenv("DAGSTER_HOME", os.environ.get("DAGSTER_HOME", ""))


def test_runs_of_one_warehouse_take_turns_and_none_goes_on_for_ever(tmp_path):
    with dg.DagsterInstance.from_config(str(prepare_dagster_home(tmp_path, 60))) as instance:
        pools = instance.get_concurrency_config().pool_config
        assert (pools.pool_granularity.value, pools.default_pool_limit) == ("run", 1)
        assert instance.run_monitoring_enabled
        assert instance.run_monitoring_max_runtime_seconds == 60
        assert instance.get_concurrency_config().run_queue_config.max_concurrent_runs == 4


def test_every_asset_that_writes_is_in_the_pool_of_its_warehouse(green):
    definitions = [found for found in green.definitions.assets if isinstance(found, dg.AssetsDefinition)]
    assert {found.op.pool for found in definitions} == {"local/dwh"}
    assert {op.pool for op in green.definitions.resolve_job_def("what_if_forecast").all_node_defs} == {None}


def test_a_file_that_we_wrote_is_kept_up_to_date(tmp_path):
    config = prepare_dagster_home(tmp_path, 60) / "dagster.yaml"
    prepare_dagster_home(tmp_path, 120)
    assert "max_runtime_seconds: 120" in config.read_text()


def test_a_file_of_yours_is_left_alone(tmp_path):
    config = prepare_dagster_home(tmp_path, 60) / "dagster.yaml"
    yours = config.read_text().replace(MARK, "# Mine.")
    config.write_text(yours)
    prepare_dagster_home(tmp_path, 120)
    assert config.read_text() == yours
