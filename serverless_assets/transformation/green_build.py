"""The manifest of the last green build, and the models that were deleted from the project since.

It is kept in the artifact store with those before it. A pull request is compared with it (`--state`), and
reads the models that it leaves alone where it says (`--defer`). Models that it has, and the project has not,
were deleted: their tables are still there.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from serverless_assets.artifacts import Artifacts
from serverless_assets.hashing import json_digest
from serverless_assets.transformation.manifest import is_model, relation_key
from serverless_assets.warehouse import Warehouse, WarehouseError

MANIFEST, RUN_RESULTS = "dbt-manifest.json", "dbt-run_results.json"
HISTORY_PREFIX, HISTORY_KEPT = "dbt-manifest-", 10
# The deleted models whose tables are still there.
DELETED_MODELS_FILE = "dbt-deleted.json"

# What differs between two manifests of one and the same project: when and where it was read.
VOLATILE_METADATA = frozenset(
    {"env", "generated_at", "invocation_id", "invocation_started_at", "run_started_at", "user_id"}
)
VOLATILE_OF_NODES = frozenset(
    {
        "build_path", "compiled", "compiled_code", "compiled_path", "created_at", "extra_ctes",
        "extra_ctes_injected",
    }
)  # fmt: skip


def keep_manifest(
    artifacts: Artifacts, manifest_path: Path, run_results_path: Path | None, run_id: str
) -> bool:
    """Keep the manifest of a build that was green, unless it says what the last one said.

    `manifest_path` is the project's as it was parsed: in that of a build by months, the config holds them.
    `run_results_path` is dbt's account of the build; None, or a file that is not there, if nothing had to
    be built. The manifest comes last: until it is there, the next run keeps all of it again.

    Returns:
        whether anything was written.

    Raises:
        ArtifactError: it could not be kept.
    """
    content = manifest_path.read_bytes()
    if artifacts.read(MANIFEST) == content:
        return False
    last = last_green(artifacts)
    if last is not None and substance(last) == substance(json.loads(content)):
        return False
    if run_results_path is not None and run_results_path.exists():
        artifacts.write(RUN_RESULTS, run_results_path.read_bytes())
    artifacts.write(f"{HISTORY_PREFIX}{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}-{run_id[:8]}.json", content)
    artifacts.write(MANIFEST, content)
    # Their names begin with the time, so that the oldest come first.
    for name in artifacts.names(HISTORY_PREFIX)[:-HISTORY_KEPT]:
        artifacts.delete(name)
    return True


def last_green(artifacts: Artifacts) -> Mapping[str, Any] | None:
    """The manifest of the last green build; None if there is none.

    Raises:
        ArtifactError: it cannot be read.
    """
    content = artifacts.read(MANIFEST)
    try:
        manifest = json.loads(content) if content else None
    except ValueError:
        # Not what `keep_manifest` wrote: as good as none, and the next green build writes it anew.
        return None
    return manifest if isinstance(manifest, dict) and "nodes" in manifest else None


def known_models(artifacts: Artifacts) -> Mapping[str, Mapping[str, Any]]:
    """The models that there were in the last green build, by their unique ids."""
    nodes = (last_green(artifacts) or {"nodes": {}})["nodes"]
    return {id: node for id, node in nodes.items() if is_model(node)}


def substance(manifest: Mapping[str, Any]) -> str:
    """A hash of what a manifest says of the project, and not of when it was written. Pure."""
    lasting = dict(manifest)
    for section, entries in manifest.items():
        if section == "metadata":
            lasting[section] = {key: v for key, v in entries.items() if key not in VOLATILE_METADATA}
        elif isinstance(entries, dict):
            lasting[section] = {
                id: {key: v for key, v in entry.items() if key not in VOLATILE_OF_NODES}
                if isinstance(entry, dict)
                else entry
                for id, entry in entries.items()
            }
    return json_digest(lasting, 64)


@dataclass(frozen=True)
class DeletedModel:
    """A model that green builds had, by dbt's unique id, and the relation that it left.

    It was deleted from the project, or has another alias, schema or database.
    """

    id: str
    database: str
    schema: str
    identifier: str

    @property
    def name(self) -> str:
        return self.id.split(".", 2)[2]

    def sentence(self, warehouse: Warehouse, drop: bool) -> str:
        """What becomes of the relation."""
        relation = warehouse.in_schema(self.database, self.schema).qualified_name(self.identifier)
        gone = f"its model {self.name} is no longer in the dbt project under this name"
        if drop:
            return f"{relation} is dropped: {gone}."
        return (
            f"{relation} is left as it is, but {gone}. To drop it: `serverless run --drop-deleted`, or "
            "`deleted_models: drop` in the launchpad."
        )


def find_deleted(
    manifest: Mapping[str, Any], artifacts: Artifacts, warehouse: Warehouse
) -> Sequence[DeletedModel]:
    """Return the models of green builds that the project no longer has there, and whose relations still are.

    A relation is left out if it is another node's now, or if it does not carry the state of a model: then
    it is not the one that this project built.

    Raises:
        ArtifactError: what green builds had cannot be read.
        WarehouseError: the warehouse cannot be asked.
    """
    taken = {*map(relation_key, manifest["nodes"].values()), *map(relation_key, manifest["sources"].values())}
    moved = [
        DeletedModel(id, str(node["database"] or ""), str(node["schema"]), str(node["alias"]))
        for id, node in known_models(artifacts).items()
        if _place(node) != _place(manifest["nodes"].get(id))
    ]
    by_relation = {
        (model.database.lower(), model.schema.lower(), model.identifier.lower()): model
        for model in (*_recorded(artifacts), *moved)
    }
    untaken = (model for relation, model in by_relation.items() if relation not in taken)
    return [model for model in untaken if _is_ours(model, warehouse)]


def _place(node: Mapping[str, Any] | None) -> Sequence[Any]:
    """Return the alias, schema and database that the project sets; the environment's may be others by now."""
    config = node["config"] if node else {}
    return [node and node["alias"], config.get("schema"), config.get("database")]


def settle_deleted(
    manifest: Mapping[str, Any],
    artifacts: Artifacts,
    warehouse: Warehouse,
    drop: bool,
    warn: Callable[[str], None],
) -> None:
    """Drop the relations of deleted models, or keep a list of them; warn of each.

    Raises:
        ArtifactError: what green builds had cannot be read, or the list cannot be kept.
        WarehouseError: the warehouse cannot be asked.
    """
    deleted = find_deleted(manifest, artifacts, warehouse)
    for model in deleted:
        warn(model.sentence(warehouse, drop))
        if drop:
            warehouse.in_schema(model.database, model.schema).drop_relation(model.identifier)
    remaining = [] if drop else sorted(deleted, key=lambda model: model.id)
    content = json.dumps([vars(model) for model in remaining], indent=1).encode()
    if content != (artifacts.read(DELETED_MODELS_FILE) or b"[]"):
        artifacts.write(DELETED_MODELS_FILE, content)


def _recorded(artifacts: Artifacts) -> Sequence[DeletedModel]:
    try:
        return [DeletedModel(**entry) for entry in json.loads(artifacts.read(DELETED_MODELS_FILE) or "[]")]
    except (ValueError, TypeError):
        # Not what `settle_deleted` wrote.
        return []


def _is_ours(model: DeletedModel, warehouse: Warehouse) -> bool:
    try:
        stored_state = warehouse.in_schema(model.database, model.schema).read_state(model.identifier)
    except WarehouseError:
        # A database that the environment no longer has, or may not read.
        return False
    return "data_hashes" in stored_state or "dirty_reason" in stored_state
