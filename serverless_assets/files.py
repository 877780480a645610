"""Atomic file writes, scratch folders, and what is needed to clean up after a process that was killed.

A temporary file or folder is locked (flock) by the process that writes to it. The operating system drops
the lock when the process ends, however it ends, so a temporary file without a lock is abandoned. Scratch
folders are on the disk of SERVERLESS_HOME: downloads and copies of a warehouse are large, and /tmp is small
on many machines.
"""

import fcntl
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

# linux/fs.h
FICLONE = 0x40049409
# The name of a temporary copy: a dot, the file's name, and mkstemp's eight characters.
TEMPORARY_COPY = re.compile(r"\..+\.[a-z0-9_]{8}")


def write_atomically(path: Path, content: bytes) -> None:
    """Write `path` whole: readers see the old content or the new."""
    with _replacing(path) as temporary:
        temporary.write_bytes(content)


def copy_file(source: Path, target: Path) -> None:
    """Copy a file. On a file system with reflinks, such as XFS and Btrfs, both share what neither changes."""
    with source.open("rb") as original, target.open("wb") as copy, suppress(OSError):
        fcntl.ioctl(copy, FICLONE, original.fileno())
        return
    shutil.copyfile(source, target)


def copy_atomically(source: Path, path: Path) -> None:
    """Copy `source` to `path`: readers see the old file or the new."""
    with _replacing(path) as temporary:
        copy_file(source, temporary)


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
            copy_file(source, temporary)


def link_atomically(target: Path, path: Path) -> None:
    """Make `path` a symbolic link to `target`, whatever file or link it was."""
    with _replacing(path) as temporary:
        temporary.unlink()
        temporary.symlink_to(target)


def is_writable(folder: Path) -> bool:
    """Return whether `folder` can be written to; if it does not exist, whether it can be made."""
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    return existing.is_dir() and os.access(existing, os.W_OK)


def make_folder(path: Path) -> None:
    """Make the folder `path`; a file of that name is moved aside."""
    if not path.is_dir():
        move_aside(path)
    path.mkdir(parents=True, exist_ok=True)


def move_aside(path: Path) -> Path | None:
    """Rename what is at `path` to `<name>.before-<time>`. Returns the new path; None if nothing is there."""
    aside = path.with_name(f"{path.name}.before-{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}")
    with suppress(FileNotFoundError):
        return path.rename(aside)
    return None


def claim(path: Path) -> int | None:
    """Lock a new temporary file or folder for this process.

    Returns:
        An open file descriptor; closing it gives the lock up. None if `path` is gone.
    """
    try:
        handle = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return None
    # Without locks, as on some network file systems, no file counts as abandoned.
    with suppress(OSError):
        fcntl.flock(handle, fcntl.LOCK_EX)
    with suppress(FileNotFoundError):
        if os.path.samestat(os.fstat(handle), path.stat()):
            return handle
    os.close(handle)
    return None


def remove_if_abandoned(path: Path) -> bool:
    """Remove a temporary file or folder whose process has ended; whether it was removed."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
    except OSError:
        return False
    finally:
        os.close(handle)
    return True


def remove_abandoned_copies(folder: Path) -> None:
    """Remove the temporary copies in `folder` that a killed process left.

    Temporary symbolic links cannot be locked. They are removed, too: call this where no other process
    makes links, which is where the run lock is held.
    """
    if not folder.is_dir():
        return
    for path in folder.iterdir():
        if not TEMPORARY_COPY.fullmatch(path.name):
            continue
        if path.is_symlink():
            path.unlink(missing_ok=True)
        elif path.is_file():
            remove_if_abandoned(path)


@contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary, handle = claimed_file(path)
    try:
        yield temporary
        if not temporary.is_symlink():
            # mkstemp makes a private file; what is published may be read like any other.
            temporary.chmod(0o644)
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
        if path.is_dir() and not path.is_symlink():
            # A folder in the place of the file is kept under another name.
            move_aside(path)
        temporary.replace(path)
    except BaseException:
        with suppress(FileNotFoundError):
            temporary.unlink()
        raise
    finally:
        os.close(handle)


def claimed_file(path: Path) -> tuple[Path, int]:
    """Create a temporary file beside `path`, locked for this process: its path and open descriptor."""
    while True:
        created, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        os.close(created)
        handle = claim(Path(name))
        if handle is not None:
            return Path(name), handle


FOLDER = "scratch"
# The scratch folders of this process that are in use, and the descriptors by which they are locked.
_in_use: dict[Path, int] = {}
# A purpose and mkdtemp's eight characters.
NAME = re.compile(r"[a-z-]+-[a-z0-9_]{8}")


@contextmanager
def scratch_folder(home: Path, purpose: str) -> Iterator[Path]:
    """A new folder `<home>/scratch/<purpose>-<random>`, removed at the end."""
    root = home / FOLDER
    root.mkdir(parents=True, exist_ok=True)
    folder, handle = _claimed_folder(root, purpose)
    _in_use[folder] = handle
    try:
        yield folder
    finally:
        _give_up(folder)


def remove_scratch_folders() -> None:
    """Remove the scratch folders of this process, at the end of its run.

    Dagster does not close the generator of a step that is cancelled, so that what its blocks would remove
    stays until the process ends, which may be after the next run began.
    """
    for folder in list(_in_use):
        _give_up(folder)


def _give_up(folder: Path) -> None:
    handle = _in_use.pop(folder, None)
    if handle is not None:
        # The next run removes what cannot be removed now.
        shutil.rmtree(folder, ignore_errors=True)
        os.close(handle)


def remove_leftovers(home: Path) -> None:
    """Remove the scratch folders and temporary copies below `home` whose processes have ended.

    Call it where the run lock is held.
    """
    for path in (*_folders(home / FOLDER), *_folders(home / "work" / FOLDER)):
        if NAME.fullmatch(path.name):
            remove_if_abandoned(path)
    for folder in (home, *_folders(home), *_folders(home / "work")):
        remove_abandoned_copies(folder)


def _folders(path: Path) -> list[Path]:
    return [child for child in path.iterdir() if child.is_dir()] if path.is_dir() else []


def _claimed_folder(root: Path, purpose: str) -> tuple[Path, int]:
    while True:
        folder = Path(tempfile.mkdtemp(dir=root, prefix=f"{purpose}-"))
        handle = claim(folder)
        if handle is not None:
            return folder, handle
