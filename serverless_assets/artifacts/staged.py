"""Artifacts that wait in a folder of the store until the run that wrote them is published.

Another folder keeps those of earlier releases, each once, by the hash of its content.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from serverless_assets.artifacts import ArtifactError, Artifacts, StoredFile, refuse_paths
from serverless_assets.hashing import digest

FILES_AT_ONCE = 8
# Ends the name of the staged file that says that a published one is to be deleted.
DELETED_SUFFIX = ".deleted"


@dataclass(frozen=True)
class StagedArtifacts:
    """See `Artifacts`. Files are written to `staged`; what is not there is read from `published`.

    `check_turn` raises a `UserError` before a write of a run whose turn another run has taken.
    """

    published: Artifacts
    check_turn: Callable[[], None] = field(default=lambda: None, repr=False, compare=False)

    @property
    def staged(self) -> Artifacts:
        return self.published.in_folder("_work")

    @property
    def bookkeeping(self) -> Artifacts:
        """Files of the runs themselves, which are never published."""
        return self.staged.in_folder("_work")

    @property
    def kept(self) -> Artifacts:
        return self.published.in_folder("_releases")

    @property
    def name(self) -> str:
        return self.published.name

    @property
    def is_scratch(self) -> bool:
        return self.published.is_scratch

    def prepare(self) -> None:
        self.published.prepare()
        self.staged.prepare()
        self.kept.prepare()

    def clear(self) -> None:
        # Both folders are part of the store.
        self.published.clear()

    def in_folder(self, name: str) -> Artifacts:
        return self.published.in_folder(name)

    def write(self, name: str, content: bytes) -> StoredFile:
        self.check_turn()
        self.staged.delete(name + DELETED_SUFFIX)
        self.staged.write(name, content)
        return self.place(name)

    def read(self, name: str) -> bytes | None:
        refuse_paths(name)
        staged = self.staged.names(name)
        if name + DELETED_SUFFIX in staged:
            return None
        return (self.staged if name in staged else self.published).read(name)

    def place(self, name: str) -> StoredFile:
        return self.published.place(name)

    def names(self, prefix: str) -> list[str]:
        staged = set(self.staged.names(prefix))
        names = staged | set(self.published.names(prefix))
        return sorted(
            name
            for name in names
            if not name.endswith(DELETED_SUFFIX) and name + DELETED_SUFFIX not in staged
        )

    def delete(self, name: str) -> None:
        refuse_paths(name)
        self.check_turn()
        self.staged.write(name + DELETED_SUFFIX, b"")
        self.staged.delete(name)

    def check(self) -> str:
        return self.published.check()

    def changed(self) -> Sequence[str]:
        """The names of the files that the next `publish` writes or deletes."""
        return sorted(name.removesuffix(DELETED_SUFFIX) for name in self.staged.names(""))

    def publish(self) -> None:
        """Put the staged files, side by side, in the places where people read them; `settle` completes that.

        Each appears whole. Interrupted at any point, the next call does the rest.

        Raises:
            ArtifactError: some are not there yet.
        """

        def put(name: str) -> None:
            if name.endswith(DELETED_SUFFIX):
                self.published.delete(name.removesuffix(DELETED_SUFFIX))
                return
            content = self.staged.read(name)
            if content is not None and content != self.published.read(name):
                self.published.write(name, content)

        with ThreadPoolExecutor(FILES_AT_ONCE) as pool:
            list(pool.map(put, self.staged.names("")))

    def settle(self) -> None:
        """Forget what was staged: it is published, and the release is recorded."""
        for name in self.staged.names(""):
            self.staged.delete(name)

    def keep(self, before: Mapping[str, str]) -> Mapping[str, str]:
        """Keep a copy of every file that the next `publish` leaves where people read.

        Args:
            before: what this returned for the last release; files that did not change since are not read.

        Returns:
            By name, what `restore` finds the copy by.
        """
        changed, there = set(self.changed()), set(self.kept.names(""))
        keys = {}
        for name in self.names(""):
            if name not in changed and before.get(name) in there:
                keys[name] = before[name]
            elif (content := self.read(name)) is not None:
                keys[name] = digest(content, 32)
                if keys[name] not in there:
                    self.kept.write(keys[name], content)
        return keys

    def restore(self, keys: Mapping[str, str], now: Mapping[str, str]) -> None:
        """Stage the files that `keep` returned these keys for; files of other names stay as they are.

        Args:
            now: the keys of the files that people read.

        Raises:
            ArtifactError: not all of them are staged.
        """
        self.refuse_missing(keys)
        self.settle()
        for name, key in keys.items():
            if now.get(name) != key:
                self.staged.write(name, self.kept.read(key) or b"")

    def refuse_missing(self, keys: Mapping[str, str]) -> None:
        """Raise `ArtifactError` unless all of the copies with these keys are there."""
        there = set(self.kept.names(""))
        for name, key in keys.items():
            if key not in there:
                raise ArtifactError(
                    f"The release cannot be returned to: {self.kept.place(key).address}, the copy of {name}, "
                    "is not there. Nothing was changed."
                )

    def forget(self, keys: Collection[str]) -> None:
        """Delete the copies with other keys: no release that is kept has them."""
        for key in set(self.kept.names("")) - set(keys):
            self.kept.delete(key)
