"""Files that a reader never sees half written."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


def write_atomically(path: Path, content: bytes) -> None:
    """Write `path` whole: readers see the old content or the new."""
    with _replacing(path) as temporary:
        temporary.write_bytes(content)


def copy_atomically(source: Path, path: Path) -> None:
    """Copy `source` to `path`: readers see the old file or the new."""
    with _replacing(path) as temporary:
        shutil.copyfile(source, temporary)


def share_atomically(source: Path, path: Path) -> None:
    """Make `path` the same file as `source` where the file system can, else a copy.

    For files that are only ever replaced: writing to one writes to both.
    """
    if path.exists() and path.samefile(source):
        return
    with _replacing(path) as temporary:
        temporary.unlink()
        try:
            os.link(source, temporary)
        except OSError:
            shutil.copyfile(source, temporary)


def link_atomically(target: Path, path: Path) -> None:
    """Make `path` a symbolic link to `target`, whatever file or link it was."""
    with _replacing(path) as temporary:
        temporary.unlink()
        temporary.symlink_to(target)


def is_writable(folder: Path) -> bool:
    """Whether files can be made in `folder`, which may have to be made first."""
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    return existing.is_dir() and os.access(existing, os.W_OK)


@contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        if not temporary.is_symlink():
            # mkstemp makes a private file; what is published may be read like any other.
            temporary.chmod(0o644)
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        with suppress(FileNotFoundError):
            temporary.unlink()
        raise
