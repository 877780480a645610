"""Which data tests have to run: those whose code, or what they read, changed since they passed."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from typing import Any

from serverless_assets.hashing import json_digest
from serverless_assets.ingestion.catalog import is_raw_table
from serverless_assets.names import NAMES_IN_A_LINE, name_some
from serverless_assets.transformation.fingerprints import EPHEMERAL, Materialization, Node
from serverless_assets.transformation.manifest import is_model, relation_name
from serverless_assets.transformation.rebuild_rules import BuildDecision, DataTest
from serverless_assets.transformation.relation_states import State
from serverless_assets.warehouse import Warehouse


def with_tests(
    decisions: Sequence[BuildDecision],
    models: Sequence[Node],
    states: Mapping[str, State],
    manifest: Mapping[str, Any],
    hashes: Mapping[str, str],
    schema: str,
) -> Sequence[BuildDecision]:
    """Return the decisions with the data tests of each model, and which of these have to run.

    A test of a source or of an ephemeral model is one of the models that read it. A test is left out while
    a model that it reads has no relation, or is not part of the run and below one that is built.

    Args:
        decisions: what was decided on the models that the run is about.
        models: all models, each after its parents.
        states: the state of every relation that there is, raw tables among them.
        hashes: a hash of the code of each test, by its unique id.
        schema: that of the target.
    """
    relations = _Relations.of(decisions, models, states)
    passed = {key for state in states.values() for key in state.tests}
    tests: dict[str, list[DataTest]] = defaultdict(list)
    for id, code_hash in hashes.items():
        entry = manifest["nodes"][id]
        versions: dict[str, str | None] = {}
        own, of_parents = list[str](), list[str]()
        for parent in entry["depends_on"]["nodes"]:
            node = relations.nodes.get(parent)
            if node and node.kind != Materialization.EPHEMERAL:
                versions[node.name] = relations.version(node.name)
                own.append(node.name)
                continue
            if node:
                versions |= {name: relations.version(name) for name in node.reads}
                code_hash = json_digest([code_hash, node.fingerprint])
            elif parent in manifest["sources"]:
                name = relation_name(manifest["sources"][parent], schema)
                versions[name] = relations.version(name)
            of_parents += relations.readers[node.name if node else name]
        known_versions = {name: version for name, version in versions.items() if version is not None}
        if len(known_versions) < len(versions):
            continue
        test = DataTest(id, entry["name"], code_hash, known_versions)
        is_due = bool(relations.built & known_versions.keys()) or test.key({}) not in passed
        for name in dict.fromkeys(own or of_parents):
            tests[name].append(replace(test, is_due=is_due))
    return [_with_tests(decision, tests[decision.node.name], relations.built) for decision in decisions]


def tests_of_unread_sources(manifest: Mapping[str, Any]) -> Sequence[str]:
    """Return the unique ids of the data tests that are about sources alone that no model reads.

    No model has these tests, and so a run of all models has them itself.
    """
    nodes, sources = manifest["nodes"], manifest["sources"]
    read = {id for node in nodes.values() if is_model(node) for id in node["depends_on"].get("nodes", ())}
    unread = sources.keys() - read
    parents = {
        id: node["depends_on"]["nodes"] for id, node in nodes.items() if node["resource_type"] == "test"
    }
    return [id for id, of in parents.items() if of and unread.issuperset(of)]


def test_of_sources(
    test: Mapping[str, Any],
    code_hash: str,
    sources: Sequence[Mapping[str, Any]],
    states: Mapping[str, State],
    schema: str,
) -> DataTest | None:
    """Return a data test of sources, and whether it has to run; None if a raw table is not there.

    What passed is kept with the first source; where it is not known what one holds, the test runs each time.
    """
    names = [relation_name(source, schema) for source in sources]
    if any(is_raw_table(source) and name not in states for source, name in zip(sources, names, strict=True)):
        return None
    versions = {name: states.get(name, State()).version for name in names}
    due = DataTest(test["unique_id"], test["name"], code_hash, versions)
    passed = states.get(names[0], State()).tests
    return replace(due, is_due=not due.key({}) or due.key({}) not in passed)


def keep_passed_tests(warehouse: Warehouse, tests: Iterable[DataTest]) -> None:
    """Keep with raw tables the tests of them that passed, beside what ingestion keeps until the next load."""
    passed: dict[str, list[str]] = defaultdict(list)
    for test in tests:
        if key := test.key({}):
            passed[next(iter(test.versions))].append(key)
    stored_states = warehouse.read_states() if passed else {}
    warehouse.write_states(
        {name: {**stored_states[name], "tests": sorted(keys)} for name, keys in passed.items()}
    )


def _with_tests(decision: BuildDecision, tests: Sequence[DataTest], built: Set[str]) -> BuildDecision:
    """Add its tests to a decision; to its reason those that run though what they read is not built."""
    if not decision.build and decision.state.dirty_reason and not any(test.is_due for test in tests):
        # The test that failed is gone.
        decision = replace(decision, state=replace(decision.state, dirty_reason=""), is_renewed=True)
    due = sorted(test.name for test in tests if test.is_due and not built & test.versions.keys())
    if not due or decision.build:
        return replace(decision, tests=tests)
    reason = f"{decision.reason}; tests to run: {name_some(due, NAMES_IN_A_LINE)}"
    return replace(decision, tests=tests, reason=reason)


@dataclass(frozen=True)
class _Relations:
    """The models by unique id, the versions of relations, and who reads them.

    `unknown` are the models whose relations are missing, or out of date until they are part of a run.
    """

    nodes: Mapping[str, Node]
    versions: Mapping[str, str]
    unknown: Collection[str]
    built: Set[str]
    readers: Mapping[str, Sequence[str]]

    @classmethod
    def of(
        cls, decisions: Sequence[BuildDecision], models: Sequence[Node], states: Mapping[str, State]
    ) -> "_Relations":
        decided = {decision.node.name: decision.state.version for decision in decisions}
        built = {decision.node.name for decision in decisions if decision.build}
        unknown, outdated = set[str](), {*built}
        for node in models:
            if node.name in decided or node.kind == Materialization.EPHEMERAL:
                continue
            if node.name not in states or not outdated.isdisjoint(node.reads):
                unknown.add(node.name)
                outdated.add(node.name)
        readers: dict[str, list[str]] = defaultdict(list)
        for decision in decisions:
            parts = [
                part.removeprefix(EPHEMERAL)
                for part in decision.node.data_hashes
                if part.startswith(EPHEMERAL)
            ]
            for name in (*decision.node.reads, *parts):
                readers[name].append(decision.node.name)
        versions = {name: state.version for name, state in states.items()} | decided
        return cls({node.id: node for node in models}, versions, unknown, built, readers)

    def version(self, name: str) -> str | None:
        """What a relation holds; empty if that is not known, None if the relation is unknown itself."""
        return None if name in self.unknown else self.versions.get(name, "")
