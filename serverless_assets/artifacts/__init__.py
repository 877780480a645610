"""What the layers need of an object store."""

from dataclasses import dataclass
from typing import Protocol

from serverless_assets.errors import UserError


class ArtifactError(UserError):
    """The object store refused: the message says what and what to do."""


@dataclass(frozen=True)
class StoredFile:
    """Where readers find a file once the run is published: a path or a `gs://` address.

    `link` is a page that a browser opens, if there is one.
    """

    address: str
    link: str | None = None


def refuse_paths(name: str) -> None:
    """Raise `ArtifactError` for anything but a plain file name: it would lead somewhere else."""
    if name in ("", ".", "..") or any(character in name for character in "/\\\0\r\n"):
        raise ArtifactError(f"{name!r} is not a plain file name")


class Artifacts(Protocol):
    """Named files, each written whole or not at all."""

    @property
    def name(self) -> str:
        """What people call it: a folder, a bucket."""

    @property
    def is_scratch(self) -> bool:
        """Whether the files are those of a branch alone, which `clear` deletes."""

    def prepare(self) -> None:
        """Create the folder or bucket if there is none.

        Raises:
            ArtifactError: it cannot be created.
        """

    def clear(self) -> None:
        """Delete every file of a branch.

        Raises:
            ArtifactError: some are still there, or the store is not a branch's alone.
        """

    def in_folder(self, name: str) -> "Artifacts":
        """A folder of this store, whose files are none of its own."""

    def write(self, name: str, content: bytes) -> StoredFile:
        """Write the file under a plain name and return where readers find it.

        Raises:
            ArtifactError: nothing changed.
        """

    def read(self, name: str) -> bytes | None:
        """The file as it was last written, published or not; None if there is none.

        Raises:
            ArtifactError: it cannot be read.
        """

    def place(self, name: str) -> StoredFile:
        """Where readers find the file of that name."""

    def names(self, prefix: str) -> list[str]:
        """The names that begin so, of files that `read` would read, in order.

        Raises:
            ArtifactError: they cannot be listed.
        """

    def delete(self, name: str) -> None:
        """Delete the file, if there is one.

        Raises:
            ArtifactError: it is still there.
        """

    def check(self) -> str:
        """What there is, without changing anything.

        Raises:
            ArtifactError: it cannot be used.
        """
