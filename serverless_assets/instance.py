"""The Dagster instance of this project: DAGSTER_HOME below SERVERLESS_HOME, made when first needed."""

import os
from pathlib import Path

from serverless_assets.files import write_atomically

DAGSTER_YAML = """\
telemetry:
  enabled: false
nux:
  enabled: false
# Runs share one warehouse: they take turns.
concurrency:
  runs:
    max_concurrent_runs: 1
"""


def prepare_dagster_home(home: Path) -> Path:
    """Make DAGSTER_HOME and point this process and its children at it. A dagster.yaml of yours is kept."""
    dagster_home = home / "dagster"
    config = dagster_home / "dagster.yaml"
    if not config.exists():
        write_atomically(config, DAGSTER_YAML.encode())
    os.environ["DAGSTER_HOME"] = str(dagster_home)
    return dagster_home
