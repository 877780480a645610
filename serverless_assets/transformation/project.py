"""The dbt project: its files, the variables that they read, and its manifest, parsed once for each state."""

import hashlib
import logging
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from filelock import FileLock

from serverless_assets.errors import UserError
from serverless_assets.files import write_atomically
from serverless_assets.hashing import file_digest
from serverless_assets.transformation import dbt_runner
from serverless_assets.transformation.manifest import TargetSchema, parsed_manifest
from serverless_assets.transformation.profiles import TARGET_NAME, attached_types, read_yaml, target_name
from serverless_assets.transformation.refusals import refuse_project
from serverless_assets.warehouse.duckdb_file import databases_beside

log = logging.getLogger(__name__)


class ManifestError(UserError):
    """The dbt project cannot be parsed; the message is dbt's."""


@dataclass(frozen=True)
class Project:
    """The dbt project as one environment sees it. `target` holds what dbt derives from it."""

    directory: Path
    target: Path
    variables: Mapping[str, str]

    @property
    def target_schema(self) -> TargetSchema:
        return TargetSchema.of(self.variables)

    @property
    def environ(self) -> Mapping[str, str]:
        """The environment variables that the project's code sees, and the name of its target."""
        name = target_name(self.directory, self.variables["SERVERLESS_ENV"])
        return {**os.environ, **self.variables, TARGET_NAME: name}

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
            ProjectRefused: it declares what cannot be built.
        """
        path, state = self.target / "manifest.json", self.target / "manifest.state"
        state_hash = project_state(self.directory, self.variables)
        if _is_current(path, state, state_hash):
            return path
        self.target.mkdir(parents=True, exist_ok=True)
        # Several processes of the UI load the definitions at once: one parses, the others wait.
        with FileLock(self.target / "manifest.lock"):
            if self._install_packages():
                state_hash = project_state(self.directory, self.variables)
            if not _is_current(path, state, state_hash):
                log.info(f"Parsing the dbt project {self.directory}, which is new or changed.")
                failed = dbt_runner.invoke(["parse"], self.directory, self.target, self.variables)
                if failed:
                    raise ManifestError(f"The dbt project cannot be parsed: {failed}")
                attached = attached_types(self.directory, self.variables["SERVERLESS_ENV"])
                refuse_project(parsed_manifest(path.read_bytes()), self.variables, attached)
                write_atomically(state, f"{state_hash} {file_digest(path)}".encode())
        return path

    def _install_packages(self) -> bool:
        """Run `dbt deps` if the project's packages are not those that are installed, and say whether it ran.

        What is installed is noted in the folder of the packages; a folder without the note was filled by
        hand, and is taken to be up to date.
        """
        files = [self.directory / name for name in ("packages.yml", "dependencies.yml")]
        contents = [path.read_bytes() for path in files if path.is_file()]
        if not any(re.search(rb"^packages\s*:", content, re.MULTILINE) for content in contents):
            return False
        folder = packages_folder(self.directory)
        note, content_hash = folder / ".installed", hashlib.sha256(b"\n".join(contents)).hexdigest()
        to_install = note.read_text() != content_hash if note.exists() else not folder.exists()
        if to_install:
            failed = dbt_runner.invoke(["deps"], self.directory, self.target, self.variables)
            if failed:
                raise ManifestError(_deps_failure(failed, folder))
        if to_install or not note.exists():
            folder.mkdir(parents=True, exist_ok=True)
            write_atomically(note, content_hash.encode())
        return to_install

    def read_manifest(self) -> Mapping[str, Any]:
        """The content of the manifest that is up to date.

        Raises:
            ManifestError: the project cannot be parsed.
        """
        return parsed_manifest(self.manifest().read_bytes())

    def vars(self) -> Mapping[str, Any]:
        """The value of each var in the project and its packages; all of them if packages have their own."""
        packages = packages_folder(self.directory).glob("*/dbt_project.yml")
        values: dict[str, list[Any]] = {}
        for path in (self.directory / "dbt_project.yml", *sorted(packages)):
            for name, value in (read_yaml(path).get("vars") or {}).items():
                values.setdefault(name, []).append(value)
                # A mapping may hold the vars of the package of that name.
                for inner, inner_value in value.items() if isinstance(value, dict) else ():
                    values.setdefault(inner, []).append([name, inner_value])
        return {name: declared[0] if len(declared) == 1 else declared for name, declared in values.items()}


def _deps_failure(failure: str, folder: Path) -> str:
    """Say why `dbt deps` failed, and what to do if it did not reach the host of a package."""
    host = re.search(r"host='([^']+)'|Could not resolve host: (\S+)|unable to access '([^']+)'", failure)
    if host is None:
        return f"The packages of the dbt project cannot be installed: {failure}"
    name = next(filter(None, host.groups()))
    return (
        f"The packages of the dbt project cannot be installed: {name} cannot be reached from this machine. "
        "Set HTTPS_PROXY if there is a proxy. Or run `dbt deps` where there is a network and copy "
        f"its folder to {folder}: packages that are there are not installed again."
    )


def _is_current(manifest: Path, state: Path, state_hash: str) -> bool:
    # A manifest that was damaged is made again.
    return (
        manifest.exists()
        and state.exists()
        and state.read_bytes() == f"{state_hash} {file_digest(manifest)}".encode()
    )


# Folders of the project itself that dbt and other tools write to. A folder of models may have these names.
WRITTEN_FOLDERS = frozenset({"target", "logs", "node_modules", "venv"})
PATHS = (
    "model-paths", "seed-paths", "macro-paths", "test-paths", "snapshot-paths", "analysis-paths",
    "docs-paths", "asset-paths", "function-paths",
)  # fmt: skip
# dbt takes the content of a larger seed for its path alone.
LARGEST_TEXT = 1 << 20
PARSERS = ("dbt-core", "dbt-adapters", "dbt-duckdb", "dbt-bigquery")

_ENVIRONMENT_VARIABLE = re.compile(rb"""env_var\(\s*['"]([^'"]+)['"]""")


def project_state(directory: Path, variables: Mapping[str, str]) -> str:
    """Return a hash of all that dbt's parse of the project depends on.

    Args:
        directory: the project's folder.
        variables: the environment variables that dbt is run with, beside those of this process.
    """
    digest = hashlib.sha256()
    names: set[str] = set()
    for path in sorted(project_files(directory)):
        digest.update(f"{os.path.relpath(path, directory)}\n".encode())
        try:
            stat = path.stat()
            content = path.read_bytes() if stat.st_size <= LARGEST_TEXT else b""
        except OSError:
            # Deleted meanwhile, or not to be read: dbt will say so.
            continue
        if stat.st_size > LARGEST_TEXT:
            # The change of the inode shows a copy that keeps size and time.
            digest.update(f"{stat.st_size} {stat.st_mtime_ns} {stat.st_ctime_ns}\n".encode())
        digest.update(hashlib.sha256(content).digest())
        names.update(name.decode(errors="replace") for name in _ENVIRONMENT_VARIABLE.findall(content))
    environ = {**{name: os.environ.get(name) for name in names}, **variables}
    digest.update(repr(sorted(environ.items())).encode())
    digest.update(repr([version(package) for package in PARSERS]).encode())
    if warehouse := variables.get("SERVERLESS_DUCKDB_PATH"):
        # They are attached, and dbt parses all anew for another connection.
        digest.update(repr([file.name for file in databases_beside(Path(warehouse))]).encode())
    return digest.hexdigest()


def project_files(directory: Path) -> set[Path]:
    """Every file that dbt may read: all in the project's folder, and in folders beside it that it names."""
    settings = read_yaml(directory / "dbt_project.yml")
    outside = [directory / path for key in PATHS for path in settings.get(key) or ()]
    outside.append(packages_folder(directory))
    return {
        *_walk(directory, WRITTEN_FOLDERS),
        *(file for folder in outside for file in _walk(folder, frozenset())),
    }


def packages_folder(directory: Path) -> Path:
    """The folder that `dbt deps` installs packages into."""
    settings = read_yaml(directory / "dbt_project.yml")
    return directory / (settings.get("packages-install-path") or "dbt_packages")


def _walk(root: Path, ignored_in_root: frozenset[str]) -> Iterator[Path]:
    visited: set[str] = set()
    # Packages installed from a folder are symbolic links, which may lead in a circle.
    for parent, folders, files in os.walk(root, followlinks=True):
        if os.path.realpath(parent) in visited:
            folders.clear()
            continue
        visited.add(os.path.realpath(parent))
        ignored = ignored_in_root if Path(parent) == root else frozenset({"__pycache__"})
        folders[:] = [name for name in folders if name not in ignored and not name.startswith(".")]
        for name in files:
            path = Path(parent, name)
            if (not name.startswith(".") or name == ".dbtignore") and path.is_file():
                yield Path(os.path.normpath(path))
