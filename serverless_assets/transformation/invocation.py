"""A dbt build: its arguments, from what was decided, and its results, from dbt's events. Pure."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from functools import cached_property
from typing import Any, Literal

from modal_forecast.report.formats import counted
from serverless_assets.transformation.dbt_process import FAILED, NO_JSON, Event, in_a_line
from serverless_assets.transformation.manifest import has_relation, is_model, tested_nodes
from serverless_assets.transformation.nodes import Materialization
from serverless_assets.transformation.rebuild_rules import BuildDecision, DataTest
from serverless_assets.transformation.relation_states import State


def build_arguments(building: Sequence[BuildDecision], tests: Iterable[str], now: datetime) -> Sequence[str]:
    """The arguments of a dbt build of these models and of the tests with these unique ids.

    Incremental models are built from all rows: dbt's own way follows new rows, not corrected ones. Those that
    are built by months, and those whose rows cannot be computed again, say so in their config;
    `batches_of` names the microbatch models.

    Unit tests are about the code, and run in its own tests: without their ids, none is selected.
    """
    return [
        *("build", "--indirect-selection", "empty"),
        *("--full-refresh", NO_JSON),
        *_event_times(building, now),
        *selection([*(decision.node.id for decision in building), *tests]),
    ]


def selection(ids: Iterable[str]) -> Sequence[str]:
    """Return the arguments that select the nodes with these unique ids."""
    return ["--select", *(f"fqn:{id}" for id in ids)]


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
    ids = batches_of(building)
    decisions = [decision for decision in building if decision.node.id in ids]
    months = sorted(month for decision in decisions for month in decision.months or ())
    if not months:
        return []
    begin = max(months[0], min(d.node.begin for d in decisions))
    following = (date.fromisoformat(months[-1]) + timedelta(days=31)).replace(day=1)
    # A full build ends with the batch of this moment.
    end = min(f"{following}T00:00:00", f"{now:%Y-%m-%dT%H:%M:%S}")
    return ["--event-time-start", begin, "--event-time-end", end]


SKIPPED, PASSED = "skipped", ("pass", "warn")
STOPPED = "last build was stopped before its tests"


@dataclass
class Results:
    """The status, the message and the rows of each node that dbt has finished."""

    manifest: Mapping[str, Any]
    statuses: dict[str, str] = field(default_factory=dict)
    messages: dict[str, str] = field(default_factory=dict)
    rows: dict[str, int] = field(default_factory=dict)

    def see(self, event: Event) -> None:
        """Record what an event says of a node."""
        if "rows" in event["data"]:
            self.rows[event["data"]["node_info"]["unique_id"]] = event["data"]["rows"]
        if event["info"]["name"] == "NodeFinished":
            node, result = event["data"]["node_info"]["unique_id"], event["data"]["run_result"]
            self.statuses[node] = str(result["status"])
            self.messages[node] = in_a_line(str(result.get("message") or result["status"]))

    def status(self, decision: BuildDecision) -> Literal["failed", "skipped"]:
        """How a model for which there is a `reason` is reported."""
        is_skipped = self.statuses.get(decision.node.id, SKIPPED) == SKIPPED
        return "skipped" if is_skipped and not self.reason_of_tests(decision) else "failed"

    def reason(self, decision: BuildDecision) -> str | None:
        """Return why a model was not built as planned; None if it was, or if dbt did not reach it.

        A failed check of an asset is no reason, as it is shown itself.
        """
        id, status = decision.node.id, self.statuses.get(decision.node.id)
        if status == "success":
            return self.reason_of_tests(decision)
        if status and status != SKIPPED:
            return self.messages[id]
        causes = self._causes(id)
        if causes:
            return f"skipped: {'; '.join(causes)}"
        return "skipped: dbt did not run it" if status == SKIPPED else None

    def reason_of_tests(self, decision: BuildDecision) -> str | None:
        """Which tests of a model failed that are no check of an asset."""
        tests = [test for test in decision.tests if self._is_failed(test.id) and not self._is_check(test.id)]
        return f"tests failed: {', '.join(sorted(test.name for test in tests))}" if tests else None

    def has_passed(self, test: DataTest) -> bool:
        """Whether a test need not run again, as far as this run tells."""
        return not test.is_due or self.statuses.get(test.id) in PASSED

    def counts(self) -> str:
        """How many models were built, and how many tests passed, warned and failed."""
        tests = {id: node for id, node in self.manifest["nodes"].items() if node["resource_type"] == "test"}
        built = sum(status == "success" for id, status in self.statuses.items() if id not in tests)
        outcomes = Counter(status for id, status in self.statuses.items() if id in tests)
        failed = sum(outcomes[status] for status in FAILED)
        counts = {"passed": outcomes["pass"], "warned": outcomes["warn"], "failed": failed}
        of_tests = ", ".join(f"{count} {outcome}" for outcome, count in counts.items() if count)
        return f"{counted(built, 'model')} built" + (f"; of their tests {of_tests}" if of_tests else "") + "."

    def summary(self) -> str:
        """What failed, by name; empty if dbt failed without coming to the end of a node."""
        failed = [id for id, status in self.statuses.items() if status in FAILED]
        nodes = self.manifest["nodes"]
        names = {
            "models": sorted(self._name(id) for id in failed if is_model(nodes[id])),
            "tests": sorted(self._name(id) for id in failed if nodes[id]["resource_type"] == "test"),
        }
        return "; ".join(f"{kind} failed: {', '.join(some)}" for kind, some in names.items() if some)

    def states(self, decisions: Iterable[BuildDecision], finished: bool) -> Mapping[str, State]:
        """What to keep with each relation that was built or tested, by name. `finished`: dbt came to its end.

        A model that was built, and whose tests failed, or did not run because the build was stopped, is
        marked as dirty, and built again. So is a reused one, but its version stays: its tests run again.
        """
        decisions = [*decisions]
        versions = {decision.node.name: decision.state.version for decision in decisions}
        states = {}
        for decision in decisions:
            if self.statuses.get(decision.node.id) == "success":
                states[decision.node.name] = self._state(decision, versions, finished)
            elif not decision.build and any(test.id in self.statuses for test in decision.tests):
                states[decision.node.name] = self._tested_state(decision, versions)
        return states

    @cached_property
    def _tests(self) -> Mapping[str, Sequence[str]]:
        """The tests of each model: those attached to it, and those that are about it among others."""
        tests: dict[str, list[str]] = defaultdict(list)
        for id, node in self.manifest["nodes"].items():
            if node["resource_type"] == "test":
                for model in tested_nodes(node):
                    tests[model].append(id)
        return tests

    def _causes(self, id: str) -> list[str]:
        """Return what failed among the ancestors of a model."""
        causes: dict[str, None] = {}
        for parent in self.manifest["nodes"].get(id, {"depends_on": {}})["depends_on"].get("nodes", ()):
            status = self.statuses.get(parent)
            if status in FAILED:
                causes[f"upstream {self._name(parent)} failed"] = None
            elif any(map(self._is_failed, self._tests[parent])):
                causes[f"tests of upstream {self._name(parent)} failed"] = None
            elif status != "success":
                causes |= dict.fromkeys(self._causes(parent))
        return list(causes)

    def _is_failed(self, test: str) -> bool:
        return self.statuses.get(test) in FAILED

    def _is_check(self, test: str) -> bool:
        """Whether a test is a check of one asset, which shows its own failure."""
        node, nodes = self.manifest["nodes"][test], self.manifest["nodes"]
        if ((node["config"].get("meta") or {}).get("dagster") or {}).get("ref"):
            return True
        # Sources and ephemeral models are no assets of this step.
        about = tested_nodes(node)
        return len(about) == 1 and about[0] in nodes and has_relation(nodes[about[0]])

    def _name(self, id: str) -> str:
        node = self.manifest["nodes"].get(id) or self.manifest["sources"][id]
        return f"{node['name']}.v{node['version']}" if node.get("version") else str(node["name"])

    def _state(self, decision: BuildDecision, versions: Mapping[str, str], finished: bool) -> State:
        tests = self._tests[decision.node.id]
        failed = sorted(self._name(test) for test in tests if self._is_failed(test))
        if failed:
            return State(dirty_reason=f"last tests failed: {', '.join(failed)}")
        if not finished and not all(test in self.statuses for test in tests):
            return State(dirty_reason=STOPPED)
        state = self._tested_state(decision, versions)
        return replace(state, rows=self.rows.get(decision.node.id))

    def _tested_state(self, decision: BuildDecision, versions: Mapping[str, str]) -> State:
        """The state of a model with the tests that warned of it, and those that need not run again."""
        statuses = {test.name: self.statuses[test.id] for test in decision.tests if test.id in self.statuses}
        warnings = {*decision.state.warnings} - statuses.keys()
        warnings |= {name for name, status in statuses.items() if status == "warn"}
        own = {*self._tests[decision.node.id]}
        failed = [
            test.name
            for test in decision.tests
            if self._is_failed(test.id) and (test.id in own or not self._is_check(test.id))
        ]
        dirty_reason = f"last tests failed: {', '.join(sorted(failed))}" if failed else ""
        if any(test.is_due and test.id not in self.statuses for test in decision.tests):
            dirty_reason = dirty_reason or decision.state.dirty_reason
        passed = [test.key(versions) for test in decision.tests if self.has_passed(test)]
        return replace(
            decision.state,
            warnings=sorted(warnings),
            tests=sorted(filter(None, passed)),
            dirty_reason=dirty_reason,
        )
