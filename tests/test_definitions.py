"""Loading the code location, as `dagster`, `dg` and the UI do."""

import os
import subprocess
import sys


def test_the_definitions_load_without_a_warning(tmp_path):
    loading = subprocess.run(
        [sys.executable, "-c", "from serverless_assets.definitions import defs; defs()"],
        env={**os.environ, "SERVERLESS_HOME": str(tmp_path / "home")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (loading.returncode, loading.stderr) == (0, "")
