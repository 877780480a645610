"""Artifacts in a folder."""

from dataclasses import dataclass
from pathlib import Path

from serverless_assets.artifacts import ArtifactError, Place, refuse_paths
from serverless_assets.files import is_writable, write_atomically


@dataclass(frozen=True)
class LocalArtifacts:
    """See `Artifacts`. Files are written to `folder` and read from `published`."""

    folder: Path
    published: Path

    @property
    def name(self) -> str:
        return f"the folder {self.published}"

    def write(self, name: str, content: bytes) -> Place:
        refuse_paths(name)
        write_atomically(self.folder / name, content)
        return self.place(name)

    def read(self, name: str) -> bytes | None:
        refuse_paths(name)
        try:
            return (self.folder / name).read_bytes()
        except FileNotFoundError:
            return None

    def place(self, name: str) -> Place:
        return Place(str(self.published / name))

    def names(self, prefix: str) -> list[str]:
        found = self.folder.iterdir() if self.folder.is_dir() else []
        return sorted(path.name for path in found if path.name.startswith(prefix) and path.is_file())

    def delete(self, name: str) -> None:
        refuse_paths(name)
        (self.folder / name).unlink(missing_ok=True)

    def check(self) -> str:
        if not is_writable(self.folder):
            raise ArtifactError(
                f"{self.folder} cannot be written to: set SERVERLESS_HOME to a folder of yours."
            )
        return f"{len(list(self.published.glob('*')))} files"
