"""Artifacts in a folder."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from serverless_assets.artifacts import ArtifactError, StoredFile, refuse_paths
from serverless_assets.files import is_writable, write_atomically

Change = Literal["written", "deleted"]


@dataclass(frozen=True)
class LocalArtifacts:
    """See `Artifacts`. Files are written to `folder` and read from `published`.

    Which of them were written or deleted is recorded in the folder `changes`, if there is one, before it
    happens: a file that differs from the published one and has no record was damaged.
    """

    folder: Path
    published: Path
    changes: Path | None = None

    @property
    def name(self) -> str:
        return f"the folder {self.published}"

    @property
    def is_scratch(self) -> bool:
        return False

    def prepare(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)

    def clear(self) -> None:
        raise ArtifactError(f"{self.name} is part of SERVERLESS_HOME, and is not cleared by itself")

    def in_folder(self, name: str) -> "LocalArtifacts":
        folder = self.folder / name
        return LocalArtifacts(folder, folder)

    def write(self, name: str, content: bytes) -> StoredFile:
        refuse_paths(name)
        self._record("written", name)
        write_atomically(self.folder / name, content)
        return self.place(name)

    def read(self, name: str) -> bytes | None:
        refuse_paths(name)
        try:
            return (self.folder / name).read_bytes()
        except (FileNotFoundError, IsADirectoryError):
            return None

    def place(self, name: str) -> StoredFile:
        return StoredFile(str(self.published / name))

    def names(self, prefix: str) -> list[str]:
        paths = self.folder.iterdir() if self.folder.is_dir() else []
        return sorted(path.name for path in paths if path.name.startswith(prefix) and path.is_file())

    def delete(self, name: str) -> None:
        refuse_paths(name)
        self._record("deleted", name)
        (self.folder / name).unlink(missing_ok=True)

    def check(self) -> str:
        if not is_writable(self.folder):
            raise ArtifactError(
                f"{self.folder} cannot be written to: set SERVERLESS_HOME to a folder of yours."
            )
        return f"{len(list(self.published.glob('*')))} files"

    def _record(self, change: Change, name: str) -> None:
        if self.changes is not None:
            write_atomically(self.changes / name, change.encode())


def read_change(changes: Path, name: str) -> Change | None:
    """Whether an artifact was written or deleted since the changes were last forgotten; None if neither."""
    try:
        return "deleted" if (changes / name).read_bytes() == b"deleted" else "written"
    except OSError:
        return None
