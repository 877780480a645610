"""The dbt manifest of the last green build, kept in the artifact store with those before it.

A pull request is compared with it (`--state`), and reads the models that it leaves alone where that says
(`--defer`).
"""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from serverless_assets.artifacts import Artifacts
from serverless_assets.hashing import json_digest
from serverless_assets.transformation.fingerprints import is_model

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
