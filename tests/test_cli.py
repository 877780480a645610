import os
import subprocess
import sys
from pathlib import Path

import pytest

SERVERLESS = str(Path(sys.executable).with_name("serverless"))


def serverless(*words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [SERVERLESS, *words], env={**os.environ, **variables}, capture_output=True, text=True
    )


@pytest.fixture
def home(tmp_path: Path) -> dict[str, str]:
    return {"SERVERLESS_HOME": str(tmp_path / "home")}


def test_an_unknown_environment_is_refused_with_those_that_are_known(home):
    refused = serverless("run", SERVERLESS_ENV="staging", **home)
    assert refused.returncode == 1
    assert "SERVERLESS_ENV is 'staging'" in refused.stderr
    assert "Known: gcp, local" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_an_unknown_job_is_refused_with_those_that_there_are(home):
    refused = serverless("run", "everything", **home)
    assert refused.returncode == 1
    assert "serverless_pipeline, ingest, transform, forecast" in refused.stderr


def test_a_run_config_that_makes_no_sense_is_refused_before_the_run(home, tmp_path):
    config = tmp_path / "config.yaml"
    config.write_text('resources: {run_inputs: {config: {forecast: {run: {cpu: "3.0"}}}}}')
    refused = serverless("run", "--config", str(config), **home)
    assert refused.returncode == 1
    assert "cpu" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_a_run_ends_with_a_summary_and_a_failed_one_is_gone_on_with(home):
    failed = serverless("run", "ingest", SERVERLESS_DATASET_URL="http://127.0.0.1:9", **home)
    assert failed.returncode == 1
    assert "Failed in" in failed.stdout
    assert "--resume" in failed.stdout
    resumed = serverless("run", "--resume", **home)
    assert resumed.returncode == 0, resumed.stdout + resumed.stderr
    assert "Succeeded in" in resumed.stdout
    assert "6 built" in resumed.stdout
    again = serverless("run", "--resume", **home)
    assert "nothing to resume" in again.stderr


def test_clean_leaves_a_folder_alone_that_it_did_not_make(tmp_path):
    (tmp_path / "precious.txt").write_text("mine")
    refused = serverless("clean", "--yes", SERVERLESS_HOME=str(tmp_path))
    assert refused.returncode == 1
    assert (tmp_path / "precious.txt").exists()
