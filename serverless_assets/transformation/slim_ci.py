"""The check of a pull request: build and test what differs from production, beside it, and leave nothing.

What differs, dbt says (`state:modified`), from the manifest of production's last green build. All else is
read from production (`--defer`), raw tables included.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from textwrap import indent
from typing import Any

from modal_forecast.report.formats import counted
from serverless_assets.errors import UserError
from serverless_assets.files import scratch_folder
from serverless_assets.publishing.publisher import Publisher
from serverless_assets.transformation import dbt_runner
from serverless_assets.transformation.dbt_process import Event
from serverless_assets.transformation.green_build import last_green
from serverless_assets.transformation.manifest import is_model, schemas_of_models
from serverless_assets.transformation.project import Project

# By status of dbt; any other is a failure. A node is skipped below one that failed.
OUTCOMES = {"success": "passed", "pass": "passed", "warn": "passed", "skipped": "skipped"}


class NothingToCompareWith(UserError):
    """There is no production yet."""


@dataclass
class Checked:
    """What became of each model and test that dbt came to, by name.

    `tests` counts them by outcome: passed, failed or skipped. `failed` has the message of each model and test
    that failed, and `failure` is dbt's own. `deferred` are the models that were read from production, and
    `removed` those that are in production alone.
    """

    schema: str
    built: list[str] = field(default_factory=list)
    not_built: list[str] = field(default_factory=list)
    tests: Counter[str] = field(default_factory=Counter)
    failed: dict[str, str] = field(default_factory=dict)
    deferred: Sequence[str] = ()
    removed: Sequence[str] = ()
    failure: str | None = None

    @property
    def is_green(self) -> bool:
        return self.failure is None

    def see(self, event: Event) -> None:
        """Record what an event of dbt says of a node."""
        if event["info"]["name"] != "NodeFinished":
            return
        node, result = event["data"]["node_info"], event["data"]["run_result"]
        outcome = OUTCOMES.get(result["status"], "failed")
        if is_model(node):
            (self.built if outcome == "passed" else self.not_built).append(node["node_name"])
        else:
            self.tests[outcome] += 1
        if outcome == "failed" and result["status"] == "fail" and node["resource_type"] == "test":
            # dbt says how the test is configured.
            rows = int(result.get("num_failures") or 0)
            self.failed[node["node_name"]] = (
                f"{counted(rows, 'row')} {'fails' if rows == 1 else 'fail'} this test"
            )
        elif outcome == "failed":
            self.failed[node["node_name"]] = str(result.get("message") or result["status"]).strip()

    def __str__(self) -> str:
        models = {"Built": self.built, "Read from production": self.deferred}
        models |= {"Not built": self.not_built} if self.not_built else {}
        models |= {"In production only": self.removed} if self.removed else {}
        if self.is_green and not self.tests and not any((self.built, self.not_built, self.removed)):
            return "Nothing differs from production."
        lines = [f"{title:<22}{', '.join(names) or 'none'}" for title, names in models.items()]
        lines[0] += f" (in {self.schema}, which is gone again)" if self.built else ""
        skipped = f", {self.tests['skipped']} skipped" if self.tests["skipped"] else ""
        lines.append(f"{'Tests':<22}{self.tests['passed']} passed, {self.tests['failed']} failed{skipped}")
        lines += [f"FAILED {name}: {indent(message, '  ').strip()}" for name, message in self.failed.items()]
        if self.failure and not self.failed:
            lines.append(f"FAILED {self.failure}")
        lines += [
            "",
            "Passed." if self.is_green else "Failed: correct what is named above, then check again.",
        ]
        return "\n".join(lines)


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
                "There is no successful build in production to compare with. First run the pipeline there: "
                "`serverless run`."
            )
        state, target = folder / "state", folder / "target"
        state.mkdir()
        # The manifest is of the schema that runs write to; production is what people read.
        read = publisher.published.warehouse.dbt_variables()["DBT_SCHEMA"]
        (state / "manifest.json").write_text(
            json.dumps(production).replace(project.target_schema.schema, read)
        )
        variables = {
            **project.variables,
            **scratch.warehouse.dbt_variables(),
            "SERVERLESS_SOURCE_SCHEMA": read,
        }
        checked = Checked(variables["DBT_SCHEMA"])
        checked.failure = dbt_runner.invoke(["parse"], project.directory, target, variables)
        if checked.failure is None:
            now = json.loads((target / "manifest.json").read_text())
            scratch.warehouse.prepare_schemas(schemas_of_models(now))
            checked.failure = dbt_runner.invoke(
                [
                    *("build", "--select", "state:modified+"),
                    *("--state", str(state), "--defer", "--favor-state"),
                ],
                project.directory,
                target,
                variables,
                on_event=checked.see,
            )
            checked.deferred = deferred(checked.built + checked.not_built, now)
            before, after = (
                {node["name"] for node in manifest["nodes"].values() if is_model(node)}
                for manifest in (production, now)
            )
            checked.removed = sorted(before - after)
    return checked


def deferred(touched: Sequence[str], manifest: Mapping[str, Any]) -> Sequence[str]:
    """The names of models that those touched read, and that are not among them. Pure."""
    nodes = manifest["nodes"]
    read = {
        nodes[parent]["name"]
        for node in nodes.values()
        if node["name"] in touched and is_model(node)
        for parent in node["depends_on"]["nodes"]
        if parent in nodes
    }
    return sorted(read - set(touched))
