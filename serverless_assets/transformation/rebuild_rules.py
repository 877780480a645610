"""Which models are rebuilt and why, from the code, the raw tables, and what each relation was built from.

Pure. A version says what a relation holds: the version of a model is a hash of its own code and of the
versions of its parents, down to the content of the raw tables. The warehouse keeps with each relation the
version that it was built as. What is the same need not be built again.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from serverless_assets.hashing import json_digest
from serverless_assets.months import name_months
from serverless_assets.transformation.fingerprints import Materialization, Node
from serverless_assets.transformation.relation_states import State


@dataclass(frozen=True)
class BuildDecision:
    """What becomes of a model: built, as a whole or for some `months` alone, or reused; and why.

    `state` is what to keep with the relation once it is built; that of a reused one is what is kept with it.
    """

    node: Node
    build: bool
    reason: str
    state: State
    months: tuple[str, ...] | None = None


def decide_builds(
    nodes: Sequence[Node],
    states: Mapping[str, State],
    *,
    selected: Collection[str] | None = None,
    known_models: Collection[str] = (),
    force: bool = False,
    months_to_restate: Mapping[str, Collection[str] | None] | None = None,
    run_id: str = "",
    current_month: str = "9999-12",
) -> Sequence[BuildDecision]:
    """Decide on each selected model, parents first.

    Args:
        nodes: all models, each after its parents.
        states: the state of every relation that there is, raw tables among them.
        selected: names of the models that the run is about; None means all. Others are taken as they are.
        known_models: names of models that were there once.
        force: build every selected model, whatever its relation holds.
        months_to_restate: further months that the query `restated_months` of a model built by months names;
            None if the query cannot be run yet, and all months may have to be built.
        run_id: the run that builds.
        current_month: the month that it is now, as in 2026-01.
    """
    # What each relation will hold when its turn has passed, and months of it that are written anew.
    expected: dict[str, State] = {}
    rewritten: dict[str, Collection[str]] = {}
    decisions: list[BuildDecision] = []
    for node in nodes:
        previous = states.get(node.name)
        inputs = {
            name: expected.get(name) or states.get(name, State()) for name in (*node.parents, *node.reads)
        }
        state = expected_state(node, inputs, run_id)
        if node.kind == Materialization.EPHEMERAL:
            # It has no relation: it is what its code and its parents say.
            expected[node.name] = state
            continue
        if selected is not None and node.name not in selected:
            expected[node.name] = previous or State()
            if node.kind == Materialization.VIEW and previous is not None and previous.version:
                # A view holds what its parents hold now, by the query that it was made with.
                now = replace(previous, version=state.version, months=state.months)
                expected[node.name] = now if previous.data_hashes == node.data_hashes else State()
            continue
        if node.kind == Materialization.STATEFUL:
            # Its rows follow from all its runs: none gives what another gave.
            state = replace(state, version=json_digest([state.version, run_id]), inputs=state.version)
        reason = reason_to_build(
            state,
            previous,
            inputs,
            decided=expected,
            is_known=node.name in known_models,
            force=force,
        )
        if reason is None:
            assert previous is not None
            expected[node.name] = previous if node.kind == Materialization.STATEFUL else state
            decisions.append(BuildDecision(node, False, "unchanged", previous))
            continue
        expected[node.name] = state
        months = None
        if not force:
            restated = (months_to_restate or {}).get(node.name, ())
            rewritten_above = set().union(*(rewritten.get(name, ()) for name in node.parents))
            months = months_to_build(node, state, previous, restated, rewritten_above, current_month)
        if months is not None:
            rewritten[node.name] = months
        decisions.append(BuildDecision(node, True, reason, state, months))
    # dbt is given one range of batches for all microbatch models: if one is built as a whole, all are.
    batches = [d for d in decisions if d.build and d.node.kind == Materialization.MICROBATCH]
    if any(decision.months is None for decision in batches):
        return [replace(d, months=None) if d in batches else d for d in decisions]
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
        return "forced: rebuild all"
    if previous is None:
        return "relation missing" if is_known else "new"
    if previous.dirty_reason:
        return previous.dirty_reason
    if not previous.version:
        return "relation replaced: it is not known what it was built from"
    if (previous.inputs or previous.version) == (state.inputs or state.version):
        return None
    reasons = []
    for part in sorted(previous.data_hashes.keys() | state.data_hashes.keys()):
        if previous.data_hashes.get(part) != state.data_hashes.get(part):
            kind, _, name = part.partition(" ")
            reasons.append(f"{kind} changed ({name})" if name else f"{kind} changed")
    for name, version in state.parents.items():
        if not version:
            reasons.append(f"{name} replaced: its content is not known")
        elif previous.parents.get(name) == version:
            continue
        elif name in decided:
            reasons.append(f"upstream rebuilt ({name})")
        else:
            months = name_months(changed_months(previous, state)) if inputs[name].months else ""
            reasons.append(f"new data ({name}: {months})" if months else f"new data ({name})")
    reasons += [f"reads {name} no more" for name in previous.parents if name not in state.parents]
    return "; ".join(reasons)


def expected_state(node: Node, inputs: Mapping[str, State], run_id: str) -> State:
    """Return what a model holds if it is built from parents that hold what `inputs` says."""
    fingerprint = node.fingerprint
    versions = {name: inputs[name].version for name in node.parents}
    read = {name: inputs[name].version for name in node.reads}
    if not all(versions.values()):
        # Never the same as anything: what a parent holds is not known.
        return State(f"unknown {run_id}", None, node.data_hashes, read, run_id)
    # The parents of which rows of one month are read for the rows of that month.
    months_by_parent = {
        name: months
        for name in node.parents
        if (months := inputs[name].months) is not None
        and (node.kind != Materialization.MICROBATCH or name in node.filtered)
    }
    months = None
    if node.follows_months and months_by_parent:
        others = {name: version for name, version in versions.items() if name not in months_by_parent}
        months = {
            month: json_digest(
                [
                    fingerprint,
                    others,
                    {name: hashes.get(month, "") for name, hashes in months_by_parent.items()},
                ]
            )
            for month in sorted(set().union(*months_by_parent.values()))
        }
    return State(json_digest([fingerprint, versions]), months, node.data_hashes, read, run_id)


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
