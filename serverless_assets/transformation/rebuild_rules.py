"""The rules by which a model is rebuilt, and the reason: from its code, and what relations hold. Pure."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from serverless_assets.hashing import json_digest
from serverless_assets.months import name_months
from serverless_assets.names import FORCED
from serverless_assets.transformation.nodes import Materialization, Node
from serverless_assets.transformation.relation_states import (
    QueryColumns,
    State,
    columns_of,
    expected_state,
    known_query,
)

# Reads the query of a model whose parents have these columns, by name; empty if it is not compiled.
ReadQuery = Callable[[Node, Mapping[str, Sequence[str]]], QueryColumns]


@dataclass(frozen=True)
class DataTest:
    """A data test of dbt, by unique id, and whether it has to run.

    `code_hash` is that of its code and arguments, `versions` are those of the relations that it reads.
    """

    id: str
    name: str
    code_hash: str
    versions: Mapping[str, str]
    is_due: bool = True

    def key(self, built: Mapping[str, str]) -> str:
        """Return what it says that the test passed; empty if it is not known what it reads.

        Args:
            built: the versions of relations that were built since the decision.
        """
        versions = {name: built.get(name, version) for name, version in self.versions.items()}
        return json_digest([self.code_hash, versions]) if all(versions.values()) else ""


@dataclass(frozen=True)
class BuildDecision:
    """What becomes of a model: built, as a whole or for some `months` alone, or reused; and why.

    `state` is what to keep with the relation once it is built, from relations with the states `inputs`. A
    reused one keeps its own, unless that `is_renewed`: a parent is new, and what it reads of it is the same.
    `tests` are the data tests about it.
    """

    node: Node
    build: bool
    reason: str
    state: State
    months: tuple[str, ...] | None = None
    inputs: Mapping[str, State] = field(default_factory=dict)
    is_renewed: bool = False
    tests: Sequence[DataTest] = ()


def decide_builds(
    nodes: Sequence[Node],
    states: Mapping[str, State],
    *,
    selected: Collection[str] | None = None,
    known_models: Collection[str] = (),
    force: bool = False,
    forced_months: Collection[str] | None = None,
    months_to_restate: Mapping[str, Collection[str] | None] | None = None,
    run_id: str = "",
    current_month: str = "9999-12",
    read_query: ReadQuery = lambda node, columns: {},
) -> Sequence[BuildDecision]:
    """Decide on each selected model, parents first.

    Args:
        nodes: all models, each after its parents.
        states: the state of every relation that there is, raw tables among them.
        selected: names of the models that the run is about; None means all. Others are taken as they are.
        known_models: names of models that were there once.
        force: build every selected model, whatever its relation holds.
        forced_months: the months to which `force` goes in models built by month; None means all.
        months_to_restate: further months that the query `restated_months` of a model built by months names;
            None if the query cannot be run yet, and all months may have to be built.
        run_id: the run that builds.
        current_month: the month that it is now, as in 2026-01.
        read_query: reads the query of a model of which it is not known.
    """
    # What each relation will hold after the run, and the months of it that are written anew.
    expected: dict[str, State] = {}
    rewritten: dict[str, Collection[str]] = {}
    decisions: list[BuildDecision] = []
    for node in nodes:
        previous = states.get(node.name)
        inputs = {
            name: expected.get(name) or states.get(name, State()) for name in (*node.parents, *node.reads)
        }
        query = known_query(node, previous, inputs)
        if query is None:
            query = read_query(node, columns_of(inputs))
        state = expected_state(node, inputs, query, run_id, previous)
        if node.kind == Materialization.EPHEMERAL:
            # It has no relation: its state follows from its code and its parents.
            expected[node.name] = state
            continue
        if selected is not None and node.name not in selected:
            expected[node.name] = previous or State()
            if node.kind == Materialization.VIEW and previous is not None and previous.version:
                # A view holds what its parents hold now, by the query that it was made with.
                expected[node.name] = state if previous.data_hashes == node.data_hashes else State()
            continue
        reason = reason_to_build(
            state, previous, inputs, decided=expected, is_known=node.name in known_models, force=force
        )
        if reason is None:
            assert previous is not None
            kept = previous
            if node.kind != Materialization.STATEFUL:
                kept = replace(
                    state,
                    built_by=previous.built_by,
                    warnings=previous.warnings,
                    rows=previous.rows,
                    tests=previous.tests,
                    dirty_reason=previous.dirty_reason,
                )
            decision = BuildDecision(
                node, False, "unchanged", kept, inputs=inputs, is_renewed=kept != previous
            )
        else:
            months = None
            if not force or forced_months is not None:
                restated = (months_to_restate or {}).get(node.name, ())
                if restated is not None and force:
                    restated = {*restated, *(forced_months or ())}
                rewritten_above = set().union(*(rewritten.get(name, ()) for name in node.parents))
                months = months_to_build(node, state, previous, restated, rewritten_above, current_month)
            if months is not None:
                rewritten[node.name] = months
                reason = f"forced: rebuild {name_months(sorted(months))}" if force else reason
            decision = BuildDecision(node, True, reason, state, months, inputs)
        expected[node.name] = decision.state
        decisions.append(decision)
    # dbt is given one range of batches for all microbatch models: if one is built as a whole, all are.
    batches = [d for d in decisions if d.build and d.node.kind == Materialization.MICROBATCH]
    if any(decision.months is None for decision in batches):
        ids = {decision.node.id for decision in batches}
        return [replace(d, months=None) if d.node.id in ids else d for d in decisions]
    return decisions


def reason_to_build(
    state: State,
    previous: State | None,
    inputs: Mapping[str, State],
    *,
    decided: Collection[str],
    is_known: bool,
    force: bool,
) -> str | None:
    """Return why to build a model, in the order in which people would ask; None if there is no reason.

    Args:
        state: what the model holds if it is built.
        previous: what its relation was built from; None if there is no relation.
        inputs: what each relation that it reads holds when its turn has come.
        decided: the names of the models before it; what it reads besides is a raw table.
        is_known: whether the model was there once.
        force: whether all is to be built.
    """
    if force:
        return FORCED
    if previous is None:
        return "relation missing" if is_known else "new"
    if previous.dirty_reason and not previous.version:
        return previous.dirty_reason
    if not previous.version:
        return "relation replaced: it is not known what it was built from"
    if (previous.inputs or previous.version) == (state.inputs or state.version):
        return None
    reasons, rebuilt = list[str](), list[str]()
    for part in sorted(previous.data_hashes.keys() | state.data_hashes.keys()):
        if previous.data_hashes.get(part) != state.data_hashes.get(part):
            kind, _, name = part.partition(" ")
            reasons.append(f"{kind} changed ({name})" if name else f"{kind} changed")
    changed = [
        name
        for name, version in state.parents.items()
        if not version or previous.parents.get(name) != version
    ]
    read = [name for name in changed if not state.read or previous.read.get(name) != state.read.get(name)]
    # If it reads the same columns of all of them, these are in another order.
    for name in read or ([] if reasons else changed):
        if not state.parents[name]:
            reasons.append(f"{name} replaced: its content is not known")
        elif name in decided:
            rebuilt.append(name)
        else:
            months = name_months(changed_months(previous, state)) if inputs[name].months else ""
            reasons.append(f"new data ({name}: {months})" if months else f"new data ({name})")
    reasons += [f"upstream rebuilt ({', '.join(rebuilt)})"] if rebuilt else []
    reasons += [f"reads {name} no more" for name in previous.parents if name not in state.parents]
    return "; ".join(reasons)


def settled_state(decision: BuildDecision, states: Mapping[str, State], read_query: ReadQuery) -> State:
    """Return the state of a model that was built, given those of the models that were built before it.

    Its query is read only if all of the model was built: for some months, it is the query of the others.
    """
    inputs = {name: states.get(name, state) for name, state in decision.inputs.items()}
    if decision.months is None:
        query = read_query(decision.node, columns_of(inputs))
    else:
        query = known_query(decision.node, decision.state, inputs) or {}
    return expected_state(decision.node, inputs, query, decision.state.built_by)


def months_to_build(
    node: Node,
    state: State,
    previous: State | None,
    restated: Collection[str] | None,
    rewritten_above: Collection[str],
    current_month: str,
) -> tuple[str, ...] | None:
    """Return the months to build if that gives what a full build gives; None means all of it.

    `restated` are months that the model's own query names, `rewritten_above` those that this run writes anew
    in its parents.
    """
    if node.kind not in (Materialization.BY_MONTH, Materialization.MICROBATCH) or restated is None:
        return None
    if previous is None or not previous.version or previous.dirty_reason:
        return None
    if state.months is None or previous.months is None or previous.data_hashes != state.data_hashes:
        return None
    if previous.query != state.query:
        return None
    changed = {*changed_months(previous, state), *restated, *rewritten_above}
    if node.kind == Materialization.MICROBATCH and not all(
        node.begin[:7] <= month[:7] <= current_month for month in changed
    ):
        # A full build has no batches before the first and after the current one.
        return None
    return None if changed >= state.months.keys() else tuple(sorted(changed))


def changed_months(previous: State, now: State) -> list[str]:
    """Return months whose rows are not those that the relation was built from, where both are known."""
    before, after = previous.months or {}, now.months or {}
    if not before or not after or previous.data_hashes != now.data_hashes:
        return []
    return sorted(m for m in before.keys() | after.keys() if before.get(m) != after.get(m))


def in_turns(
    decisions: Iterable[BuildDecision],
) -> tuple[list[BuildDecision], list[BuildDecision], list[BuildDecision]]:
    """Return the decisions in the order of work: reused at once; built; reused after a parent that is built.

    The last is a model whose parent was dropped by hand: it holds what it should, its parent is made anew.
    """
    first: list[BuildDecision] = []
    building: list[BuildDecision] = []
    last: list[BuildDecision] = []
    waiting: set[str] = set()
    for decision in decisions:
        if decision.build or waiting & set(decision.node.reads):
            waiting.add(decision.node.name)
            (building if decision.build else last).append(decision)
        else:
            first.append(decision)
    return first, building, last
