"""What is used of Dagster without being part of its public API is what this code takes it for."""

import ast
from functools import partial
from pathlib import Path

import dagster as dg
from alembic.config import Config
from alembic.script import ScriptDirectory
from dagster._core.storage.sql import get_alembic_config

from serverless_assets import dagster_internals, dagster_storage
from serverless_assets.project_root import PROJECT_ROOT
from serverless_assets.run_inputs import RunInputs


def test_tags_have_the_documented_names():
    assert dagster_internals.DATA_VERSION_TAG == "dagster/data_version"
    assert dagster_internals.CODE_VERSION_TAG == "dagster/code_version"
    assert dagster_internals.DATA_VERSION_IS_USER_PROVIDED_TAG == "dagster/data_version_is_user_provided"
    assert dagster_internals.INPUT_DATA_VERSION_TAG_PREFIX == "dagster/input_data_version"
    assert dagster_internals.ROOT_RUN_ID_TAG == "dagster/root_run_id"
    assert dagster_internals.WILL_RETRY_TAG == "dagster/will_retry"
    assert dagster_internals.ASSET_PARTITION_RANGE_START_TAG == "dagster/asset_partition_range_start"
    assert dagster_internals.ASSET_PARTITION_RANGE_END_TAG == "dagster/asset_partition_range_end"


def test_history_on_disk_is_in_the_sqlite_storage_that_is_pruned(tmp_path):
    with dg.instance_for_test(temp_dir=str(tmp_path)) as instance:
        storage = instance.event_log_storage
        assert isinstance(storage, dagster_storage.SqliteEventLogStorage)
        assert Path(storage.path_for_shard("index")).is_file()


def test_storages_on_disk_use_one_engine_for_each_database(tmp_path):
    dagster_storage.adapt_storages()
    with dg.instance_for_test(temp_dir=str(tmp_path)) as instance:
        for connect in (
            instance.event_log_storage.index_connection,
            partial(instance.event_log_storage.run_connection, "a-run"),
            instance.run_storage.connect,
            instance.schedule_storage.connect,
        ):
            with connect() as first:
                engine = first.engine
            with connect() as second:
                assert second.engine is engine


def test_storages_on_disk_read_the_scripts_of_their_migrations_once(tmp_path):
    dagster_storage.adapt_storages()
    configs = [get_alembic_config(str(tmp_path / name), "alembic.ini") for name in ("runs.py", "events.py")]
    first, second = map(ScriptDirectory.from_config, configs)
    assert first is second
    assert first.get_current_head()
    own = Config()
    own.set_main_option("script_location", str(tmp_path))
    assert ScriptDirectory.from_config(own) is not first


def test_a_step_of_partitioned_assets_that_reads_others_runs_without_a_partition():
    months = dg.MonthlyPartitionsDefinition("2026-01-01", end_date="2026-04-01")
    above = dg.asset(name="above", partitions_def=months)(lambda: None)
    below = dg.asset(name="below", partitions_def=months, deps=[above])(lambda: None)
    dagster_internals.allow_runs_without_partition()
    with dg.DagsterInstance.ephemeral() as instance:
        assert dg.materialize([above], instance=instance).success
        assert dg.materialize([above, below], instance=instance, selection=[below]).success
        of_a_month = dg.materialize([above, below], instance=instance, partition_key="2026-02-01")
        assert of_a_month.asset_materializations_for_node("below")[0].partition == "2026-02-01"


def test_a_job_without_partitions_of_assets_that_have_some_runs_all_or_part_of_them_with_its_config():
    @dg.asset(partitions_def=dg.MonthlyPartitionsDefinition("2026-01-01"))
    def monthly(run_inputs: RunInputs) -> None:
        chosen.append(run_inputs.rebuild)

    @dg.asset(deps=[monthly])
    def whole() -> None: ...

    chosen: list[str] = []
    config = {"resources": {"run_inputs": {"config": {"rebuild": "all"}}}}
    job = dagster_internals.without_partitions(dg.define_asset_job("everything", config=config))
    dagster_internals.select_assets_of_unpartitioned_jobs()
    resources = {"run_inputs": RunInputs.configure_at_launch()}
    definitions = dg.Definitions([monthly, whole], jobs=[job], resources=resources)
    resolved = definitions.resolve_job_def("everything")
    assert resolved.partitions_def is None
    # The form that it opens on.
    assert resolved.run_config == config
    assert resolved.execute_in_process().success
    selected = resolved.get_subset(asset_selection={monthly.key})
    assert selected.execute_in_process(tags={"dagster/partition": "2026-02-01"}).success
    assert resolved.execute_in_process(run_config=config, asset_selection=[monthly.key]).success
    assert chosen == ["all"] * 3


def test_failed_run_carries_its_error_with_class_and_cause():
    @dg.asset
    def broken() -> None:
        raise ValueError("no such thing")

    with dg.DagsterInstance.ephemeral() as instance:
        dg.materialize([broken], instance=instance, raise_on_error=False)
        (run,) = instance.get_runs()
        (entry,) = instance.all_logs(run.run_id, of_type=dg.DagsterEventType.STEP_FAILURE)
    error = entry.dagster_event.step_failure_data.error
    assert isinstance(error, dagster_internals.SerializableErrorInfo)
    assert error.cause.cls_name == "ValueError" and "no such thing" in error.cause.message


def test_an_output_can_let_later_steps_begin_without_being_a_materialization():
    @dg.multi_asset(specs=[dg.AssetSpec("missing")])
    def missing():
        not_materialized = {dagster_internals.SYSTEM_METADATA_KEY_SOURCE_ASSET_OBSERVATION: True}
        yield dg.Output(None, "missing", metadata=not_materialized)

    @dg.asset(deps=["missing"])
    def follows() -> None: ...

    with dg.DagsterInstance.ephemeral() as instance:
        assert dg.materialize([missing, follows], instance=instance).success
        assert instance.get_latest_materialization_event(dg.AssetKey("missing")) is None
        assert instance.get_latest_materialization_event(dg.AssetKey("follows"))


def test_only_two_files_import_private_modules_of_dagster():
    private = [
        f"{path.relative_to(PROJECT_ROOT)}:{node.lineno}"
        for path in (PROJECT_ROOT / "serverless_assets").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("dagster._")
    ]
    assert {place.rpartition(":")[0] for place in private} == {
        "serverless_assets/dagster_internals.py",
        "serverless_assets/dagster_storage.py",
    }


def test_a_run_of_this_process_is_among_the_runs_of_its_job_in_its_code_location():
    job = dg.Definitions(assets=[dg.asset(name="a")(lambda: None)]).resolve_implicit_global_asset_job_def()
    with dg.DagsterInstance.ephemeral() as instance:
        dagster_internals.show_in_code_location(instance, "package.definitions", job.name)
        assert job.execute_in_process(instance=instance).success
        # What the UI asks for.
        (run,) = instance.get_runs(
            dg.RunsFilter(
                job_name=job.name, tags={".dagster/repository": "__repository__@package.definitions"}
            )
        )
    assert run.remote_job_origin
    assert run.remote_job_origin.job_name == job.name


def test_a_step_finds_out_once_which_assets_it_has(monkeypatch):
    dagster_internals.keep_asset_keys_of_steps()
    names, found = ["a", "b"], []
    find = dagster_internals._get_output_asset_keys
    monkeypatch.setattr(
        dagster_internals,
        "_get_output_asset_keys",
        lambda context: found.append(find(context)) or find(context),
    )

    @dg.multi_asset(
        specs=[dg.AssetSpec(name) for name in names],
        check_specs=[dg.AssetCheckSpec("sound", asset=name) for name in names],
    )
    def step():
        for name in names:
            yield dg.MaterializeResult(name)
            yield dg.AssetCheckResult(asset_key=name, check_name="sound", passed=True)

    with dg.DagsterInstance.ephemeral() as instance:
        assert dg.materialize([step], instance=instance).success
    assert found == [{dg.AssetKey("a"), dg.AssetKey("b")}]
