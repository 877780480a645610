"""Where things are below SERVERLESS_HOME, and the repair of folders and links that were damaged.

    warehouse.duckdb -> current/warehouse.duckdb        what people and tools open
    artifacts        -> current/artifacts
    current          -> releases/<latest>               swapped by one atomic rename
    releases/        the latest releases
    work/            what runs write to, green or not; a failed run's work is kept here

Links can be derived and are made again. What somebody put in their place is moved aside, never deleted.
"""

import os
from datetime import UTC, datetime
from pathlib import Path

from serverless_assets.errors import UserError
from serverless_assets.files import is_writable, link_atomically, make_folder, move_aside


class HomeError(UserError):
    """SERVERLESS_HOME cannot be used as it is; the message says which file and what to do."""


class Layout:
    """The paths below `home`, which is SERVERLESS_HOME."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.warehouse = home / "warehouse.duckdb"
        self.artifacts = home / "artifacts"
        self.current = home / "current"
        self.releases = home / "releases"
        self.work = home / "work"
        self.working_warehouse = self.work / "warehouse.duckdb"
        self.working_artifacts = self.work / "artifacts"
        # A file for each artifact that runs have written or deleted since the last publish.
        self.artifact_changes = self.work / "artifacts.changes"
        # The record of the release that the working copy was made from.
        self.base = self.work / "base.json"

    @property
    def release(self) -> Path | None:
        """The folder of the current release, `current` resolved once; None before the first publish."""
        return self.current.resolve() if self.current.is_dir() else None

    def published(self) -> tuple[Path, Path]:
        """The warehouse and the artifacts that people read, of one and the same release."""
        release = self.release or self.current
        warehouse, artifacts = (
            path if is_replaced(path) else release / path.name for path in (self.warehouse, self.artifacts)
        )
        return warehouse, artifacts


def new_release_name(label: str) -> str:
    """A name for a release that sorts after those before it."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}-{label}"


def is_replaced(path: Path) -> bool:
    """Whether somebody put a file or folder of their own in the place of a published link."""
    return path.exists() and not _is_our_link(path)


def prepare_work_folder(layout: Layout) -> None:
    """Make the folder that runs write to, which also has their lock.

    Raises:
        HomeError: the home cannot be written to.
    """
    if not is_writable(layout.home):
        raise HomeError(
            f"SERVERLESS_HOME is {layout.home}, which is not a folder that can be written to. Make it "
            "writable for this user, or choose another folder."
        )
    make_folder(layout.work)


def repair(layout: Layout) -> None:
    """Make folders and links that are missing or damaged again. Call it where the run lock is held."""
    for folder in (layout.releases, layout.working_artifacts):
        make_folder(folder)
    _repair_current(layout)
    if layout.release is None:
        return
    if layout.warehouse.is_dir() and not layout.warehouse.is_symlink():
        move_aside(layout.warehouse)
    if layout.artifacts.is_file() and not layout.artifacts.is_symlink():
        move_aside(layout.artifacts)
    for path in (layout.warehouse, layout.artifacts):
        if not is_replaced(path):
            _link_through_current(path)


def link_published(layout: Layout, adopted: object) -> None:
    """Make what people open links through `current`.

    A warehouse that somebody put there and whose stamp is `adopted` is part of the release by now.
    Anything else that is not a link is moved aside.
    """
    for path in (layout.warehouse, layout.artifacts):
        if is_replaced(path) and not path.is_symlink() and (adopted is None or stamp(path) != adopted):
            move_aside(path)
        _link_through_current(path)


def stamp(file: Path) -> list[int] | None:
    """The size and the time of change of a file, which tell that it was written to without reading it."""
    if not file.is_file():
        return None
    stat = file.stat()
    return [stat.st_size, stat.st_mtime_ns]


def _repair_current(layout: Layout) -> None:
    current = layout.current
    if current.is_symlink() and current.is_dir():
        return
    if current.is_dir():
        # A copy of a home may have the folder itself in the place of the link: it is what people read.
        name = new_release_name("restored")
        if (current / layout.warehouse.name).is_file() or (current / layout.artifacts.name).is_dir():
            os.rename(current, layout.releases / name)
            link_atomically(Path("releases", name), current)
            return
    if not current.is_symlink():
        move_aside(current)
    releases = sorted(
        path for path in layout.releases.iterdir() if path.is_dir() and not path.name.startswith(".")
    )
    if releases:
        link_atomically(Path("releases", releases[-1].name), current)
    else:
        current.unlink(missing_ok=True)


def _link_through_current(path: Path) -> None:
    if not _is_our_link(path):
        link_atomically(Path("current", path.name), path)


def _is_our_link(path: Path) -> bool:
    return path.is_symlink() and path.readlink() == Path("current", path.name)
