"""What dbt's manifest says: of the project as it is, and of the last green build.

That of the last green build is kept in the artifact store with those before it. A pull request is compared
with it (`--state`), and reads the models that it leaves alone where that says (`--defer`). It also tells
which models were deleted from the project, whose tables are still there.
"""

import json
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

import dagster as dg

from serverless_assets.artifacts import Artifacts
from serverless_assets.asset_keys import KEY_PREFIX, asset_key, asset_name
from serverless_assets.hashing import json_digest
from serverless_assets.ingestion.catalog import is_raw_table
from serverless_assets.warehouse import Warehouse, WarehouseError, published_schema

# What of a manifest is a model to this project.
MODELS = ("model", "seed", "snapshot")
MANIFEST, RUN_RESULTS = "dbt-manifest.json", "dbt-run_results.json"
HISTORY_PREFIX, HISTORY_KEPT = "dbt-manifest-", 10
# The models that green builds had and the project has no more there, until their tables are gone.
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


def is_model(node: Mapping[str, Any]) -> bool:
    """Whether an entry of the manifest is a model, a seed or a snapshot."""
    return node["resource_type"] in MODELS


def has_relation(node: Mapping[str, Any]) -> bool:
    """Whether an entry of the manifest is a model that has a relation: not an ephemeral one."""
    return is_model(node) and node["config"].get("materialized") != "ephemeral"


def selected_from(node: Mapping[str, Any], manifest: Mapping[str, Any]) -> Iterator[str]:
    """The unique ids of what a model selects from, each ephemeral one followed by what that selects from."""
    for id in node["depends_on"].get("nodes", ()):
        yield id
        parent = manifest["nodes"].get(id)
        if parent and parent["config"].get("materialized") == "ephemeral":
            yield from selected_from(parent, manifest)


def tested_nodes(test: Mapping[str, Any]) -> Sequence[str]:
    """The unique ids of what a data test is about: the model it is declared with, or all that it reads."""
    return [test["attached_node"]] if test.get("attached_node") else test["depends_on"]["nodes"]


def seeds_of_sources(manifest: Mapping[str, Any]) -> Mapping[str, str]:
    """The unique id of the seed that is the relation of a source, by the source's unique id.

    Many a project keeps sample data as seeds and reads them as a source. dbt does not see that the one is
    the other.
    """
    nodes, sources = manifest["nodes"].items(), manifest["sources"].items()
    seeds = {relation_key(node): id for id, node in nodes if node["resource_type"] == "seed"}
    return {id: seeds[relation_key(source)] for id, source in sources if relation_key(source) in seeds}


def relation_key(properties: Mapping[str, Any]) -> tuple[str, ...]:
    """Database, schema and name of a relation in lower case, as DuckDB ignores case."""
    name = properties.get("alias") or properties.get("identifier")
    parts = (properties["database"], properties["schema"], name)
    return tuple(str(part or "").lower() for part in parts)


def relation_name(properties: Mapping[str, Any], schema: str) -> str:
    """The name of a model's or a source's relation: with its schema, unless that is the target's `schema`."""
    name = str(properties.get("alias") or properties.get("identifier"))
    own = str(properties.get("schema") or schema)
    return name if own.lower() == schema.lower() else f"{published_schema(own)}.{name}"


# A command asks for it a few times, and a manifest of 1,000 models takes half a second.
@lru_cache(maxsize=1)
def parsed_manifest(content: bytes) -> Mapping[str, Any]:
    """Return what a manifest.json says. Callers share it, so it is for reading alone.

    What reads a source that is a seed reads that seed. The name of a test is that of its check: letters of
    ASCII, digits and `_`, where that of a test of `my-model` has a dash.
    """
    manifest: Mapping[str, Any] = json.loads(content)
    for node in manifest["nodes"].values():
        if node["resource_type"] == "test":
            node["name"] = re.sub(r"\W", "_", node["name"], flags=re.ASCII)
    seeds = seeds_of_sources(manifest)
    for node in manifest["nodes"].values() if seeds else ():
        parents = node["depends_on"].get("nodes", [])
        parents[:] = dict.fromkeys(seeds.get(id, id) for id in parents)
    return manifest


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


def known_models(artifacts: Artifacts) -> set[str]:
    """The unique ids of the models that there were in the last green build."""
    nodes = (last_green(artifacts) or {"nodes": {}})["nodes"]
    return {id for id, node in nodes.items() if is_model(node)}


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

    def qualified_name(self, warehouse: Warehouse) -> str:
        """The full name of the relation as people write it."""
        return warehouse.in_schema(self.database, self.schema).qualified_name(self.identifier)


def find_deleted(
    manifest: Mapping[str, Any], artifacts: Artifacts, warehouse: Warehouse
) -> Sequence[DeletedModel]:
    """Return the models that green builds had, that the project has no more there, and whose relations are.

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
        if is_model(node) and _place(node) != _place(manifest["nodes"].get(id))
    ]
    deleted = {
        (model.database.lower(), model.schema.lower(), model.identifier.lower()): model
        for model in (*recorded, *past_models)
    }
    return [
        model for relation, model in deleted.items() if relation not in taken and _is_ours(model, warehouse)
    ]


def _place(node: Mapping[str, Any] | None) -> Sequence[Any]:
    """Where a model is, as the project says: not as the environment does, which may be another by now."""
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
        warn(deleted_text(model.qualified_name(warehouse), model.name, drop))
        if drop:
            warehouse.in_schema(model.database, model.schema).drop_relation(model.identifier)
    remaining = [] if drop else sorted(deleted, key=lambda model: model.id)
    content = json.dumps([vars(model) for model in remaining], indent=1).encode()
    if content != (artifacts.read(DELETED_MODELS_FILE) or b"[]"):
        artifacts.write(DELETED_MODELS_FILE, content)


def deleted_text(relation: str, model: str, drop: bool) -> str:
    """What becomes of the relation of a deleted model."""
    gone = f"its model {model} is no longer in the dbt project under this name"
    if drop:
        return f"{relation} is dropped: {gone}."
    return (
        f"{relation} is left as it is, but {gone}. To drop it: `serverless run --drop-deleted`, or "
        "`deleted_models: drop` in the launchpad."
    )


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


def dbt_asset_key(properties: Mapping[str, Any]) -> dg.AssetKey:
    """Return the key of a model or source, given its properties in the manifest.

    That of a raw table is the one that ingestion gives it; all others are as dagster-dbt has them.
    """
    if properties["resource_type"] == "source" and is_raw_table(properties):
        return asset_key(properties["identifier"])
    dagster = _dagster_meta(properties)
    if chosen := dagster.get("asset_key"):
        # `key_prefix: false` is for a source that another code location writes.
        has_prefix = dagster.get(KEY_PREFIX, True)
        return asset_key("/".join(dg.AssetKey(chosen).path)) if has_prefix else dg.AssetKey(chosen)
    if properties["resource_type"] == "source":
        return asset_key(f"{properties['source_name']}/{properties['name']}")
    if properties.get("version"):
        return asset_key(properties["alias"])
    schema = (properties.get("config") or {}).get("schema")
    return asset_key(properties["name"] if schema is None else f"{schema}/{properties['name']}")


def source_keys_of_others(manifest: Mapping[str, Any]) -> Collection[dg.AssetKey]:
    """Return the keys of the sources that another code location writes."""
    return {
        dbt_asset_key(source)
        for source in manifest["sources"].values()
        if _dagster_meta(source).get(KEY_PREFIX) is False
    }


def _dagster_meta(properties: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return what `meta: {dagster: ...}` of a model or source says."""
    meta = (properties.get("config") or {}).get("meta") or properties.get("meta") or {}
    return meta.get("dagster") or {}


def asset_names(manifest: Mapping[str, Any]) -> Mapping[str, str]:
    """Return the name of the asset of each model of a manifest, by dbt's unique id."""
    return {id: asset_name(dbt_asset_key(node)) for id, node in manifest["nodes"].items() if is_model(node)}
