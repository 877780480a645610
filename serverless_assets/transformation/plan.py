"""What to build and why, from the code, the content of the raw tables, and what each relation was built from.

Pure. A version says what a relation holds: the version of a model is a hash of its own code and of the
versions of its parents, down to the content of the raw tables. The warehouse keeps with each relation the
version that it was built as. What is the same need not be built again.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from serverless_assets.hashing import json_digest
from serverless_assets.transformation.fingerprints import Materialization, Node

Months = Mapping[str, str]

# A reason is one line.
MONTHS_NAMED = 6


@dataclass(frozen=True)
class State:
    """What a relation was built from, as it is kept with it.

    `version` is empty if nobody knows. `inputs` is that of the code and the parents that a model with a state
    of its own was last run with. `months` maps the first day of each month to the version of its rows,
    if it has months. `dirty_reason` says why the relation cannot be relied on; `warnings` names the tests
    that warned of it.
    """

    version: str = ""
    months: Months | None = None
    data_hashes: Mapping[str, str] = field(default_factory=dict)
    parents: Mapping[str, str] = field(default_factory=dict)
    built_by: str = ""
    dirty_reason: str = ""
    warnings: Sequence[str] = ()
    inputs: str = ""

    @classmethod
    def from_json(cls, note: Mapping[str, Any]) -> "State":
        """The state in a relation's note; that of nobody knows what if the note holds something else."""
        if not isinstance(note.get("version", note.get("dirty_reason")), str):
            return cls()
        return cls(**{name: note[name] for name in cls.__dataclass_fields__ if name in note})

    def as_json(self) -> dict[str, Any]:
        return {name: value for name, value in asdict(self).items() if value}


@dataclass(frozen=True)
class BuildDecision:
    """What becomes of a model: built, as a whole or for some `months` alone, or reused; and why.

    `state` is what to keep with the relation once it is built.
    """

    node: Node
    build: bool
    reason: str
    state: State
    months: tuple[str, ...] | None = None

    @property
    def built_by(self) -> str:
        """The run that built what is reused."""
        return self.state.built_by


def plan(
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

    nodes: all models, each after its parents.
    states: the state of every relation that there is, raw tables among them.
    selected: names of the models that the run is about; None means all. Others are taken as they are.
    known_models: names of models that were there once.
    months_to_restate: further months that the query `restated_months` of a model built by months names; None
        if the query cannot be run yet, and all months may have to be built.
    current_month: the month that it is now, as in 2026-01.
    """
    planner = _Planner(states, set(known_models), force, months_to_restate or {}, run_id, current_month)
    selected_names = {node.name for node in nodes} if selected is None else set(selected)
    decisions = []
    for node in nodes:
        if node.kind == Materialization.EPHEMERAL:
            planner.expect(node)
        elif node.name in selected_names:
            decisions.append(planner.decide(node))
        else:
            planner.pass_by(node)
    return _microbatches_alike(decisions)


def _microbatches_alike(decisions: Sequence[BuildDecision]) -> Sequence[BuildDecision]:
    """The decisions, with all microbatch models built as a whole if one of them is.

    dbt is given one range of batches for all of them.
    """
    built = [d for d in decisions if d.build and d.node.kind == Materialization.MICROBATCH]
    if all(decision.months is not None for decision in built):
        return decisions
    return [replace(d, months=None) if d in built else d for d in decisions]


@dataclass
class _Planner:
    states: Mapping[str, State]
    known_models: set[str]
    force: bool
    months_to_restate: Mapping[str, Collection[str] | None]
    run_id: str
    current_month: str
    # What each relation will hold when its turn has passed, and months of it that are written anew.
    expected: dict[str, State] = field(default_factory=dict)
    rewritten: dict[str, set[str]] = field(default_factory=dict)

    def pass_by(self, node: Node) -> None:
        """Take a model that the run is not about as it is."""
        state = self.states.get(node.name, State())
        if node.kind == Materialization.VIEW and state.version:
            # A view holds what its parents hold now, by the query that it was made with.
            now = self._expected(node)
            is_current = state.data_hashes == node.data_hashes
            state = replace(state, version=now.version, months=now.months) if is_current else State()
        self.expected[node.name] = state

    def expect(self, node: Node) -> None:
        """Take a model without a relation for what its code and its parents say."""
        self.expected[node.name] = self._expected(node)

    def decide(self, node: Node) -> BuildDecision:
        state, previous = self._expected(node), self.states.get(node.name)
        if node.kind == Materialization.STATEFUL:
            # Its rows follow from all its runs: none gives what another gave.
            state = replace(state, version=json_digest([state.version, self.run_id]), inputs=state.version)
        reason = self._reason(node, state, previous)
        if reason is None:
            assert previous is not None
            self.expected[node.name] = previous if node.kind == Materialization.STATEFUL else state
            return BuildDecision(node, False, "unchanged", previous)
        self.expected[node.name] = state
        months = self._months(node, state, previous)
        if months is not None:
            self.rewritten[node.name] = set(months)
        return BuildDecision(node, True, reason, state, months)

    def _expected(self, node: Node) -> State:
        parents = {name: self._parent(name) for name in node.parents}
        versions = {name: parent.version for name, parent in parents.items()}
        fingerprint, read = node.fingerprint, {name: self._parent(name).version for name in node.reads}
        if not all(versions.values()):
            # Never the same as anything: what a parent holds is not known.
            return State(f"unknown {self.run_id}", None, node.data_hashes, read, self.run_id)
        version = json_digest([fingerprint, versions])
        dated = {
            name: parent.months
            for name, parent in parents.items()
            if parent.months is not None
            and (node.kind != Materialization.MICROBATCH or name in node.filtered)
        }
        months = None
        if node.follows_months and dated:
            others = {name: versions[name] for name in versions if name not in dated}
            months = {
                month: json_digest(
                    [fingerprint, others, {name: hashes.get(month, "") for name, hashes in dated.items()}]
                )
                for month in sorted(set().union(*dated.values()))
            }
        return State(version, months, node.data_hashes, read, self.run_id)

    def _parent(self, name: str) -> State:
        if name in self.expected:
            return self.expected[name]
        return self.states.get(name, State())

    def _reason(self, node: Node, state: State, previous: State | None) -> str | None:
        """Why to build, in the order in which people would ask; None if there is no reason."""
        if self.force:
            return "forced: rebuild all"
        if previous is None:
            return "relation missing" if node.name in self.known_models else "new"
        if previous.dirty_reason:
            return previous.dirty_reason
        if not previous.version:
            return "relation replaced: it is not known what it was built from"
        if (previous.inputs or previous.version) == (state.inputs or state.version):
            return None
        return "; ".join(
            [*_code_changes(previous.data_hashes, state.data_hashes), *self._parent_changes(previous, state)]
        )

    def _parent_changes(self, previous: State, state: State) -> Iterable[str]:
        for name, version in state.parents.items():
            if not version:
                yield f"{name} replaced: its content is not known"
            elif previous.parents.get(name) == version:
                continue
            elif name in self.expected:
                yield f"upstream rebuilt ({name})"
            else:
                months = _changed_months(previous, state) if self._parent(name).months else []
                yield f"new data ({name}{_named(months)})"
        yield from (f"reads {name} no more" for name in previous.parents if name not in state.parents)

    def _months(self, node: Node, state: State, previous: State | None) -> tuple[str, ...] | None:
        """The months to build if that gives what a full build gives; None means all of it."""
        usable = previous is not None and previous.version and not previous.dirty_reason and not self.force
        by_month = node.kind in (Materialization.BY_MONTH, Materialization.MICROBATCH)
        if not by_month or not usable or state.months is None:
            return None
        assert previous is not None
        if previous.months is None or previous.data_hashes != state.data_hashes:
            return None
        restated_months = self.months_to_restate.get(node.name, ())
        if restated_months is None:
            return None
        changed = {*_changed_months(previous, state), *restated_months}
        changed |= set().union(*(self.rewritten.get(name, ()) for name in node.parents))
        if node.kind == Materialization.MICROBATCH and not all(
            node.begin[:7] <= month[:7] <= self.current_month for month in changed
        ):
            # A full build has no batches before the first and after the current one.
            return None
        return None if changed >= state.months.keys() else tuple(sorted(changed))


def _code_changes(previous: Mapping[str, str], now: Mapping[str, str]) -> Iterable[str]:
    for part in sorted(previous.keys() | now.keys()):
        if previous.get(part) != now.get(part):
            kind, _, name = part.partition(" ")
            yield f"{kind} changed ({name})" if name else f"{kind} changed"


def _changed_months(previous: State, now: State) -> list[str]:
    """Months whose rows are not those that the relation was built from, where both are known."""
    before, after = previous.months or {}, now.months or {}
    if not before or not after or previous.data_hashes != now.data_hashes:
        return []
    return sorted(m for m in before.keys() | after.keys() if before.get(m) != after.get(m))


def in_turns(
    decisions: Iterable[BuildDecision],
) -> tuple[list[BuildDecision], list[BuildDecision], list[BuildDecision]]:
    """The decisions in the order of work: reused at once; built; reused but after a parent that is built.

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


def plan_text(decisions: Sequence[BuildDecision]) -> str:
    """The plan for a person: how many are built and reused, then a line for each."""
    built = sum(decision.build for decision in decisions)
    lines = [f"{len(decisions) - built} reused, {built} built"]
    for decision in decisions:
        months = f" ({len(decision.months)} months)" if decision.months is not None else ""
        verb = f"build{months}" if decision.build else "reuse"
        lines.append(f"{decision.node.name:<24} {verb:<18} {decision.reason}")
    return "\n".join(lines)


def _named(months: Sequence[str]) -> str:
    if not months:
        return ""
    more = f" and {len(months) - MONTHS_NAMED} more" if len(months) > MONTHS_NAMED else ""
    return ": " + ", ".join(month[:7] for month in months[:MONTHS_NAMED]) + more
