"""What each relation was built from, and what a model will hold once it is built.

A version says what a relation holds: that of a model is a hash of its own code and of the versions of what
it reads, down to the content of the raw tables. It reads columns of its parents, where column lineage is
sure, and else all of them: a column's version is a hash of the code that computes it and of the versions of
the columns that it is computed from. What is the same need not be built again.

The warehouse keeps a state with the relation itself, so that it never claims more than there is: with a
dropped relation its state is gone, too.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from serverless_assets.errors import UserError
from serverless_assets.hashing import json_digest
from serverless_assets.names import FORECAST_KEYS
from serverless_assets.transformation.nodes import EPHEMERAL, Materialization, Node
from serverless_assets.warehouse import Warehouse

# By column, in order: a hash of its code, with a mark if that is not sure, and the columns that it reads of
# each relation. The first entry, ROWS, says the same of which rows there are: every column depends on them.
QueryColumns = Mapping[str, tuple[str, Mapping[str, Sequence[str]]]]
ROWS, UNSURE = "", "?"


class UnfinishedError(UserError):
    """A relation is not to be read; the message says why."""


@dataclass(frozen=True)
class State:
    """What a relation was built from.

    `version` is empty if that is not known. `inputs` is that of the code and the parents that a model with a
    state of its own was last run with. `months` maps the first day of each month to the version of its rows,
    if it has months. `dirty_reason` says why the relation cannot be relied on; with a `version`, a test of
    it failed since it was built, and it is not built again for that. `warnings` names the tests that warned
    of it. `tests` are the keys of its data tests that passed or warned (`DataTest.key`). `rows` is the
    number of rows, None if they were not counted, as those of a view.

    `parents` maps what it reads to the versions that that had, and `read` to the versions of the columns
    that it reads. `columns` maps each of its own columns, in order, to the version of the values, and to
    the code and the reads that its query has for it (`QueryColumns`); `parent_columns` is a hash of the
    columns that the parents had when the query was read. All three are empty where column lineage is not
    sure.
    """

    version: str = ""
    months: Mapping[str, str] | None = None
    data_hashes: Mapping[str, str] = field(default_factory=dict)
    parents: Mapping[str, str] = field(default_factory=dict)
    built_by: str = ""
    dirty_reason: str = ""
    warnings: Sequence[str] = ()
    inputs: str = ""
    read: Mapping[str, str] = field(default_factory=dict)
    columns: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    parent_columns: str = ""
    rows: int | None = None
    tests: Sequence[str] = ()

    @property
    def query(self) -> QueryColumns:
        """What its query computes each column from; empty if that is not sure."""
        return {name: (code, reads) for name, (_, code, reads) in self.columns.items()}

    def version_of(self, column: str) -> str:
        """The version of a column's values; that of the whole relation where lineage is not sure."""
        return str(self.columns.get(column, ("",))[0]) or self.version

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> "State":
        """The state that is stored with a relation; of a forecast's, the version; else an empty one."""
        if not isinstance(stored.get("version", stored.get("dirty_reason")), str):
            return cls(next((str(stored[key]) for key in FORECAST_KEYS if stored.get(key)), ""))
        return cls(**{name: stored[name] for name in cls.__dataclass_fields__ if name in stored})

    def as_json(self) -> dict[str, Any]:
        """What to store: the fields that are not empty."""
        return {name: value for name, value in asdict(self).items() if value or value == 0}


def read_states(
    warehouse: Warehouse, nodes: Iterable[Node], stored_states: Mapping[str, Mapping[str, Any]] | None = None
) -> Mapping[str, State]:
    """The state of every relation in the target's schema and in those of the models, by `Node.name`.

    `stored_states` are those of the target's schema, if they are not to be read from the warehouse.
    """
    by_name = dict(warehouse.read_states() if stored_states is None else stored_states)
    elsewhere: dict[tuple[str, str], list[Node]] = {}
    for node in nodes:
        if node.kind != Materialization.EPHEMERAL and node.name != node.identifier:
            elsewhere.setdefault((node.database, node.schema), []).append(node)
    for place, models in elsewhere.items():
        there = warehouse.in_schema(*place).read_states()
        by_name |= {node.name: there[node.identifier] for node in models if node.identifier in there}
    return {name: State.from_json(stored) for name, stored in by_name.items()}


def refuse_unfinished(warehouse: Warehouse, relation: str) -> None:
    """Raise `UnfinishedError` if the tests of a relation failed or did not all run: nothing is to read it."""
    if reason := warehouse.read_state(relation).get("dirty_reason"):
        raise UnfinishedError(
            f"{relation} cannot be relied on: {reason}. First run `serverless run transform`, or launch the "
            "job `transform`."
        )


def write_states(warehouse: Warehouse, states: Iterable[tuple[Node, State]]) -> None:
    """Keep a state with the relation of each model that there is, in the place of the one it has."""
    stored_states: dict[tuple[str, str], dict[str, dict[str, Any]]] = {}
    for node, state in states:
        stored_states.setdefault((node.database, node.schema), {})[node.identifier] = state.as_json()
    for place, stored in stored_states.items():
        warehouse.in_schema(*place).write_states(stored)


def warehouse_of(warehouse: Warehouse, node: Node) -> Warehouse:
    """The warehouse, as of the schema that a model is built in."""
    return warehouse.in_schema(node.database, node.schema)


def rows_in(warehouse: Warehouse, database: str, schema: str, name: str) -> int:
    """The number of rows of a relation, as dbt names it."""
    return warehouse.in_schema(database, schema).row_count(name)


def expected_state(
    node: Node, inputs: Mapping[str, State], query: QueryColumns, run_id: str, previous: State | None = None
) -> State:
    """Return what a model holds if it is built from relations that hold what `inputs` says.

    The columns of the `previous` state are taken over where they are the same.
    """
    versions = {name: inputs[name].version for name in node.parents}
    parents = {name: inputs[name].version for name in node.reads}
    if not all(versions.values()):
        # What a parent holds is not known: by the id of the run, the version equals no other.
        return State(f"unknown {run_id}", None, node.data_hashes, parents, run_id)
    read: Mapping[str, str] = {}
    code = node.fingerprint
    if query:
        read = versions = {
            name: json_digest({column: inputs[name].version_of(column) for column in columns})
            for name, columns in columns_read(query).items()
        }
        # The ephemeral models that it selects from are in its query, as far as it reads them.
        own = {part: hash for part, hash in node.data_hashes.items() if not part.startswith(EPHEMERAL)}
        code = json_digest([own, [*query.items()]])
    # The parents of which rows of one month are read for the rows of that month.
    months_by_parent = {
        name: months
        for name in versions
        if (months := inputs[name].months) is not None
        and (node.kind != Materialization.MICROBATCH or name in node.filtered)
    }
    months = None
    if node.follows_months and months_by_parent:
        others = {name: version for name, version in versions.items() if name not in months_by_parent}
        months = {
            month: json_digest(
                [code, others, {name: hashes.get(month, "") for name, hashes in months_by_parent.items()}]
            )
            for month in sorted(set().union(*months_by_parent.values()))
        }
    version = json_digest([code, versions])
    state = State(version, months, node.data_hashes, parents, run_id)
    if node.kind == Materialization.STATEFUL:
        # Its rows depend on all earlier runs: each run gives another version.
        return replace(state, version=json_digest([version, run_id]), inputs=version)
    if not query:
        return state
    if previous and (previous.version, previous.data_hashes) == (version, node.data_hashes):
        # The same code has read the same. To hash each column takes half a second for a thousand models.
        columns = previous.columns
    else:
        columns = {
            column: [_column_version(node, column, query, inputs), code, reads]
            for column, (code, reads) in query.items()
        }
    return replace(state, read=read, columns=columns, parent_columns=json_digest(columns_of(inputs)))


def known_query(node: Node, previous: State | None, inputs: Mapping[str, State]) -> QueryColumns | None:
    """Return what a model computes its columns from, if it is known from when it was built; else None."""
    if previous is None or not previous.version or previous.data_hashes != node.data_hashes:
        return None
    if previous.columns and previous.parent_columns != json_digest(columns_of(inputs)):
        # A star may stand for other columns.
        return None
    return previous.query


def columns_of(inputs: Mapping[str, State]) -> Mapping[str, Sequence[str]]:
    """Return the columns of each relation, in order, where they are known."""
    return {name: [*state.columns][1:] for name, state in inputs.items() if state.columns}


def columns_read(query: QueryColumns) -> Mapping[str, Sequence[str]]:
    """Return the columns that a query reads of each relation, ROWS among them."""
    columns: dict[str, set[str]] = {}
    for _, reads in query.values():
        for name, of_relation in reads.items():
            columns.setdefault(name, {ROWS}).update(of_relation)
    return {name: sorted(of_relation) for name, of_relation in sorted(columns.items())}


def _column_version(node: Node, column: str, query: QueryColumns, inputs: Mapping[str, State]) -> str:
    code, reads = query[column]
    if code.startswith(UNSURE):
        return ""
    values = columns_read({ROWS: query[ROWS], column: (code, reads)})
    versions = {name: [inputs[name].version_of(value) for value in of] for name, of in values.items()}
    return json_digest([node.build_hash, code, versions])
