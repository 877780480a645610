"""The relations of models in the warehouse, in whichever schema dbt builds them."""

from collections.abc import Iterable, Mapping
from typing import Any

from serverless_assets.transformation.fingerprints import Materialization, Node
from serverless_assets.warehouse import Warehouse

Note = Mapping[str, Any]


def warehouse_of(warehouse: Warehouse, node: Node) -> Warehouse:
    """The warehouse, as of the schema that a model is built in."""
    return warehouse.in_schema(node.database, node.schema)


def states_of(
    warehouse: Warehouse, nodes: Iterable[Node], notes: Mapping[str, Note] | None = None
) -> Mapping[str, Note]:
    """The note of every relation in the target's schema and in those of the models, by its name there.

    `notes` are those of the target's schema, if they are not to be read.
    """
    found = dict(warehouse.read_states() if notes is None else notes)
    elsewhere: dict[str, list[Node]] = {}
    for node in nodes:
        if node.kind != Materialization.EPHEMERAL and node.name != node.identifier:
            elsewhere.setdefault(node.schema, []).append(node)
    for models in elsewhere.values():
        there = warehouse_of(warehouse, models[0]).read_states()
        found |= {node.name: there[node.identifier] for node in models if node.identifier in there}
    return found


def write_states(warehouse: Warehouse, notes: Iterable[tuple[Node, Note]]) -> None:
    """Keep a note with the relation of each model that there is, in the place of the one it has."""
    by_schema: dict[str, dict[str, Note]] = {}
    places: dict[str, Warehouse] = {}
    for node, note in notes:
        by_schema.setdefault(node.schema, {})[node.identifier] = note
        places[node.schema] = warehouse_of(warehouse, node)
    for schema, found in by_schema.items():
        places[schema].write_states(found)


def row_count(warehouse: Warehouse, node: Node) -> int:
    """The number of rows of a model's relation."""
    return rows_in(warehouse, node.database, node.schema, node.identifier)


def rows_in(warehouse: Warehouse, database: str, schema: str, name: str) -> int:
    """The number of rows of a relation, as dbt names it."""
    return warehouse.in_schema(database, schema).row_count(name)


def label(warehouse: Warehouse, node: Node) -> str:
    """The full name of a model's relation, as people write it."""
    return warehouse_of(warehouse, node).qualified_name(node.identifier)
