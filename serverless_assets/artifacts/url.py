"""Artifacts at any address that fsspec knows: a disk, S3, Azure, memory."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from upath import UPath

from serverless_assets.artifacts import ArtifactError, StoredFile, refuse_paths
from serverless_assets.files import write_atomically


@dataclass(frozen=True)
class UrlArtifacts:
    """An implementation of `Artifacts` for a folder at an address such as `s3://bucket/forecasts`.

    `branch` is the branch that the files belong to: they are in a folder of their own. `folder` is one below.
    """

    url: str
    branch: str | None = None
    folder: str = ""

    @cached_property
    def _folder(self) -> UPath:
        try:
            root = UPath(self.url)
        except (ValueError, ImportError) as error:
            raise ArtifactError(
                f"SERVERLESS_ARTIFACTS_URL {self.url!r} cannot be used: {error}. Use an address that fsspec "
                "knows, such as file:///data/forecasts, and install the package for it if it needs one."
            ) from error
        place = root / "branches" / self.branch if self.branch else root
        return place / self.folder if self.folder else place

    @property
    def name(self) -> str:
        return str(self._folder)

    @property
    def is_scratch(self) -> bool:
        return self.branch is not None

    def prepare(self) -> None:
        with self._errors(self.name):
            self._folder.mkdir(parents=True, exist_ok=True)

    def in_folder(self, name: str) -> "UrlArtifacts":
        return replace(self, folder=f"{self.folder}/{name}".lstrip("/"))

    def write(self, name: str, content: bytes) -> StoredFile:
        refuse_paths(name)
        file = self._folder / name
        with self._errors(str(file)):
            if file.protocol in ("", "file", "local"):
                write_atomically(Path(file.path), content)
            else:
                # Object stores show a file only once all of it is there.
                file.write_bytes(content)
        return self.place(name)

    def read(self, name: str) -> bytes | None:
        refuse_paths(name)
        file = self._folder / name
        with self._errors(str(file)):
            try:
                return file.read_bytes()
            except (FileNotFoundError, IsADirectoryError):
                return None

    def place(self, name: str) -> StoredFile:
        return StoredFile(str(self._folder / name))

    def names(self, prefix: str) -> list[str]:
        with self._errors(self.name):
            if not self._folder.is_dir():
                return []
            return sorted(
                path.name
                for path in self._folder.iterdir()
                if path.name.startswith(prefix) and path.is_file()
            )

    def delete(self, name: str) -> None:
        refuse_paths(name)
        file = self._folder / name
        with self._errors(str(file)):
            try:
                file.unlink()
            except FileNotFoundError:
                return

    def clear(self) -> None:
        if not self.is_scratch:
            raise ArtifactError(f"{self.name} is not a branch's own folder, and is not cleared")
        with self._errors(self.name):
            if self._folder.exists():
                self._folder.fs.rm(self._folder.path, recursive=True)

    def check(self) -> str:
        with self._errors(self.name):
            if not self._folder.is_dir():
                return "no folder yet: the first run creates it"
        return f"{len(self.names(''))} files"

    @contextmanager
    def _errors(self, subject: str) -> Iterator[None]:
        try:
            yield
        except ArtifactError:
            raise
        except Exception as error:
            # Each file system of fsspec raises the errors of its own client.
            raise ArtifactError(
                f"{subject} cannot be used: {error or type(error).__name__}. Check SERVERLESS_ARTIFACTS_URL "
                "and that this user may read and write there."
            ) from error
