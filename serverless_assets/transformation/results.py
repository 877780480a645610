"""What became of each model in a dbt build, from dbt's own events. Pure."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from serverless_assets.transformation.dbt import Event
from serverless_assets.transformation.plan import Decision, State

STOPPED = "last build was stopped before its tests"


@dataclass
class Results:
    """The status of each node that dbt came to the end of."""

    statuses: dict[str, str] = field(default_factory=dict)

    def see(self, event: Event) -> None:
        """Note what an event tells."""
        if event["info"]["name"] == "NodeFinished":
            node = event["data"]["node_info"]["unique_id"]
            self.statuses[node] = str(event["data"]["run_result"]["status"])

    def names(self, manifest: Mapping[str, Any]) -> Collection[str]:
        """The names of the nodes that dbt came to the end of."""
        return {manifest["nodes"][id]["name"] for id in self.statuses if id in manifest["nodes"]}

    def notes(
        self, decisions: Iterable[Decision], manifest: Mapping[str, Any], finished: bool
    ) -> Mapping[str, Mapping[str, Any]]:
        """What to keep with each relation that was built. `finished`: dbt came to its own end.

        A model whose tests failed, or did not run because the build was stopped, is marked as unfinished;
        also one that was reused, and whose test failed because of a model that was built.
        """
        tests = tests_of(manifest)
        notes = {}
        for decision in decisions:
            is_built = self.statuses.get(decision.node.id) == "success"
            state = self._state(decision, tests[decision.node.id], manifest, finished or not decision.build)
            if is_built or (not decision.build and state.unfinished):
                notes[decision.node.name] = state.as_note()
        return notes

    def _state(
        self, decision: Decision, tests: Sequence[str], manifest: Mapping[str, Any], finished: bool
    ) -> State:
        def those(*statuses: str) -> list[str]:
            return sorted(manifest["nodes"][t]["name"] for t in tests if self.statuses.get(t) in statuses)

        failed = those("fail", "error", "runtime error")
        if failed:
            return State(unfinished=f"last tests failed: {', '.join(failed)}")
        if not finished and not all(test in self.statuses for test in tests):
            return State(unfinished=STOPPED)
        return replace(decision.state, warnings=those("warn"))


def tests_of(manifest: Mapping[str, Any]) -> Mapping[str, Sequence[str]]:
    """The tests of each model: those attached to it, and those that are about it among others."""
    found: dict[str, list[str]] = defaultdict(list)
    for id, node in manifest["nodes"].items():
        if node["resource_type"] == "test":
            about = [node["attached_node"]] if node.get("attached_node") else node["depends_on"]["nodes"]
            for model in about:
                found[model].append(id)
    return found
