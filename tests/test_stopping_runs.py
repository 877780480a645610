"""Runs of the command line that are stopped, wait for another, or are killed."""

import logging
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
import pytest

from serverless_assets.instance import prepare_dagster_home
from serverless_assets.publishing.run_lock import RunLock, end_dead_runs

pytestmark = pytest.mark.slow

SERVERLESS = str(Path(sys.executable).with_name("serverless"))
OTHER_RUN = "0123456789"


@pytest.fixture
def home(tmp_path, monkeypatch):
    # `prepare_dagster_home` sets it for this process, too.
    monkeypatch.setenv("DAGSTER_HOME", "")
    return tmp_path / "home"


@pytest.fixture
def another_run(home):
    """Another run at work in the home: this process."""
    lock = RunLock(home / "work", OTHER_RUN, logging.getLogger("test"))
    yield
    lock.release()


@contextmanager
def running(home: Path, **variables: str) -> Iterator[subprocess.Popen[str]]:
    environ = {**os.environ, "SERVERLESS_HOME": str(home), "SERVERLESS_DATASET_URL": "http://127.0.0.1:9"}
    with subprocess.Popen(
        [SERVERLESS, "run", "ingest", "--rebuild"],
        env={**environ, **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        yield process
        process.kill()


def read_until(process: subprocess.Popen[str], words: str) -> str:
    """The first line that has the words."""
    assert process.stdout
    lines = []
    for line in process.stdout:
        lines.append(line)
        if words in line:
            return line
    raise AssertionError("".join(lines))


@contextmanager
def the_run(home: Path) -> Iterator[tuple[dg.DagsterInstance, dg.DagsterRun]]:
    with dg.DagsterInstance.from_config(str(prepare_dagster_home(home, 7200))) as instance:
        [run] = instance.get_runs()
        yield instance, run


def test_a_run_that_waits_names_the_process_it_waits_for_and_ends_on_sigterm(home, another_run):
    with running(home) as process:
        waiting = read_until(process, "Waiting for")
        assert f"Waiting for run {OTHER_RUN[:8]}, process {os.getpid()} on " in waiting
        process.terminate()
        output, _ = process.communicate()
    assert process.returncode == 128 + signal.SIGTERM, output
    assert re.sub(r"[\d.]+ s", "n s", output).splitlines()[-2:] == [
        "Stopped by SIGTERM after n s, before the first step. Nothing was changed.",
        "`serverless run ingest --rebuild` starts it again.",
    ]
    assert "Traceback" not in output
    with the_run(home) as (_, run):
        assert run.status == dg.DagsterRunStatus.CANCELED


def test_a_run_that_is_stopped_in_a_step_is_canceled(home):
    with socket.create_server(("127.0.0.1", 0)) as silent_source:
        url = f"http://127.0.0.1:{silent_source.getsockname()[1]}"
        with running(home, SERVERLESS_DATASET_URL=url) as process:
            silent_source.accept()
            # As Ctrl-C in a terminal does, to all processes of the run.
            os.killpg(process.pid, signal.SIGINT)
            output, _ = process.communicate()
    assert process.returncode == 128 + signal.SIGINT, output
    assert re.sub(r"[\d.]+ s", "n s", output).splitlines()[-3:] == [
        "",
        "Stopped by Ctrl-C after n s. Nothing was published. What was published before stays as it is.",
        "Nothing of it was finished: `serverless run ingest --rebuild` starts it again.",
    ]
    assert "failed" not in output
    with the_run(home) as (_, run):
        assert run.status == dg.DagsterRunStatus.CANCELED


def test_a_run_is_stopped_at_its_deadline(home, another_run):
    with running(home, SERVERLESS_RUN_DEADLINE="1") as process:
        output, _ = process.communicate()
    assert process.returncode == 1
    assert "Stopped because it took longer than SERVERLESS_RUN_DEADLINE, 1 s" in output
    assert "Traceback" not in output


def test_a_run_whose_process_was_killed_is_marked_as_failed_and_no_sooner(home, another_run):
    with running(home) as process:
        read_until(process, "Waiting for")
        with the_run(home) as (instance, run):
            assert end_dead_runs(home, instance) == []
            assert not run.is_finished
        process.kill()
        process.wait()
        with the_run(home) as (instance, _):
            [sentence] = end_dead_runs(home, instance)
            assert f"process {process.pid} on " in sentence
            assert end_dead_runs(home, instance) == []
    with the_run(home) as (_, run):
        assert run.status == dg.DagsterRunStatus.FAILURE
