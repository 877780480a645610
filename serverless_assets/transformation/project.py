"""The dbt project: where it is, and its manifest, built once for each state of the project."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from serverless_assets.errors import UserError
from serverless_assets.files import write_atomically
from serverless_assets.transformation import dbt
from serverless_assets.transformation.project_files import project_state, project_vars


class ManifestError(UserError):
    """The dbt project cannot be parsed; the message is dbt's."""


@dataclass(frozen=True)
class Project:
    """The dbt project as one environment sees it. `target` holds what dbt derives from it."""

    directory: Path
    target: Path
    variables: Mapping[str, str]

    @property
    def partial_parse(self) -> Path:
        """What parsing the project left behind, for the next dbt command to start from."""
        return self.target / "partial_parse.msgpack"

    @property
    def runs(self) -> Path:
        """Where dbt writes what it compiles and what became of it in a run."""
        return self.target / "runs"

    def manifest(self) -> Path:
        """The path of a manifest that is up to date, parsing the project only if it changed.

        Raises:
            ManifestError: the project cannot be parsed.
        """
        path, state = self.target / "manifest.json", self.target / "manifest.state"
        wanted = project_state(self.directory, self.variables)
        if _is_current(path, state, wanted):
            return path
        self.target.mkdir(parents=True, exist_ok=True)
        # Several processes of the UI load the definitions at once: one parses, the others wait.
        with FileLock(self.target / "manifest.lock"):
            if not _is_current(path, state, wanted):
                failed = dbt.invoke(["parse"], self.directory, self.target, self.variables)
                if failed:
                    raise ManifestError(f"The dbt project cannot be parsed: {failed}")
                write_atomically(state, f"{wanted} {_digest(path)}".encode())
        return path

    def read_manifest(self) -> Mapping[str, Any]:
        """The content of the manifest that is up to date.

        Raises:
            ManifestError: the project cannot be parsed.
        """
        found: Mapping[str, Any] = json.loads(self.manifest().read_text())
        return found

    def vars(self) -> Mapping[str, Any]:
        """The project's vars and those of its packages, by name."""
        return project_vars(self.directory)


def _is_current(manifest: Path, state: Path, wanted: str) -> bool:
    # A manifest that was damaged is made again.
    return (
        manifest.exists()
        and state.exists()
        and state.read_bytes() == f"{wanted} {_digest(manifest)}".encode()
    )


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
