"""Runs that write to one warehouse take turns; a what-if waits for none, and publishes nothing."""

import logging

import pytest

from serverless_assets.publishing.run_lock import RunLock
from tests.ui.client import published


@pytest.fixture(scope="module")
def before(ui, nothing_pending):
    return published(ui.home)


@pytest.fixture(scope="module")
def runs(ui, before):
    """Two runs of the pipeline, launched at once."""
    launched = {"first": ui.launch(), "second": ui.launch()}
    assert {ui.status_at_the_end(run_id) for run_id in launched.values()} == {"SUCCESS"}
    return {name: {"id": run_id, **ui.run(run_id)} for name, run_id in launched.items()}


def test_two_runs_of_the_pipeline_never_run_at_the_same_time(runs):
    earlier, later = sorted((runs["first"], runs["second"]), key=lambda run: run["startTime"])
    assert earlier["endTime"] <= later["startTime"]


def test_a_what_if_beside_a_run_at_work_publishes_nothing_and_leaves_its_report(ui, before):
    run_at_work = RunLock(ui.home / "work", "a-run", logging.getLogger())
    try:
        what_if = ui.launch("what_if_forecast")
        assert ui.status_at_the_end(what_if) == "SUCCESS"
    finally:
        run_at_work.release()
    assert published(ui.home) == before
    assert (ui.home / "what-if" / f"{what_if}.html").exists()
