"""Which data tests have to run: those whose code, or what they read, changed since they passed."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import replace
from typing import Any

from serverless_assets.hashing import json_digest
from serverless_assets.ingestion.catalog import is_raw_table
from serverless_assets.names import NAMES_IN_A_LINE, name_some
from serverless_assets.transformation.fingerprints import ProjectCode
from serverless_assets.transformation.manifest import TargetSchema, is_model, relation_name
from serverless_assets.transformation.nodes import EPHEMERAL, Materialization, Node
from serverless_assets.transformation.project import Project
from serverless_assets.transformation.rebuild_rules import BuildDecision, DataTest
from serverless_assets.transformation.relation_states import State
from serverless_assets.warehouse import Warehouse


def with_tests(
    decisions: Sequence[BuildDecision],
    models: Sequence[Node],
    states: Mapping[str, State],
    manifest: Mapping[str, Any],
    hashes: Mapping[str, str],
    target: TargetSchema,
) -> Sequence[BuildDecision]:
    """Return the decisions with the data tests of each model, and which of these have to run.

    A test of a source or of an ephemeral model is one of the models that read it. A test is left out while
    a model that it reads has no relation, or is not part of the run and below one that is built.

    Args:
        decisions: what was decided on the models that the run is about.
        models: all models, each after its parents.
        states: the state of every relation that there is, raw tables among them.
        hashes: a hash of the code of each test, by its unique id.
        target: the schema of dbt's target.
    """
    nodes = {node.id: node for node in models}
    built = {decision.node.name for decision in decisions if decision.build}
    unknown = _unknown_relations(decisions, models, states)
    versions = {name: state.version for name, state in states.items()}
    versions |= {decision.node.name: decision.state.version for decision in decisions}
    readers: dict[str, list[str]] = defaultdict(list)
    for decision in decisions:
        ephemerals = [part for part in decision.node.data_hashes if part.startswith(EPHEMERAL)]
        for name in (*decision.node.reads, *(part.removeprefix(EPHEMERAL) for part in ephemerals)):
            readers[name].append(decision.node.name)
    passed = {key for state in states.values() for key in state.tests}
    tests: dict[str, list[DataTest]] = defaultdict(list)
    for id, code_hash in hashes.items():
        read, own, of_parents = list[str](), list[str](), list[str]()
        for parent in manifest["nodes"][id]["depends_on"]["nodes"]:
            node = nodes.get(parent)
            if node and node.kind == Materialization.EPHEMERAL:
                code_hash = json_digest([code_hash, node.fingerprint])
                read += node.reads
                of_parents += readers[node.name]
            elif node:
                read.append(node.name)
                own.append(node.name)
            elif parent in manifest["sources"]:
                name = relation_name(manifest["sources"][parent], target)
                read.append(name)
                of_parents += readers[name]
        if not unknown.isdisjoint(read):
            continue
        # An empty version is one that is not known.
        test = DataTest(
            id, manifest["nodes"][id]["name"], code_hash, {name: versions.get(name, "") for name in read}
        )
        is_due = not built.isdisjoint(read) or test.key({}) not in passed
        for name in dict.fromkeys(own or of_parents):
            tests[name].append(replace(test, is_due=is_due))
    return [_with_tests(decision, tests[decision.node.name], built) for decision in decisions]


def _unknown_relations(
    decisions: Sequence[BuildDecision], models: Sequence[Node], states: Mapping[str, State]
) -> Set[str]:
    """Return the models that a run is not about whose relations are missing, or out of date after it."""
    decided = {decision.node.name for decision in decisions}
    outdated = {decision.node.name for decision in decisions if decision.build}
    for node in models:
        is_decided = node.name in decided or node.kind == Materialization.EPHEMERAL
        if not is_decided and (node.name not in states or not outdated.isdisjoint(node.reads)):
            outdated.add(node.name)
    return outdated - decided


def decide_tests(
    project: Project, manifest: Mapping[str, Any], stored_states: Mapping[str, Mapping[str, Any]]
) -> Sequence[DataTest]:
    """Return the data tests that are about sources alone that no model reads, and which have to run.

    No model has these tests, and so a run of all models has them itself. One is left out while a raw table
    that it reads is missing. That it passed is kept with the first source.

    Args:
        stored_states: those of the relations of the target's schema.
    """
    nodes, sources = manifest["nodes"], manifest["sources"]
    read = {id for node in nodes.values() if is_model(node) for id in node["depends_on"].get("nodes", ())}
    unread = sources.keys() - read
    parents = {
        id: node["depends_on"]["nodes"] for id, node in nodes.items() if node["resource_type"] == "test"
    }
    of_sources = {id: of for id, of in parents.items() if of and unread.issuperset(of)}
    if not of_sources:
        return []
    hashes = ProjectCode(manifest, project.vars(), project.environ).test_hashes()
    states = {name: State.from_json(stored_state) for name, stored_state in stored_states.items()}
    tests = []
    for id, of in of_sources.items():
        tables = {relation_name(sources[source], project.target_schema): sources[source] for source in of}
        if any(is_raw_table(source) and name not in states for name, source in tables.items()):
            continue
        first, *_ = versions = {name: states.get(name, State()).version for name in tables}
        test = DataTest(id, nodes[id]["name"], hashes[id], versions)
        tests.append(replace(test, is_due=test.key({}) not in states.get(first, State()).tests))
    return tests


def keep_passed_tests(warehouse: Warehouse, tests: Iterable[DataTest]) -> None:
    """Add tests that passed to the states of raw tables, where they stay until the next load."""
    passed: dict[str, list[str]] = defaultdict(list)
    for test in tests:
        if key := test.key({}):
            passed[next(iter(test.versions))].append(key)
    stored_states = warehouse.read_states() if passed else {}
    warehouse.write_states(
        {name: {**stored_states[name], "tests": sorted(keys)} for name, keys in passed.items()}
    )


def _with_tests(decision: BuildDecision, tests: Sequence[DataTest], built: Set[str]) -> BuildDecision:
    """Add its tests to a decision, and to its reason those that run without a build of what they read."""
    if not decision.build and decision.state.dirty_reason and not any(test.is_due for test in tests):
        # The test that failed was removed.
        decision = replace(decision, state=replace(decision.state, dirty_reason=""), is_renewed=True)
    due = sorted(test.name for test in tests if test.is_due and not built & test.versions.keys())
    if not due or decision.build:
        return replace(decision, tests=tests)
    reason = f"{decision.reason}; tests to run: {name_some(due, NAMES_IN_A_LINE)}"
    return replace(decision, tests=tests, reason=reason)
