"""What a run would use, and whether each part of it can be used."""

import platform
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import version

from serverless_assets.environments import Environment
from serverless_assets.errors import error_sentence
from serverless_assets.transformation.manifest import is_model
from serverless_assets.warehouse import WarehouseError


@dataclass(frozen=True)
class Finding:
    """One part of an environment: what it uses, and what its check says: what it has, or what is wrong."""

    part: str
    uses: str
    result: str
    is_well: bool

    def __str__(self) -> str:
        return f"  {'ok' if self.is_well else 'NOT OK':<7}{self.part:<11}{self.uses}\n{'':20}{self.result}"


def versions() -> str:
    """Return the versions to name with a question or a bug report."""
    packages = {"serverless-assets": "serverless-assets", "Dagster": "dagster", "dbt": "dbt-core"}
    packages |= {"DuckDB": "duckdb", "Modal": "modal"}
    named = [f"{name} {version(package)}" for name, package in packages.items()]
    return ", ".join([*named, f"Python {platform.python_version()}"])


def examine(parts: Environment) -> Iterator[Finding]:
    """Check part after part; one that cannot be used does not stop the others."""
    warehouse, artifacts = parts.publisher.warehouse, parts.publisher.artifacts
    yield _finding("source", parts.source.name, lambda: parts.source.check(parts.raw_tables))
    yield _finding("warehouse", warehouse.name, parts.publisher.check)
    yield _finding("models", f"dbt, {parts.project.directory}", lambda: _models(parts))
    yield _finding("compute", parts.compute.name, parts.compute.check)
    yield _finding("artifacts", artifacts.name, artifacts.check)


def _models(parts: Environment) -> str:
    """Return that the project is sound, and which relations of other origin a run replaces."""
    models = [*filter(is_model, parts.manifest["nodes"].values())]
    names = {node["alias"] for node in models}
    names |= {table.name for table in parts.raw_tables}
    names |= {forecast.table for forecast in parts.forecasts}
    try:
        by_hand = parts.publisher.published.warehouse.made_by_hand()
        in_the_way = parts.publisher.irreplaceable()
        changes = parts.publisher.layout_changes(models, (table.shape for table in parts.raw_tables))
    except WarehouseError:
        # The finding on the warehouse reports the error.
        by_hand = in_the_way = changes = {}
    if refused := [text for name, text in in_the_way.items() if name in names]:
        raise WarehouseError(" ".join(refused))
    sentences = ["the project is sound"]
    if replaced := [f"{name} (a {kind})" for name, kind in sorted(by_hand.items()) if name in names]:
        sentences.append(
            f"The next successful run replaces relations that no run has made: {', '.join(replaced)}"
        )
    if changed := [f"{name} {clause}" for name, clause in sorted(changes.items()) if name not in by_hand]:
        sentences.append(
            f"The next successful run replaces relations whose layout changed: {', '.join(changed)}"
        )
    return ". ".join(sentences)


def _finding(part: str, uses: str, check: Callable[[], str]) -> Finding:
    try:
        return Finding(part, uses, check(), True)
    except Exception as error:
        return Finding(part, uses, error_sentence(error), False)
