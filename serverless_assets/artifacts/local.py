"""Artifacts in a folder."""

from dataclasses import dataclass
from pathlib import Path

from serverless_assets.files import write_atomically


@dataclass(frozen=True)
class LocalArtifacts:
    """See `Artifacts`. Files are written to `folder` and read from `published`."""

    folder: Path
    published: Path

    def write(self, name: str, content: bytes) -> str:
        path = self.folder / name
        if path.parent != self.folder or name in (".", ".."):
            raise ValueError(f"{name!r} is not a plain file name")
        write_atomically(path, content)
        return str(self.published / name)
