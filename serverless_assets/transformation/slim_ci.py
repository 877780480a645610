"""The check of a pull request: build and test what differs from production, beside it, and leave nothing.

What differs, dbt says (`state:modified`), from the manifest of production's last green build. All else is
read from production (`--defer`), raw tables included.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from textwrap import indent
from typing import Any

from serverless_assets.errors import UserError
from serverless_assets.files import scratch_folder
from serverless_assets.publishing.publisher import Publisher
from serverless_assets.transformation import dbt_runner
from serverless_assets.transformation.manifest import MODELS, last_green
from serverless_assets.transformation.project import Project

TESTS = ("test", "unit_test")
GREEN = ("success", "pass", "warn")
# What a node was not reached for: the reason is with the one that failed.
SKIPPED = "skipped"


class NothingToCompareWith(UserError):
    """There is no production yet."""


@dataclass
class Checked:
    """What became of each model and test that dbt came to. `failure` is dbt's own, if it failed.

    `deferred` are the models, and `removed` those in production alone, by name.
    """

    schema: str
    built: list[str] = field(default_factory=list)
    not_built: list[str] = field(default_factory=list)
    passed: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    skipped_tests: int = 0
    deferred: Sequence[str] = ()
    removed: Sequence[str] = ()
    failure: str | None = None

    @property
    def is_green(self) -> bool:
        return self.failure is None

    @property
    def is_empty(self) -> bool:
        """Whether nothing differs from production."""
        ran = self.built or self.not_built or self.passed or self.failed or self.skipped_tests
        return self.is_green and not ran and not self.removed

    def see(self, event: dbt_runner.Event) -> None:
        """Note what an event of dbt tells."""
        if event["info"]["name"] != "NodeFinished":
            return
        node, result = event["data"]["node_info"], event["data"]["run_result"]
        name, status = node["node_name"], str(result["status"])
        message = str(result.get("message") or status).strip()
        if node["resource_type"] in MODELS:
            (self.built if status in GREEN else self.not_built).append(name)
            if status not in (*GREEN, SKIPPED):
                self.failed[name] = message
        elif status in GREEN:
            self.passed += 1
        elif status == SKIPPED:
            self.skipped_tests += 1
        else:
            self.failed[name] = message

    def __str__(self) -> str:
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        if self.is_empty:
            yield "Nothing differs from production."
            return
        yield _line("Built", self.built, f" (in {self.schema}, which is gone again)")
        yield _line("Read from production", self.deferred)
        if self.not_built:
            yield _line("Not built", self.not_built)
        if self.removed:
            yield _line("In production only", self.removed)
        failed_tests = len(self.failed.keys() - set(self.not_built))
        skipped = f", {self.skipped_tests} skipped" if self.skipped_tests else ""
        yield f"{'Tests':<22}{self.passed} passed, {failed_tests} failed{skipped}"
        for name, message in self.failed.items():
            yield f"FAILED {name}: {indent(message, '  ').strip()}"
        if self.failure and not self.failed:
            yield f"FAILED {self.failure}"


def slim_ci(project: Project, publisher: Publisher) -> Checked:
    """Check the project against what is published.

    Raises:
        NothingToCompareWith: nothing was published yet.
        UserError: there is no place to build in.
    """
    with publisher.scratch() as scratch, scratch_folder(publisher.home, "slim-ci") as folder:
        production = last_green(scratch.artifacts)
        if production is None:
            raise NothingToCompareWith(
                "There is no manifest of a green build in production to compare with: "
                "run the pipeline there first (serverless run)."
            )
        state, target = folder / "state", folder / "target"
        state.mkdir()
        # The manifest is of the schema that runs write to; production is what people read.
        written, read = (
            project.variables["DBT_SCHEMA"],
            publisher.published.warehouse.dbt_variables()["DBT_SCHEMA"],
        )
        (state / "manifest.json").write_text(json.dumps(production).replace(written, read))
        variables = scratch.warehouse.dbt_variables()
        checked = Checked(variables["DBT_SCHEMA"])
        checked.failure = dbt_runner.invoke(
            slim_arguments(state),
            project.directory,
            target,
            {
                **project.variables,
                **variables,
                "SERVERLESS_SOURCE_SCHEMA": read,
            },
            on_event=checked.see,
        )
        if (target / "manifest.json").exists():
            now = json.loads((target / "manifest.json").read_text())
            checked.deferred = deferred(checked.built + checked.not_built, now)
            checked.removed = sorted(_models(production) - _models(now))
    return checked


def slim_arguments(state: Path) -> Sequence[str]:
    """The arguments of dbt: what differs from the manifest in `state`, and what reads it."""
    return [
        *("build", "--select", "state:modified+"),
        *("--state", str(state), "--defer", "--favor-state"),
    ]


def deferred(touched: Sequence[str], manifest: Mapping[str, Any]) -> Sequence[str]:
    """The names of models that those touched read, and that are not among them. Pure."""
    nodes = manifest["nodes"]
    read = {
        nodes[parent]["name"]
        for node in nodes.values()
        if node["name"] in touched and node["resource_type"] in MODELS
        for parent in node["depends_on"]["nodes"]
        if parent in nodes
    }
    return sorted(read - set(touched))


def _models(manifest: Mapping[str, Any]) -> set[str]:
    return {node["name"] for node in manifest["nodes"].values() if node["resource_type"] in MODELS}


def _line(words: str, names: Sequence[str], more: str = "") -> str:
    return f"{words:<22}{', '.join(names)}{more}" if names else f"{words:<22}none"
