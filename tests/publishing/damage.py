"""Ways to damage a file, a folder or a link."""

import os
import shutil
from pathlib import Path

NOISE = bytes(range(256)) * 64


def remove(path: Path) -> None:
    """Delete whatever is at `path`, a link and not what it leads to."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def noise(path: Path) -> None:
    """Overwrite a file's content where it lies, links followed."""
    path.write_bytes(NOISE)


def empty(path: Path) -> None:
    """Empty a file where it lies, links followed."""
    path.write_bytes(b"")


def half(path: Path) -> None:
    """Cut a file in half, links followed."""
    os.truncate(path.resolve(), path.stat().st_size // 2)


def file(path: Path) -> None:
    """Put a file with random bytes in the place of whatever is at `path`."""
    remove(path)
    path.write_bytes(NOISE)


def folder(path: Path) -> None:
    """Put a folder with a file of somebody's own in the place of whatever is at `path`."""
    remove(path)
    path.mkdir()
    (path / "notes.txt").write_text("mine")


def dangling(path: Path) -> None:
    """Put a link that leads nowhere in the place of whatever is at `path`."""
    remove(path)
    path.symlink_to("nowhere")


def copied(path: Path) -> None:
    """Put a folder in the place of a link, as a copy of a home that follows links has it."""
    content = path.resolve()
    path.unlink()
    shutil.copytree(content, path)
