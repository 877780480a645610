"""A dbt build: its arguments, from what was decided, and its results, from dbt's events. Pure."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from functools import cached_property
from typing import Any, Literal

from serverless_assets.transformation.dbt_process import FAILED, NO_JSON, Event, in_a_line
from serverless_assets.transformation.fingerprints import Materialization
from serverless_assets.transformation.manifest import is_model
from serverless_assets.transformation.rebuild_rules import BuildDecision
from serverless_assets.transformation.relation_states import State


def build_arguments(building: Sequence[BuildDecision], now: datetime) -> Sequence[str]:
    """The arguments of a dbt build of these models and the tests that can be run on them.

    Incremental models are built from all rows: dbt's own way follows new rows, not corrected ones. Those that
    are built by months, and those whose rows cannot be computed again, say so in their config; microbatch
    models are told by `batches_of`.

    Tests that also read a model further down wait for it to be built: its rows are still the old ones.
    Unit tests are about the code, and run in its own tests.
    """
    return [
        *("build", "--exclude-resource-type", "unit_test", "--indirect-selection", "buildable"),
        *("--full-refresh", NO_JSON),
        *_event_times(building, now),
        *selection(building),
    ]


def selection(decisions: Iterable[BuildDecision]) -> Sequence[str]:
    """What selects just these models."""
    return ["--select", *(f"fqn:{decision.node.id}" for decision in decisions)]


def months_variable(building: Iterable[BuildDecision]) -> str:
    """SERVERLESS_MONTHS: `model.shop.orders=2025-03-01,2025-04-01;model.shop.customers=2025-03-01`."""
    return ";".join(
        f"{decision.node.id}={','.join(decision.months)}"
        for decision in building
        if decision.months and decision.node.kind == Materialization.BY_MONTH
    )


def batches_of(building: Iterable[BuildDecision]) -> Sequence[str]:
    """The ids of the microbatch models of which some batches are built, and the others stay."""
    return [d.node.id for d in building if d.node.kind == Materialization.MICROBATCH and d.months is not None]


def _event_times(building: Sequence[BuildDecision], now: datetime) -> Sequence[str]:
    """The range of batches to build, for all microbatch models: it holds the months of each."""
    decisions = [d for d in building if d.node.id in batches_of(building)]
    months = sorted(month for decision in decisions for month in decision.months or ())
    if not months:
        return []
    begin = max(months[0], min(d.node.begin for d in decisions))
    following = (date.fromisoformat(months[-1]) + timedelta(days=31)).replace(day=1)
    # A full build ends with the batch of this moment.
    end = min(f"{following}T00:00:00", f"{now:%Y-%m-%dT%H:%M:%S}")
    return ["--event-time-start", begin, "--event-time-end", end]


SKIPPED = "skipped"
STOPPED = "last build was stopped before its tests"


@dataclass
class Results:
    """The status, dbt's message and the rows of each node that dbt came to the end of."""

    manifest: Mapping[str, Any]
    statuses: dict[str, str] = field(default_factory=dict)
    messages: dict[str, str] = field(default_factory=dict)
    rows: dict[str, int] = field(default_factory=dict)

    def see(self, event: Event) -> None:
        """Note what an event tells."""
        if "rows" in event["data"]:
            self.rows[event["data"]["node_info"]["unique_id"]] = event["data"]["rows"]
        if event["info"]["name"] == "NodeFinished":
            node, result = event["data"]["node_info"]["unique_id"], event["data"]["run_result"]
            self.statuses[node] = str(result["status"])
            self.messages[node] = in_a_line(str(result.get("message") or result["status"]))

    def names(self) -> Collection[str]:
        """The names of the nodes that dbt came to the end of."""
        return {self.manifest["nodes"][id]["name"] for id in self.statuses if id in self.manifest["nodes"]}

    def status(self, id: str) -> Literal["failed", "skipped"]:
        """How a model for which there is a `reason` is reported."""
        return "skipped" if self.statuses.get(id, SKIPPED) == SKIPPED else "failed"

    def reason(self, id: str) -> str | None:
        """Why a model is not what was planned; None if it is, or if dbt never came to it."""
        status = self.statuses.get(id)
        if status == "success":
            failed = [self._name(test) for test in self._failed_tests(id) if not self._is_attached(test)]
            return f"tests failed: {', '.join(sorted(failed))}" if failed else None
        if status and status != SKIPPED:
            return self.messages[id]
        causes = self._causes(id)
        if causes:
            return f"skipped: {'; '.join(causes)}"
        return "skipped: dbt did not run it" if status == SKIPPED else None

    def summary(self) -> str:
        """What failed, by name; empty if dbt failed without coming to the end of a node."""
        failed = [id for id, status in self.statuses.items() if status in FAILED]
        tests = sorted(
            self._name(id) for id in failed if self.manifest["nodes"][id]["resource_type"] == "test"
        )
        models = sorted(self._name(id) for id in failed if is_model(self.manifest["nodes"][id]))
        parts = [
            f"{words} failed: {', '.join(names)}"
            for words, names in (("models", models), ("tests", tests))
            if names
        ]
        return "; ".join(parts)

    def states(self, decisions: Iterable[BuildDecision], finished: bool) -> Mapping[str, State]:
        """What to keep with each relation that was built, by name. `finished`: dbt came to its own end.

        A model whose tests failed, or did not run because the build was stopped, is marked as dirty;
        also one that was reused, and whose test failed because of a model that was built.
        """
        states = {}
        for decision in decisions:
            is_built = self.statuses.get(decision.node.id) == "success"
            state = self._state(decision, self._tests[decision.node.id], finished or not decision.build)
            if is_built or (not decision.build and state.dirty_reason):
                states[decision.node.name] = state
        return states

    @cached_property
    def _tests(self) -> Mapping[str, Sequence[str]]:
        """The tests of each model: those attached to it, and those that are about it among others."""
        tests: dict[str, list[str]] = defaultdict(list)
        for id, node in self.manifest["nodes"].items():
            if node["resource_type"] == "test":
                about = [node["attached_node"]] if node.get("attached_node") else node["depends_on"]["nodes"]
                for model in about:
                    tests[model].append(id)
        return tests

    def _causes(self, id: str) -> list[str]:
        """What failed among all that a model is made from."""
        causes: dict[str, None] = {}
        for parent in self.manifest["nodes"].get(id, {"depends_on": {}})["depends_on"].get("nodes", ()):
            status = self.statuses.get(parent)
            if status in FAILED:
                causes[f"upstream {self._name(parent)} failed"] = None
            elif self._failed_tests(parent):
                causes[f"tests of upstream {self._name(parent)} failed"] = None
            elif status != "success":
                causes |= dict.fromkeys(self._causes(parent))
        return list(causes)

    def _failed_tests(self, id: str) -> list[str]:
        return [test for test in self._tests[id] if self.statuses.get(test) in FAILED]

    def _is_attached(self, test: str) -> bool:
        """Whether a test is a check of one asset, which shows its own failure."""
        node = self.manifest["nodes"][test]
        ref = ((node["config"].get("meta") or {}).get("dagster") or {}).get("ref")
        return bool(node.get("attached_node") or ref or len(node["depends_on"]["nodes"]) == 1)

    def _name(self, id: str) -> str:
        return str(self.manifest["nodes"][id]["name"])

    def _state(self, decision: BuildDecision, tests: Sequence[str], finished: bool) -> State:
        def those(*statuses: str) -> list[str]:
            return sorted(self._name(test) for test in tests if self.statuses.get(test) in statuses)

        failed = those(*FAILED)
        if failed:
            return State(dirty_reason=f"last tests failed: {', '.join(failed)}")
        if not finished and not all(test in self.statuses for test in tests):
            return State(dirty_reason=STOPPED)
        rows = self.rows.get(decision.node.id)
        return replace(decision.state, warnings=those("warn"), rows=rows)
