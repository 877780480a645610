"""A dead run is told from a live one by the lock of its file, and by nothing else."""

import dagster as dg
import pytest
from dagster import DagsterRunStatus
from dagster._core.events import StepMaterializationData
from dagster._core.execution.plan.objects import StepSuccessData

from serverless_assets.publishing.run_lock import RunProcess, end_dead_runs, registered

RUN = "0a1b2c3d-0000-4000-8000-000000000000"


@pytest.fixture
def instance():
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


def begin(
    instance: dg.DagsterInstance, status: DagsterRunStatus = DagsterRunStatus.STARTED, **choices: str
) -> None:
    config = {"resources": {"run_inputs": {"config": choices}}}
    instance.add_run(dg.DagsterRun(job_name="ingest", run_id=RUN, status=status, run_config=config))


def die(home) -> None:
    """What a killed process leaves: its file, without a lock."""
    (home / "running").mkdir()
    (home / "running" / f"{RUN}.json").write_text(RunProcess(RUN, 1, "host", "yesterday").as_json())


def status(instance: dg.DagsterInstance) -> DagsterRunStatus:
    run = instance.get_run_by_id(RUN)
    assert run
    return run.status


def test_a_run_whose_process_died_fails_with_a_sentence_that_names_the_process(instance, tmp_path):
    begin(instance)
    die(tmp_path)
    [sentence] = end_dead_runs(tmp_path, instance)
    assert "Run 0a1b2c3d of ingest, begun yesterday, has died: its process 1 on host" in sentence
    assert sentence.endswith(
        "None of its steps was finished: the next `serverless run` does what is left to do."
    )
    assert status(instance) == DagsterRunStatus.FAILURE
    assert list((tmp_path / "running").iterdir()) == []


def test_a_run_that_died_before_a_rollback_says_that_its_work_is_dropped(instance, tmp_path):
    begin(instance)
    die(tmp_path)
    [sentence] = end_dead_runs(tmp_path, instance, is_dropped=True)
    assert sentence.endswith(
        "Its unfinished work is dropped: the next `serverless run` starts from what is published."
    )


def test_a_rebuild_that_died_names_what_its_finished_steps_made_and_how_to_start_it_again(instance, tmp_path):
    begin(instance, rebuild="all")

    def report(event: str, step: str, data: object) -> None:
        instance.report_dagster_event(
            dg.DagsterEvent(event, "ingest", step_key=step, event_specific_data=data), RUN
        )

    for step, asset in (("ingestion", "raw_stores"), ("transformation", "orders")):
        report("ASSET_MATERIALIZATION", step, StepMaterializationData(dg.AssetMaterialization(asset)))
    die(tmp_path)
    # dbt may have built a model and not tested it.
    report("STEP_SUCCESS", "ingestion", StepSuccessData(1.0))
    [sentence] = end_dead_runs(tmp_path, instance)
    assert sentence.endswith(
        "What its finished steps made is kept (raw_stores): the next `serverless run` does the rest, and "
        "publishes all of it. "
        "Its rebuild is not complete: `serverless run --rebuild` builds everything again."
    )


def test_a_run_that_was_being_canceled_when_its_process_died_is_canceled(instance, tmp_path):
    begin(instance, DagsterRunStatus.CANCELING)
    die(tmp_path)
    assert len(end_dead_runs(tmp_path, instance)) == 1
    assert status(instance) == DagsterRunStatus.CANCELED


def test_a_run_without_a_file_may_run_elsewhere_or_be_about_to_start(instance, tmp_path):
    begin(instance)
    assert end_dead_runs(tmp_path, instance) == []
    assert status(instance) == DagsterRunStatus.STARTED


def test_a_registered_run_is_alive_and_leaves_no_file(instance, tmp_path):
    begin(instance)
    with registered(tmp_path, RUN), registered(tmp_path, RUN):
        assert end_dead_runs(tmp_path, instance) == []
    assert status(instance) == DagsterRunStatus.STARTED
    assert list((tmp_path / "running").iterdir()) == []


def test_a_run_that_was_over_when_its_process_died_stays_as_it_is(instance, tmp_path):
    begin(instance, DagsterRunStatus.SUCCESS)
    die(tmp_path)
    assert end_dead_runs(tmp_path, instance) == []
    assert status(instance) == DagsterRunStatus.SUCCESS
    assert list((tmp_path / "running").iterdir()) == []


def test_a_file_that_a_full_disk_left_empty_is_that_of_a_dead_run_as_well(instance, tmp_path):
    begin(instance)
    die(tmp_path)
    (tmp_path / "running" / f"{RUN}.json").write_text("")
    [sentence] = end_dead_runs(tmp_path, instance)
    assert "has died: its process was killed" in sentence
