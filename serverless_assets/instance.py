"""The Dagster instance of this project: DAGSTER_HOME below SERVERLESS_HOME, made when first needed."""

import os
from pathlib import Path

from serverless_assets.files import write_atomically

# Who wrote the file: without this line it is yours, and is left alone.
MARK = "# Written by `serverless`, which keeps it up to date. To keep a file of your own, delete this line."
DAGSTER_YAML = """\
{mark}
telemetry:
  enabled: false
nux:
  enabled: false
concurrency:
  runs:
    max_concurrent_runs: 4
  # Runs that write to the same warehouse are in one pool: they take turns. A what-if and a plan wait for
  # nobody.
  pools:
    granularity: run
    default_limit: 1
run_monitoring:
  enabled: true
  # SERVERLESS_RUN_DEADLINE. A run of its own tag `dagster/max_runtime` has another.
  max_runtime_seconds: {deadline}
  cancel_timeout_seconds: 60
freshness:
  enabled: true
"""


def prepare_dagster_home(home: Path, run_deadline_seconds: int) -> Path:
    """Make DAGSTER_HOME and point this process and its children at it. A dagster.yaml of yours is kept."""
    dagster_home = home / "dagster"
    config = dagster_home / "dagster.yaml"
    wanted = DAGSTER_YAML.format(mark=MARK, deadline=run_deadline_seconds)
    found = config.read_text() if config.exists() else MARK
    if found.startswith(MARK) and found != wanted:
        write_atomically(config, wanted.encode())
    os.environ["DAGSTER_HOME"] = str(dagster_home)
    return dagster_home
