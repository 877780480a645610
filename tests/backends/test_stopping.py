"""Runs that are stopped by Ctrl-C while BigQuery or Modal takes a request and answers nothing."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path

import pytest

from serverless_assets.project_root import PROJECT_ROOT
from tests.backends.conftest import Google
from tests.backends.small_shop import SmallShop, serve_shop
from tests.backends.watched import is_swap, is_upload
from tests.conftest import Pipeline
from tests.services.modal.harness import Server
from tests.services.proxy import Answer, Asked, proxy

pytestmark = pytest.mark.gcp

SERVERLESS = str(Path(sys.executable).with_name("serverless"))
# A run that is stopped ends in 10 s, and here in more, as the machine has other things to do. A call that is
# waited for ends after 60 s, and is then tried again.
SECONDS = 40


def is_a_model(request: Asked) -> bool:
    return is_swap(request) and b"create or replace view" in request.body


def is_of_the_publish(request: Asked) -> bool:
    return is_swap(request) and b"serverless_kept_" in request.body


@contextmanager
def run(*words: str, **variables: str) -> Iterator[subprocess.Popen[str]]:
    """A command in a process of its own, which is ended in any case, with those that it started."""
    with subprocess.Popen(
        [SERVERLESS, "run", *words],
        env={**os.environ, **variables},
        cwd=PROJECT_ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)


def stop(process: subprocess.Popen[str], times: int) -> str:
    """Press Ctrl-C, which reaches all processes of the run, so many times; what it then says."""
    for number in range(times):
        if number:
            time.sleep(1)
        os.killpg(process.pid, signal.SIGINT)
    output, _ = process.communicate(timeout=SECONDS)
    assert process.returncode == 128 + signal.SIGINT, output
    assert "Traceback" not in output, output
    return output


@pytest.mark.parametrize(
    ("job", "is_silent_at", "times"),
    [
        ("ingest", lambda request: True, 1),
        ("ingest", lambda request: True, 2),
        ("ingest", is_upload, 2),
        ("ingest", is_of_the_publish, 1),
        ("transform", is_a_model, 2),
    ],
    ids=["first request, once", "first request, twice", "load, twice", "publish, once", "model, twice"],
)
def test_a_run_ends_on_ctrl_c_while_bigquery_is_silent(
    google: Google, tmp_path: Path, job: str, is_silent_at: Callable[[Asked], bool], times: int
) -> None:
    is_asked, has_ended = threading.Event(), threading.Event()

    def be_silent(request: Asked) -> Answer | None:
        if is_asked.is_set() or is_silent_at(request):
            is_asked.set()
            has_ended.wait()
        return None

    shop = SmallShop(end=date(2026, 8, 31))
    with serve_shop(lambda: shop) as url, proxy(google.bigquery.url) as bigquery:
        variables = {
            "SERVERLESS_ENV": "gcp",
            "SERVERLESS_COMPUTE": "subprocess",
            "SERVERLESS_HOME": str(tmp_path / "home"),
            "SERVERLESS_BUCKET": "silent",
            "SERVERLESS_DATASET_URL": url,
            "SERVERLESS_FIRST_MONTH": "2026-07",
            "DBT_SCHEMA": f"silent_{os.path.basename(tmp_path)}",
        }
        if job != "ingest":
            with run("ingest", **variables) as process:
                assert process.communicate()[0] and process.returncode == 0
        bigquery.instead = be_silent
        try:
            with run(job, **variables, BIGQUERY_EMULATOR_HOST=bigquery.url) as process:
                while not is_asked.wait(1):
                    assert process.poll() is None, process.communicate()[0]
                assert "Stopped by Ctrl-C" in stop(process, times)
        finally:
            has_ended.set()


@pytest.mark.parametrize("times", [1, 2], ids=["once", "twice"])
def test_a_run_ends_on_ctrl_c_while_modal_is_silent(pipeline: Pipeline, modal: Server, times: int) -> None:
    variables = {**pipeline.variables, "SERVERLESS_HOME": str(pipeline.home), "SERVERLESS_COMPUTE": "modal"}
    with run("forecast", "--rebuild", **variables) as process:
        assert process.stdout
        said = []
        for line in process.stdout:
            said.append(line)
            if "started with" in line:
                break
        else:
            raise AssertionError("".join(said))
        os.kill(modal.pid, signal.SIGSTOP)
        try:
            assert "Stopped by Ctrl-C" in stop(process, times)
        finally:
            os.kill(modal.pid, signal.SIGCONT)
    # It could not be told to stop its call, which goes on by itself.
    modal.wait_finished(modal.forecast_calls()[-1], timeout=120)
