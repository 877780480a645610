"""Which modules of ingestion may know of Dagster."""

import ast
import subprocess
import sys
from pathlib import Path

from serverless_assets import ingestion

WITH_DAGSTER = {"assets.py", "checks.py"}


def test_only_assets_and_checks_import_dagster():
    importers = set()
    for file in Path(ingestion.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            modules += [str(node.module)] if isinstance(node, ast.ImportFrom) else []
            if any(module.partition(".")[0] == "dagster" for module in modules):
                importers.add(file.name)
    assert importers == WITH_DAGSTER


def test_rows_are_fetched_and_loaded_without_importing_dagster_or_dbt():
    imports = "import sys; from serverless_assets.ingestion import fetch, load"
    print_heavy = "print(sorted({'dagster', 'dbt', 'pandas'} & sys.modules.keys()))"
    command = [sys.executable, "-c", f"{imports}; {print_heavy}"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() == "[]"
