"""Publishing on one machine: releases are folders, and one symbolic link says which is current.

    warehouse.duckdb -> current/warehouse.duckdb        what people and tools open
    artifacts        -> current/artifacts
    current          -> releases/<latest>               swapped by one atomic rename
    releases/        the latest release and the one before
    work/            what runs write to, green or not; a failed run's work is kept here

Readers hold on to the release that they opened, so they neither block a run nor are blocked.
"""

import json
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from uuid import uuid4

import dagster as dg

from serverless_assets.artifacts.local import LocalArtifacts
from serverless_assets.files import copy_atomically, link_atomically, share_atomically, write_atomically
from serverless_assets.publishing.release import Published, Release, Scratch
from serverless_assets.publishing.run_lock import RunLock
from serverless_assets.publishing.unsettled import Unsettled
from serverless_assets.warehouse.duckdb import DuckDBWarehouse

RELEASES_KEPT = 2


@dataclass(frozen=True)
class Layout:
    """Where things are below SERVERLESS_HOME."""

    home: Path

    @property
    def warehouse(self) -> Path:
        return self.home / "warehouse.duckdb"

    @property
    def artifacts(self) -> Path:
        return self.home / "artifacts"

    @property
    def current(self) -> Path:
        return self.home / "current"

    @property
    def releases(self) -> Path:
        return self.home / "releases"

    @property
    def work(self) -> Path:
        return self.home / "work"

    @property
    def working_warehouse(self) -> Path:
        return self.work / "warehouse.duckdb"

    @property
    def working_artifacts(self) -> Path:
        return self.work / "artifacts"


class LocalRelease(Release):
    """Runs write to a working copy; a green run becomes the next release."""

    def __init__(self, home: Path, dbt_schema: str) -> None:
        super().__init__(home)
        self.layout = Layout(home)
        self._dbt_schema = dbt_schema
        self._lock: RunLock | None = None

    @property
    def warehouse(self) -> DuckDBWarehouse:
        return DuckDBWarehouse(self.layout.working_warehouse, self._dbt_schema)

    @property
    def artifacts(self) -> LocalArtifacts:
        return LocalArtifacts(self.layout.working_artifacts, self.layout.artifacts)

    @property
    def published(self) -> Published:
        # Resolved: a publish between two looks does not mix two releases.
        return Published(
            DuckDBWarehouse(self.layout.warehouse.resolve(), self._dbt_schema, read_only=True),
            LocalArtifacts(self.layout.artifacts.resolve(), self.layout.artifacts),
        )

    @property
    def address(self) -> str | None:
        return str(self.layout.warehouse) if self.layout.warehouse.exists() else None

    @property
    def if_not_published(self) -> str:
        return "What was published before stays as it is."

    @contextmanager
    def scratch(self) -> Iterator[Scratch]:
        # A copy: dbt writes to the file that it reads, and a file that is written to has no other reader.
        # It takes the place of a catalog, whose name is in the manifest: so its own name stays.
        self.layout.home.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=self.layout.home, prefix=".scratch-") as folder:
            copy = DuckDBWarehouse(
                Path(folder) / self.layout.warehouse.name, f"{self._dbt_schema}_ci_{uuid4().hex[:8]}"
            )
            if self.layout.warehouse.exists():
                copy_atomically(self.layout.warehouse, copy.path)
            published = LocalArtifacts(self.layout.artifacts, self.layout.artifacts)
            yield Scratch(copy.schema, published, copy.dbt_variables())

    def open(self, run_id: str, log: dg.DagsterLogManager) -> None:
        self._lock = RunLock(self.layout.work, run_id, log)
        if adopt_published(self.layout):
            log.info(f"Starting from {self.layout.warehouse}: it is not the copy that runs last worked on.")

    def publish(self, run_id: str, log: dg.DagsterLogManager) -> None:
        if publish(self.layout, run_id):
            log.info(f"Published {self.layout.warehouse}.")
        else:
            log.info("Nothing changed, so nothing was published.")

    def close(self) -> None:
        if self._lock:
            self._lock.release()


def adopt_published(layout: Layout) -> bool:
    """Make the published release the working copy if the working copy did not come before it.

    That is so when there is no working copy, and when somebody put another file in the place of the
    published one (restored a backup, say): what they see is then what the next run goes on from.
    """
    if not layout.warehouse.exists():
        return False
    if layout.working_warehouse.exists() and _stamp(layout.warehouse) == _published_stamp(layout):
        return False
    layout.working_warehouse.with_suffix(".duckdb.wal").unlink(missing_ok=True)
    copy_atomically(layout.warehouse, layout.working_warehouse)
    for file in _files(layout.artifacts):
        copy_atomically(file, layout.working_artifacts / file.name)
    Unsettled(layout.home).clear()
    return True


def publish(layout: Layout, run_id: str) -> bool:
    """Make the working copy the current release in one step; False if it already is."""
    working = _stamps([layout.working_warehouse, *_files(layout.working_artifacts)])
    if _release_note(layout).get("working") == working and _stamp(layout.warehouse) == _published_stamp(
        layout
    ):
        return False
    release = layout.releases / f"{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}-{run_id[:8]}"
    unfinished = release.with_name(f".{release.name}")
    (unfinished / "artifacts").mkdir(parents=True)
    if layout.working_warehouse.exists():
        if layout.working_warehouse.with_suffix(".duckdb.wal").exists():
            # A killed run left committed rows in the log beside the file, or dbt still holds it open.
            DuckDBWarehouse(layout.working_warehouse, schema="main").flush()
        working = _stamps([layout.working_warehouse, *_files(layout.working_artifacts)])
        copy_atomically(layout.working_warehouse, unfinished / layout.warehouse.name)
    for file in _files(layout.working_artifacts):
        _take_over(layout, file, unfinished / "artifacts" / file.name)
    note = {
        "run_id": run_id,
        "working": working,
        "warehouse": _stamp(unfinished / layout.warehouse.name),
        "artifacts": _stamps(_files(unfinished / "artifacts")),
    }
    write_atomically(unfinished / "release.json", json.dumps(note).encode())
    unfinished.rename(release)
    link_atomically(Path("releases", release.name), layout.current)
    for path in (layout.warehouse, layout.artifacts):
        _link_through_current(path)
    _remove_old_releases(layout)
    return True


def _take_over(layout: Layout, file: Path, to: Path) -> None:
    """Put a working file into a new release; one that has not changed since the last costs no room there."""
    last, note = layout.current / "artifacts" / file.name, _release_note(layout)
    is_unchanged = note.get("working", {}).get(file.name) == _stamp(file)
    # People may have written to the published one by hand.
    if is_unchanged and last.exists() and note.get("artifacts", {}).get(file.name) == _stamp(last):
        share_atomically(last, to)
    else:
        copy_atomically(file, to)


def _link_through_current(path: Path) -> None:
    target = Path("current", path.name)
    if path.is_symlink() and path.readlink() == target:
        return
    if path.is_dir() and not path.is_symlink():
        # Somebody's own folder is moved aside, never deleted.
        path.rename(path.with_name(f"{path.name}.before-{datetime.now(UTC):%Y%m%dT%H%M%SZ}"))
    link_atomically(target, path)


def _remove_old_releases(layout: Layout) -> None:
    current = layout.current.resolve().name
    folders = [path for path in layout.releases.iterdir() if path.is_dir()]
    unfinished = [path for path in folders if path.name.startswith(".")]
    # The current release comes last, even if a clock that went back gave it an early name.
    finished = sorted(set(folders) - set(unfinished), key=lambda path: (path.name == current, path.name))
    for path in [*finished[:-RELEASES_KEPT], *unfinished]:
        shutil.rmtree(path)


def _release_note(layout: Layout) -> dict[str, Any]:
    path = layout.current / "release.json"
    return json.loads(path.read_text()) if path.exists() else {}


def _published_stamp(layout: Layout) -> object:
    return _release_note(layout).get("warehouse")


def _stamps(files: Iterable[Path]) -> dict[str, object]:
    return {file.name: _stamp(file) for file in files}


def _stamp(file: Path) -> list[int] | None:
    """What tells that a file was written to, without reading it: its size and time of change."""
    if not file.exists():
        return None
    found = file.stat()
    return [found.st_size, found.st_mtime_ns]


def _files(folder: Path) -> list[Path]:
    # A hidden file is what a killed write left behind.
    found = folder.iterdir() if folder.is_dir() else []
    return sorted(path for path in found if path.is_file() and not path.name.startswith("."))
