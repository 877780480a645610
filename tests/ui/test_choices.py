"""The Dagster UI as people use it: `serverless ui`, its GraphQL, and its pages in a real browser."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import duckdb
import pytest
import requests
from requests.adapters import HTTPAdapter
from urllib3.util.retry import Retry

from tests.conftest import SAMPLE_END

CHROMIUM = shutil.which("chromium")
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on PATH: the pages were not opened")

CONFIG_IS_VALID = """
query ($config: RunConfigData!) {
  isPipelineConfigValid(
    pipeline: {pipelineName: "serverless_pipeline", repositoryName: "__repository__",
               repositoryLocationName: "serverless_assets.definitions"}
    mode: "default", runConfigData: $config
  ) { __typename ... on RunConfigValidationInvalid { errors { message } } }
}
"""


LAUNCH = """
mutation ($config: RunConfigData!) {
  launchRun(executionParams: {
    selector: {jobName: "serverless_pipeline", repositoryName: "__repository__",
               repositoryLocationName: "serverless_assets.definitions"}
    runConfigData: $config
  }) { __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message } }
}
"""
RUN_STATUS = "query ($id: ID!) { runOrError(runId: $id) { ... on Run { status } } }"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("ui") / "home"


@pytest.fixture(scope="module")
def ui(home):
    port = free_port()
    process = subprocess.Popen(
        [Path(sys.executable).with_name("serverless"), "ui", "--port", str(port)],
        env={
            **os.environ,
            "SERVERLESS_HOME": str(home),
            "SERVERLESS_SAMPLE_END": SAMPLE_END,
        },
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
    )  # fmt: skip
    said = []
    for line in process.stdout:
        said.append(line)
        if "Serving dagster-webserver" in line:
            break
    else:
        pytest.fail("the UI did not start:\n" + "".join(said))
    drain = threading.Thread(target=process.stdout.read, daemon=True)
    drain.start()
    url = f"http://127.0.0.1:{port}"
    # The line is printed a moment before the socket takes connections.
    with requests.Session() as session:
        session.mount("http://", HTTPAdapter(max_retries=Retry(connect=20, backoff_factor=0.1)))
        session.get(f"{url}/server_info", timeout=60).raise_for_status()
    yield url
    # Its own session, so that this ends Dagster's processes too; a script's background jobs ignore Ctrl-C.
    os.killpg(process.pid, signal.SIGTERM)
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def ask(ui: str, query: str, **variables: object) -> dict:
    answer = requests.post(f"{ui}/graphql", json={"query": query, "variables": variables}, timeout=60).json()
    return answer["data"]


def is_launchable(ui: str, run_inputs: dict) -> tuple[bool, str]:
    config = {"resources": {"run_inputs": {"config": run_inputs}}}
    found = ask(ui, CONFIG_IS_VALID, config=config)["isPipelineConfigValid"]
    errors = " ".join(error["message"] for error in found.get("errors", []))
    return found["__typename"] == "PipelineConfigValidationValid", errors


@pytest.mark.parametrize(
    "run_inputs",
    [
        {},
        {"ingestion": {"reuse": {}}, "forecast": {"skip": {}}},
        {"forecast": {"run": {"cpu": "2.0", "memory": "512", "style": {"default": {}}}}},
        {"forecast": {"run": {"style": {"customised": {"color_history": "teal", "nr_days_fcst": 30}}}}},
        {"ingestion": {"reload": {"dataset_url": "https://example.com/data"}}},
    ],
)
def test_the_launchpad_takes_choices_that_make_sense(ui, run_inputs):
    assert is_launchable(ui, run_inputs) == (True, "")


@pytest.mark.parametrize(
    ("run_inputs", "named"),
    [
        ({"forecast": {"run": {"cpu": "3.0"}}}, "cpu"),
        ({"forecast": {"run": {"memory": "300"}}}, "memory"),
        ({"forecast": {"run": {"style": {"default": {"color_history": "red"}}}}}, "color_history"),
        ({"forecast": {"skip": {"cpu": "1.0"}}}, "cpu"),
        ({"forecast": {"run": {}, "skip": {}}}, "forecast"),
        ({"ingestion": {"reuse": {"dataset_url": "http://x"}}}, "dataset_url"),
        ({"forecast": {"run": {"style": {"customised": {"nr_days_fcst": "many"}}}}}, "nr_days_fcst"),
    ],
)
def test_the_launchpad_refuses_choices_that_do_not(ui, run_inputs, named):
    launchable, errors = is_launchable(ui, run_inputs)
    assert not launchable
    assert named in errors


def test_a_run_launched_from_the_launchpad_makes_what_was_chosen(ui, home):
    style = {"color_history": "teal", "color_prediction": "#ff8800", "nr_days_fcst": 30}
    run_inputs = {"forecast": {"run": {"cpu": "2.0", "memory": "512", "style": {"customised": style}}}}
    launched = ask(ui, LAUNCH, config={"resources": {"run_inputs": {"config": run_inputs}}})["launchRun"]
    assert launched["__typename"] == "LaunchRunSuccess", launched
    assert status_at_the_end(ui, launched["run"]["runId"]) == "SUCCESS"
    with duckdb.connect(str(home / "warehouse.duckdb"), read_only=True) as connection:
        assert connection.execute("select count(*) from dwh.order_forecast").fetchone() == (30,)
    html = (home / "artifacts" / "forecast.html").read_text()
    assert "teal" in html
    assert "#ff8800" in html


def status_at_the_end(ui: str, run_id: str) -> str:
    """Ask until the run is over, as the UI does."""
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        status = ask(ui, RUN_STATUS, id=run_id)["runOrError"]["status"]
        if status in ("SUCCESS", "FAILURE", "CANCELED"):
            return str(status)
        time.sleep(0.5)
    return "not over after 300 s"


@pytest.fixture(scope="module")
def page(ui):
    sync_api = pytest.importorskip("playwright.sync_api")
    arguments = [
        "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
        "--disable-background-networking", "--no-first-run",
    ]  # fmt: skip
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield browser.new_page(viewport={"width": 1600, "height": 1000})
        browser.close()


@needs_browser
def test_the_asset_graph_shows_the_layers_in_a_browser(ui, page):
    page.goto(f"{ui}/asset-groups")
    for group in ("ingestion", "staging", "marts", "aggregations", "forecasting"):
        page.get_by_text(group, exact=True).first.wait_for(timeout=60_000)
    _picture(page, "asset-graph")


@needs_browser
def test_the_launchpad_opens_on_a_form_that_is_filled_in(ui, page):
    page.goto(f"{ui}/locations/serverless_assets.definitions/jobs/serverless_pipeline/playground")
    page.get_by_text("run_inputs").first.wait_for(timeout=60_000)
    page.get_by_text("Launch Run").first.wait_for(timeout=60_000)
    assert "memory" in page.locator(".CodeMirror").first.inner_text()
    _picture(page, "launchpad")


def _picture(page, name: str) -> None:
    """Keep a picture if somebody asked for them, as for the README."""
    folder = os.environ.get("PICTURES")
    if folder:
        page.wait_for_load_state("networkidle")
        page.screenshot(path=Path(folder) / f"{name}.png")
