"""What the layers need of an object store."""

from typing import Protocol


class Artifacts(Protocol):
    """Named files, each written whole or not at all."""

    def write(self, name: str, content: bytes) -> str:
        """Write the file and return where readers find it once the run is published."""
