"""DAGSTER_HOME: made for people who have none, and never taken from those who have."""

import os

import dagster as dg
import pytest

from serverless_assets.instance import MARK, InstanceError, open_instance, prepare_dagster_home


@pytest.fixture(autouse=True)
def dagster_home_as_before(monkeypatch):
    monkeypatch.setenv("DAGSTER_HOME", os.environ.get("DAGSTER_HOME", ""))


def test_runs_of_one_warehouse_take_turns_and_none_goes_on_for_ever(tmp_path):
    with dg.DagsterInstance.from_config(str(prepare_dagster_home(tmp_path, 60))) as instance:
        pools = instance.get_concurrency_config().pool_config
        assert (pools.pool_granularity.value, pools.default_pool_limit) == ("run", 1)
        assert instance.run_monitoring_enabled
        assert instance.run_monitoring_max_runtime_seconds == 60
        assert instance.get_concurrency_config().run_queue_config.max_concurrent_runs == -1


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


def test_an_empty_file_is_written_anew(tmp_path):
    config = prepare_dagster_home(tmp_path, 60) / "dagster.yaml"
    wanted = config.read_text()
    config.write_text("")
    prepare_dagster_home(tmp_path, 60)
    assert config.read_text() == wanted


@pytest.mark.parametrize("content", [b"telemetry: [", b"\xff\xfe\x00", b"no_such_setting: 1\n"])
def test_a_configuration_that_cannot_be_used_is_refused_in_words(tmp_path, content):
    config = prepare_dagster_home(tmp_path, 60) / "dagster.yaml"
    config.write_bytes(content)
    prepare_dagster_home(tmp_path, 60)
    with pytest.raises(InstanceError, match="Correct it, or delete it") as refused, open_instance():
        pass
    assert str(refused.value).startswith(f"{config} cannot be used: ")


@pytest.mark.parametrize("database", ["history/runs.db", "history/runs/index.db", "schedules/schedules.db"])
@pytest.mark.parametrize("damage", [b"random bytes" * 1000, None], ids=["bytes", "folder"])
def test_a_history_that_cannot_be_used_is_refused_in_words(tmp_path, database, damage):
    dagster_home = prepare_dagster_home(tmp_path, 60)
    with open_instance() as instance:
        instance.get_runs(limit=1)
    file = dagster_home / database
    file.unlink()
    if damage is None:
        file.mkdir()
    else:
        file.write_bytes(damage)
    with pytest.raises(InstanceError) as refused, open_instance():
        pass
    assert "Dagster's history" in str(refused.value)
    assert f"DAGSTER_HOME is {dagster_home}" in str(refused.value)
