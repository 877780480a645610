"""Scratch folders: what a process writes for itself alone, on the disk of SERVERLESS_HOME.

Downloads and copies of a warehouse are large, and /tmp is small on many machines. A folder that a killed
process left is removed by the next run; one whose process lives is not, whatever its process id.
"""

import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from serverless_assets.files import claim, remove_abandoned_copies, remove_if_abandoned

FOLDER = "scratch"
# A purpose and mkdtemp's eight characters.
NAME = re.compile(r"[a-z-]+-[a-z0-9_]{8}")


@contextmanager
def scratch_folder(home: Path, purpose: str) -> Iterator[Path]:
    """A new folder `<home>/scratch/<purpose>-<random>`, removed at the end."""
    root = home / FOLDER
    root.mkdir(parents=True, exist_ok=True)
    folder, handle = _claimed_folder(root, purpose)
    try:
        yield folder
    finally:
        # What cannot be removed now is abandoned, and removed by the next run.
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
