"""What a run leaves behind when it cannot begin, or cannot end: an asset of its own, in a real run."""

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from dagster import DagsterEventType as Type

from serverless_assets import metadata
from serverless_assets.publishing.around_run import around_run
from serverless_assets.publishing.local import LocalPublisher
from serverless_assets.publishing.outcome import PendingAssets
from serverless_assets.publishing.summary import read_summary
from serverless_assets.run_inputs import RunInputs

RUNS_KEPT = 2


@dg.asset(required_resource_keys={"publisher"})
def orders() -> dg.MaterializeResult:
    """An asset that writes nothing."""
    return dg.MaterializeResult(metadata=metadata.outcome("built", "new"))


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as found:
        yield found


def run(home: Path, instance: dg.DagsterInstance, *assets: dg.AssetsDefinition) -> dg.ExecuteInProcessResult:
    written = assets or (orders,)
    names = {key.to_user_string() for found in written for key in found.keys}
    release = around_run(LocalPublisher(home, "dwh"), lambda planned, choices, log: None, names, RUNS_KEPT)
    return dg.materialize(
        written,
        resources={"publisher": release, "run_inputs": RunInputs()},
        instance=instance,
        raise_on_error=False,
    )


def log_of(result: dg.ExecuteInProcessResult, instance: dg.DagsterInstance) -> str:
    return "\n".join(entry.user_message for entry in instance.all_logs(result.run_id))


def error_of(result: dg.ExecuteInProcessResult, instance: dg.DagsterInstance) -> str:
    """The failed run's error as the UI shows it, with its stack traces."""
    (failed,) = instance.all_logs(result.run_id, of_type=Type.RUN_FAILURE)
    return failed.dagster_event.job_failure_data.error.to_string()


def test_a_run_that_cannot_begin_for_an_unexpected_reason_says_so_in_its_summary_and_in_the_ui(
    tmp_path, instance
):
    (tmp_path / "work" / "lock").mkdir(parents=True)
    result = run(tmp_path, instance)
    assert not result.success
    summary = read_summary(tmp_path)
    assert (summary["run_id"], summary["success"], summary["published"]) == (result.run_id, False, False)
    sentence = (
        f"The file or folder at {tmp_path}/work/lock cannot be used: Is a directory. "
        "If it is SERVERLESS_HOME, or in there, choose another folder for that."
    )
    assert summary["assets"]["orders"] == {
        **summary["assets"]["orders"],
        "status": "failed",
        "reason": sentence,
    }
    assert sentence in error_of(result, instance)
    # What helps to find the fault: where it was raised.
    assert "IsADirectoryError" in error_of(result, instance)


def test_a_summary_that_cannot_be_written_is_an_error_in_the_log_and_hides_no_other(tmp_path, instance):
    (tmp_path / "work" / "lock").mkdir(parents=True)
    (tmp_path / "runs").write_text("a file where a folder should be")
    result = run(tmp_path, instance)
    assert "The run's summary, runs/latest.json, was not written: " in log_of(result, instance)
    assert f"{tmp_path}/work/lock cannot be used" in error_of(result, instance)


def test_a_successful_run_whose_summary_cannot_be_written_says_so(tmp_path, instance):
    (tmp_path / "runs").write_text("a file where a folder should be")
    result = run(tmp_path, instance)
    assert "The run's summary, runs/latest.json, was not written: " in log_of(result, instance)


def test_an_asset_that_failed_and_was_then_deleted_does_not_keep_others_from_publishing(tmp_path, instance):
    @dg.asset(required_resource_keys={"publisher"})
    def broken() -> None:
        raise dg.Failure("it is broken", allow_retries=False)

    assert not run(tmp_path, instance, orders, broken).success
    assert not read_summary(tmp_path)["published"]
    assert PendingAssets(tmp_path).read() == {"broken"}
    assert run(tmp_path, instance, orders).success
    assert read_summary(tmp_path)["published"]
    assert PendingAssets(tmp_path).read() == set()


def test_a_run_that_is_not_published_fails_in_dagster_too(tmp_path, instance):
    (tmp_path / "work").mkdir()
    PendingAssets(tmp_path).replace(["broken"])
    publisher = around_run(LocalPublisher(tmp_path, "dwh"), lambda *_: None, {"orders", "broken"}, RUNS_KEPT)
    resources = {"publisher": publisher, "run_inputs": RunInputs()}
    beside = dg.materialize([orders], resources=resources, instance=instance, raise_on_error=False)
    assert not beside.success
    assert error_of(beside, instance).startswith("Not published: an earlier run did not finish broken.")
    assert read_summary(tmp_path)["success"]


def test_before_the_first_publish_no_warehouse_is_named(tmp_path, instance):
    (tmp_path / "work" / "lock").mkdir(parents=True)
    run(tmp_path, instance)
    assert read_summary(tmp_path)["warehouse"] is None


def test_runs_beyond_those_to_keep_are_deleted_at_the_end_of_a_run(tmp_path, instance):
    runs = [run(tmp_path, instance).run_id for _ in range(4)]
    assert [found.run_id for found in instance.get_runs()] == runs[:1:-1]
