"""What a step makes of an error: a sentence, and another try only where that may help."""

import sqlite3

import dagster as dg
import pytest

from serverless_assets import failures
from serverless_assets.automation.sensors import first_error
from serverless_assets.cli.progress import Progress
from serverless_assets.errors import UserError
from serverless_assets.failures import RETRIES, as_failure, seconds_to_wait
from serverless_assets.publishing.outcome import failure_sentence_of


class Outage(UserError):
    transient = True


class Step:
    """A step that raises these errors, one an attempt, and then succeeds."""

    def __init__(self, *errors: Exception) -> None:
        self.errors, self.attempts = errors, 0

    def run(self, instance: dg.DagsterInstance) -> dg.ExecuteInProcessResult:
        @dg.op
        def step() -> None:
            self.attempts += 1
            if self.attempts <= len(self.errors):
                with as_failure():
                    raise self.errors[self.attempts - 1]

        @dg.job(executor_def=dg.in_process_executor)
        def job() -> None:
            step()

        return job.execute_in_process(instance=instance, raise_on_error=False)


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch):
    monkeypatch.setattr(failures, "FIRST_PAUSE_SECONDS", 0.01)


def test_what_may_pass_is_tried_again(tmp_path):
    step = Step(Outage("The server is away."), Outage("The server is away."))
    with dg.instance_for_test() as instance:
        result = step.run(instance)
        assert result.success
        lines: list[str] = []
        for entry in instance.all_logs(result.run_id):
            Progress(tmp_path, lines.append)(entry)
    assert step.attempts == 3
    assert [line.endswith("s again: The server is away.") for line in lines if "again" in line] == [
        True,
        True,
    ]


def test_after_the_last_attempt_people_read_what_was_wrong():
    step = Step(*[Outage("The server is away.")] * 9)
    with dg.instance_for_test() as instance:
        result = step.run(instance)
        assert not result.success
        assert first_error(instance, result.run_id) == "The server is away."
        [failed] = instance.all_logs(result.run_id, of_type=dg.DagsterEventType.STEP_FAILURE)
        assert failure_sentence_of(failed.dagster_event) == "The server is away."
    assert step.attempts == 1 + RETRIES


@pytest.mark.parametrize("error", [UserError("There is no such table."), ZeroDivisionError("a fault")])
def test_what_does_not_pass_is_not_tried_again(error):
    step = Step(error)
    with dg.instance_for_test() as instance:
        result = step.run(instance)
        assert not result.success
        assert str(error) in first_error(instance, result.run_id)
    assert step.attempts == 1


@pytest.mark.parametrize(("attempts_before", "shortest", "longest"), [(0, 20, 30), (1, 40, 60), (2, 80, 120)])
def test_pauses_grow_and_differ_from_run_to_run(attempts_before, shortest, longest, monkeypatch):
    monkeypatch.setattr(failures, "FIRST_PAUSE_SECONDS", 20.0)
    assert seconds_to_wait(attempts_before, chance=0) == shortest
    assert seconds_to_wait(attempts_before, chance=1) == longest


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (
            OSError(28, "No space left on device"),
            "The disk is full: No space left on device. Free space there",
        ),
        (OSError(28, "No space left on device", "/data/x"), "The disk is full at /data/x: No space left"),
        # DuckDB's has the query below, and carets below that.
        (
            ValueError(
                'Binder Error: no column "region"\nCandidates: "regions"\n\nLINE 1: select region\n   ^^'
            ),
            'Binder Error: no column "region" Candidates: "regions"',
        ),
        (sqlite3.OperationalError("disk I/O error"), "Dagster's history cannot be read or written: the disk"),
    ],
)
def test_an_error_of_several_lines_or_of_the_machine_is_said_in_a_sentence_also_of_a_step(error, sentence):
    with dg.instance_for_test() as instance:
        result = Step(error).run(instance)
        [failed] = instance.all_logs(result.run_id, of_type=dg.DagsterEventType.STEP_FAILURE)
        assert failure_sentence_of(failed.dagster_event).startswith(sentence)
