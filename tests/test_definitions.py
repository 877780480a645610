"""Loading the code location, as `dagster`, `dg` and the UI do."""

import os
import subprocess
import sys

# What takes seconds to import, and a command without a model to build, on a laptop, has no use for.
UNUSED = ("dbt.version", "pandas", "modal", "google.cloud.bigquery", "google.cloud.storage")
LOAD = f"""
import sys, serverless_assets.cli.run
from serverless_assets.definitions import defs
defs()
print([name for name in {UNUSED} if name in sys.modules])
"""


def test_the_definitions_load_without_a_warning_and_import_what_they_use(empty):
    loading = subprocess.run(
        [sys.executable, "-c", LOAD],
        env={**os.environ, **empty.variables, "SERVERLESS_HOME": str(empty.home)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (loading.returncode, loading.stderr, loading.stdout) == (0, "", "[]\n")
