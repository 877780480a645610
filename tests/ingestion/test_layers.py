"""Which modules of ingestion may know of Dagster."""

import ast
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
