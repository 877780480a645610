"""Artifacts that wait in the store's staging place until the run that wrote them is published."""

from collections.abc import Sequence
from dataclasses import dataclass

from serverless_assets.artifacts import Artifacts, StoredFile, refuse_paths

# Ends the name of the staged file that says that a published one is to be deleted.
DELETED = ".deleted"


@dataclass(frozen=True)
class StagedArtifacts:
    """See `Artifacts`. Files are written to `staged`; what is not there is read from `published`."""

    staged: Artifacts
    published: Artifacts

    @property
    def name(self) -> str:
        return self.published.name

    @property
    def is_scratch(self) -> bool:
        return self.published.is_scratch

    def prepare(self) -> None:
        self.published.prepare()
        self.staged.prepare()

    def clear(self) -> None:
        # The staging place is part of the store.
        self.published.clear()

    def staging(self) -> Artifacts:
        return self.staged

    def write(self, name: str, content: bytes) -> StoredFile:
        self.staged.delete(name + DELETED)
        self.staged.write(name, content)
        return self.place(name)

    def read(self, name: str) -> bytes | None:
        refuse_paths(name)
        found = self.staged.names(name)
        if name + DELETED in found:
            return None
        return (self.staged if name in found else self.published).read(name)

    def place(self, name: str) -> StoredFile:
        return self.published.place(name)

    def names(self, prefix: str) -> list[str]:
        staged = set(self.staged.names(prefix))
        names = staged | set(self.published.names(prefix))
        return sorted(name for name in names if not name.endswith(DELETED) and name + DELETED not in staged)

    def delete(self, name: str) -> None:
        refuse_paths(name)
        self.staged.write(name + DELETED, b"")
        self.staged.delete(name)

    def check(self) -> str:
        return self.published.check()

    def publish(self) -> Sequence[str]:
        """Put each staged file in the place where people read it, and return the names of all.

        Each appears whole. Interrupted at any point, the next call does the rest.

        Raises:
            ArtifactError: some are still staged.
        """
        staged = self.staged.names("")
        for name in staged:
            if name.endswith(DELETED):
                self.published.delete(name.removesuffix(DELETED))
            else:
                content = self.staged.read(name)
                if content is not None and content != self.published.read(name):
                    self.published.write(name, content)
            self.staged.delete(name)
        return staged
