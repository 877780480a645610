"""What is known of earlier builds.

The warehouse keeps with each relation the state that it was built from. The artifact store keeps the dbt
manifest of the last green build, with those before it: a pull request is compared with it (`--state`), and
reads the models that it leaves alone where that says (`--defer`).
"""

import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from serverless_assets.artifacts import Artifacts
from serverless_assets.hashing import json_digest
from serverless_assets.transformation.fingerprints import MODELS, Materialization, Node
from serverless_assets.warehouse import Warehouse

Stored = Mapping[str, Any]


def warehouse_of(warehouse: Warehouse, node: Node) -> Warehouse:
    """The warehouse, as of the schema that a model is built in."""
    return warehouse.in_schema(node.database, node.schema)


def states_of(
    warehouse: Warehouse, nodes: Iterable[Node], states: Mapping[str, Stored] | None = None
) -> Mapping[str, Stored]:
    """The note of every relation in the target's schema and in those of the models, by its name there.

    `states` are those of the target's schema, if they are not to be read.
    """
    by_name = dict(warehouse.read_states() if states is None else states)
    elsewhere: dict[str, list[Node]] = {}
    for node in nodes:
        if node.kind != Materialization.EPHEMERAL and node.name != node.identifier:
            elsewhere.setdefault(node.schema, []).append(node)
    for models in elsewhere.values():
        there = warehouse_of(warehouse, models[0]).read_states()
        by_name |= {node.name: there[node.identifier] for node in models if node.identifier in there}
    return by_name


def write_states(warehouse: Warehouse, states: Iterable[tuple[Node, Stored]]) -> None:
    """Keep a note with the relation of each model that there is, in the place of the one it has."""
    by_schema: dict[str, dict[str, Stored]] = {}
    places: dict[str, Warehouse] = {}
    for node, note in states:
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


def qualified_name(warehouse: Warehouse, node: Node) -> str:
    """The full name of a model's relation, as people write it."""
    return warehouse_of(warehouse, node).qualified_name(node.identifier)


MANIFEST, RUN_RESULTS = "dbt-manifest.json", "dbt-run_results.json"
HISTORY_PREFIX, HISTORY_KEPT = "dbt-manifest-", 10

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
    return {id for id, node in nodes.items() if node["resource_type"] in MODELS}


def substance(manifest: Mapping[str, Any]) -> str:
    """A hash of what a manifest says of the project, and not of when it was written. Pure."""
    kept = {section: _lasting(section, found) for section, found in manifest.items()}
    return json_digest(kept, 64)


def _lasting(section: str, found: Any) -> Any:
    if section == "metadata":
        return {key: value for key, value in found.items() if key not in VOLATILE_METADATA}
    if not isinstance(found, dict):
        return found
    return {
        id: {key: value for key, value in entry.items() if key not in VOLATILE_OF_NODES}
        if isinstance(entry, dict)
        else entry
        for id, entry in found.items()
    }
