"""Loading the code location, as `dagster`, `dg` and the UI do."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from serverless_assets.project_root import PROJECT_ROOT

# What takes long to import: of no use to a command that looks into no history and builds no model, and to a
# run without a model to build, on a laptop.
NOT_TO_LOOK = ("alembic", "dagster_dbt", "grpc", "sqlalchemy", "sqlglot", "uvicorn")
NOT_TO_REUSE = ("dbt.version", "pandas", "modal", "google.cloud.bigquery", "google.cloud.storage")
LOAD = f"""
import sys, serverless_assets.automation.plan, serverless_assets.cli.doctor, serverless_assets.cli.why
from serverless_assets.environments import environment
from serverless_assets.settings import Settings
environment(Settings.from_environ()).python_assets
print([name for name in {NOT_TO_LOOK + NOT_TO_REUSE} if name in sys.modules])
import serverless_assets.cli.run
from serverless_assets.definitions import defs
defs()
print([name for name in {NOT_TO_REUSE} if name in sys.modules])
"""


def test_the_definitions_load_without_a_warning_and_import_what_they_use(empty):
    loading = subprocess.run(
        [sys.executable, "-c", LOAD],
        env={**os.environ, **empty.variables, "SERVERLESS_HOME": str(empty.home)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (loading.returncode, loading.stderr, loading.stdout) == (0, "", "[]\n[]\n")


@pytest.mark.slow
@pytest.mark.parametrize("words", [["check", "defs"], ["list", "defs"]], ids=" ".join)
def test_dg_prints_no_warning(tmp_path, words):
    ended = subprocess.run(
        [Path(sys.executable).with_name("dg"), *words],
        cwd=PROJECT_ROOT,
        env={**os.environ, "SERVERLESS_HOME": str(tmp_path), "DAGSTER_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stderr
    assert "Warning" not in ended.stdout + ended.stderr
