"""Models that were deleted from the dbt project, and whose tables are still in the warehouse."""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from serverless_assets.artifacts import Artifacts
from serverless_assets.transformation.fingerprints import is_model, relation_key
from serverless_assets.transformation.green_manifest import last_green
from serverless_assets.warehouse import Warehouse, WarehouseError

# The models that green builds had and the project has no more, until their tables are gone.
DELETED = "dbt-deleted.json"


@dataclass(frozen=True)
class DeletedModel:
    """A model that green builds had, by dbt's unique id, and the relation that it left."""

    id: str
    database: str
    schema: str
    identifier: str

    @property
    def name(self) -> str:
        return self.id.split(".", 2)[2]

    def qualified_name(self, warehouse: Warehouse) -> str:
        """The full name of the relation as people write it."""
        return warehouse.in_schema(self.database, self.schema).qualified_name(self.identifier)


def find_deleted(
    manifest: Mapping[str, Any], artifacts: Artifacts, warehouse: Warehouse
) -> Sequence[DeletedModel]:
    """Return the models that green builds had, that the project has no more, and whose relations are there.

    A relation is left out if it is another node's now, or if it does not carry the state of a model: then
    it is not the one that this project built.

    Raises:
        ArtifactError: what green builds had cannot be read.
        WarehouseError: the warehouse cannot be asked.
    """
    taken = {*map(relation_key, manifest["nodes"].values()), *map(relation_key, manifest["sources"].values())}
    past = (last_green(artifacts) or {"nodes": {}})["nodes"]
    recorded = _recorded(artifacts)
    past_models = [
        DeletedModel(id, str(node["database"] or ""), str(node["schema"]), str(node["alias"]))
        for id, node in past.items()
        if is_model(node) and id not in manifest["nodes"]
    ]
    deleted = {
        (model.database.lower(), model.schema.lower(), model.identifier.lower()): model
        for model in (*recorded, *past_models)
    }
    return [
        model for relation, model in deleted.items() if relation not in taken and _is_ours(model, warehouse)
    ]


def record_deleted(artifacts: Artifacts, deleted: Collection[DeletedModel]) -> None:
    """Keep the list of deleted models whose relations are still there.

    Raises:
        ArtifactError: it cannot be kept.
    """
    content = json.dumps(
        [vars(model) for model in sorted(deleted, key=lambda model: model.id)], indent=1
    ).encode()
    if content != (artifacts.read(DELETED) or b"[]"):
        artifacts.write(DELETED, content)


def drop_deleted(warehouse: Warehouse, deleted: Collection[DeletedModel]) -> None:
    """Drop the relations of deleted models.

    Raises:
        WarehouseError: one could not be dropped.
    """
    for model in deleted:
        warehouse.in_schema(model.database, model.schema).drop_relation(model.identifier)


def deleted_text(relation: str, model: str, drop: bool) -> str:
    """What becomes of the relation of a deleted model."""
    if drop:
        return f"{relation} is dropped: its model {model} is no longer in the dbt project."
    return (
        f"{relation} is left as it is, but its model {model} is no longer in the dbt project. "
        "To drop it: `serverless run --drop-deleted`, or `deleted_models: drop` in the launchpad."
    )


def _recorded(artifacts: Artifacts) -> Sequence[DeletedModel]:
    try:
        return [DeletedModel(**entry) for entry in json.loads(artifacts.read(DELETED) or "[]")]
    except (ValueError, TypeError):
        # Not what `record_deleted` wrote.
        return []


def _is_ours(model: DeletedModel, warehouse: Warehouse) -> bool:
    try:
        note = warehouse.in_schema(model.database, model.schema).read_state(model.identifier)
    except WarehouseError:
        # A database that the environment no longer has, or may not read.
        return False
    return "data_hashes" in note or "dirty_reason" in note
