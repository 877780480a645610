"""Runs that fail, and recover, are reported once each, by real runs and real ticks over a real webhook."""

from dataclasses import dataclass, field, replace
from typing import Any

import dagster as dg
import pytest
from dagster import DagsterRunStatus
from dagster._core.storage.dagster_run import DagsterRun
from dagster._core.storage.tags import ROOT_RUN_ID_TAG, WILL_RETRY_TAG

from serverless_assets.automation.alerts import NOT_SET, Alerts, tick_text
from serverless_assets.automation.sensors import made_good, run_sensor
from serverless_assets.names import REFUSED_TAG
from tests.automation.hook import Hook

SUCCESS, FAILURE = DagsterRunStatus.SUCCESS, DagsterRunStatus.FAILURE


@dg.op(config_schema={"broken": bool})
def work(context: dg.OpExecutionContext) -> None:
    if context.op_config["broken"]:
        raise dg.Failure("GET https://ann:hunter2@x.org/t?key=1 answered 500.", allow_retries=False)


@dg.job
def a_job() -> None:
    work()


@dg.job
def another_job() -> None:
    work()


def config(broken: bool) -> dict[str, Any]:
    return {"ops": {"work": {"config": {"broken": broken}}}}


@dataclass
class World:
    """Jobs that run as they are told to, and both sensors."""

    instance: dg.DagsterInstance
    alerts: Alerts
    cursors: dict[str, str | None] = field(default_factory=dict)

    def run(self, broken: bool, job: dg.JobDefinition = a_job, **tags: str) -> str:
        result = job.execute_in_process(
            config(broken), instance=self.instance, tags=tags, raise_on_error=False
        )
        assert result.success is not broken
        return result.run_id

    def tick(self) -> str:
        """What both say."""
        return " ".join([self.look("run_failed"), self.look("recovered")])

    def look(self, name: str) -> str:
        context = dg.build_sensor_context(self.instance, self.cursors.get(name))
        data = run_sensor(name, self.alerts).evaluate_tick(context)
        self.cursors[name] = data.cursor
        assert not data.run_requests
        return str(data.skip_message)


@pytest.fixture
def world(instance: dg.DagsterInstance, webhook: Hook) -> World:
    return World(instance, webhook.alerts)


def test_a_failure_is_told_once_and_its_recovery_once(world, webhook):
    assert world.tick() == "Watching from now on. Watching from now on."
    failed = world.run(broken=True)
    said = [world.tick() for _ in range(2)]
    assert said == [
        f"Run {failed[:8]} of a_job failed: an alert was sent. Nothing to report.",
        "Nothing to report. Nothing to report.",
    ]
    well = world.run(broken=False)
    assert "a_job has recovered after 1 min: an alert was sent." in world.tick()
    world.run(broken=False)
    assert world.tick() == "Nothing to report. Nothing to report."
    assert [(told["kind"], told["run_id"]) for told in webhook.told] == [
        ("run_failed", failed),
        ("recovered", well),
    ]
    alert = webhook.told[0]
    assert (alert["title"], alert["job"]) == ("a_job failed", "a_job")
    assert alert["sentence"] == "GET https://x.org/t answered 500."
    assert alert["link"] == f"http://ui.example/runs/{failed}"


def test_what_failed_before_anybody_watched_is_not_told(world, webhook):
    world.run(broken=True)
    assert world.tick() == "Watching from now on. Watching from now on."
    assert "Nothing to report." in world.tick() and not webhook.told


def test_each_failure_is_told_and_the_recovery_says_how_many_there_were(world, webhook):
    world.tick()
    runs = [world.run(broken=True), world.run(broken=True)]
    world.tick()
    world.run(broken=False)
    world.tick()
    assert webhook.kinds == ["run_failed", "run_failed", "recovered"]
    assert [told["run_id"] for told in webhook.told[:2]] == runs
    assert webhook.told[2]["sentence"].endswith("It was broken for 1 min. 2 runs had failed.")


def test_a_webhook_that_is_away_loses_nothing_and_has_nothing_twice(world, webhook):
    world.tick()
    runs = [world.run(broken=True) for _ in range(3)]
    webhook.answers = [200, 500, 500, 500]
    assert "answered 500" in world.tick()
    assert [told["run_id"] for told in webhook.told] == runs[:1]
    world.tick()
    assert [told["run_id"] for told in webhook.told] == runs


def test_without_a_webhook_nothing_waits_for_one(world, webhook):
    told = world.alerts
    world.alerts = replace(told, webhook=None)
    world.tick()
    run_id = world.run(broken=True)
    tick = world.tick()
    assert NOT_SET in tick
    # What the webhook would have brought: the error and the run.
    assert f"Run {run_id[:8]} of a_job failed: GET " in tick
    world.alerts = told
    assert world.tick() == "Nothing to report. Nothing to report." and not webhook.told


def test_a_tick_is_short_whatever_there_is_to_say_and_its_outcome_is_in_it(world, webhook):
    long = "raw_orders: the source answered nothing. " * 20
    for outcome in ("", NOT_SET, "An alert was sent."):
        tick = tick_text(long, outcome)
        assert len(tick) == 200 and tick.endswith(f"… {outcome}".rstrip())
    world.tick()
    for _ in range(3):
        world.run(broken=True)
    tick = world.look("run_failed")
    assert tick.endswith("an alert was sent. And 2 more: see the log of this tick.") and len(tick) <= 200
    assert webhook.kinds == ["run_failed"] * 3


def test_a_run_that_was_refused_for_its_run_config_is_no_alert(world, webhook):
    world.tick()
    refused = world.run(broken=True, **{REFUSED_TAG: "run config"})
    assert f"Run {refused[:8]} was refused for its run config" in world.tick()
    world.run(broken=False)
    assert world.tick() == "Nothing to report. Nothing to report." and not webhook.told


def test_another_job_makes_nothing_good(world, webhook):
    world.tick()
    world.run(broken=True)
    world.run(broken=False, job=another_job)
    world.tick()
    assert webhook.kinds == ["run_failed"]


def test_a_run_that_dagster_tries_again_is_told_only_if_that_fails(world, webhook):
    world.tick()
    first = world.run(broken=True, **{WILL_RETRY_TAG: "true"})
    assert f"Run {first[:8]} failed and is retried: no alert was sent." in world.tick()
    world.run(broken=False, **{ROOT_RUN_ID_TAG: first})
    assert world.tick() == "Nothing to report. Nothing to report." and not webhook.told


def test_a_run_that_was_cancelled_is_no_alert(world, webhook):
    world.tick()
    run = world.instance.create_run_for_job(a_job, run_config=config(broken=True))
    world.instance.report_run_canceled(run)
    world.run(broken=False)
    assert world.tick() == "Nothing to report. Nothing to report." and not webhook.told


def run(status: DagsterRunStatus, *assets: str, **tags: str) -> DagsterRun:
    """A run of the whole job, or of some of its assets."""
    selection = frozenset(dg.AssetKey(asset) for asset in assets) or None
    return DagsterRun(job_name="all", status=status, asset_selection=selection, tags=tags)


def test_a_run_makes_good_what_it_covers_and_nothing_did_before():
    whole, part, other = run(FAILURE), run(FAILURE, "a"), run(FAILURE, "b")
    assert made_good(run(SUCCESS), [whole, part]) == [whole, part]
    assert made_good(run(SUCCESS, "a"), [whole, part, other]) == [part]
    assert made_good(run(SUCCESS, "a", "b"), [part, run(SUCCESS, "a"), other]) == [part, other]
    assert made_good(run(SUCCESS), [run(SUCCESS, "a"), part]) == []
    assert made_good(run(SUCCESS), [run(SUCCESS), whole]) == []


def test_a_re_execution_from_the_failure_makes_the_whole_run_good():
    failed = run(FAILURE)
    again = run(SUCCESS, "a", **{ROOT_RUN_ID_TAG: failed.run_id})
    assert made_good(again, [failed]) == [failed]
