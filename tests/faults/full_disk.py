"""Runs on disks of given sizes: `unshare -Urm python -m tests.faults.full_disk HOME TEMPLATE SPARE...`.

For each SPARE a file system in memory is mounted over HOME, as large as TEMPLATE and SPARE bytes more. It is
seen in this process's mount namespace alone, and gone with it. A run on it and one after it has grown are
printed as a line of JSON, and a copy of HOME is left in HOME-SPARE.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.faults.processes import run

LARGE = "512m"


def size_of(folder: Path) -> int:
    """The bytes that the files of a folder take in pages of 4 KiB."""
    return sum(-(-path.stat().st_size // 4096) * 4096 for path in folder.rglob("*") if not path.is_symlink())


def main(home: Path, template: Path, spare: int) -> None:
    home.mkdir(exist_ok=True)
    mount("mount", "-t", "tmpfs", "-o", f"size={size_of(template) + spare}", "tmpfs", str(home))
    shutil.copytree(template, home, symlinks=True, dirs_exist_ok=True)
    full = run(["run"], os.environ, home.with_name("output.txt"))
    mount("mount", "-o", f"remount,size={LARGE}", str(home))
    freed = run(["run"], os.environ, home.with_name("output.txt"))
    shutil.copytree(home, home.with_name(f"{home.name}-{spare}"), symlinks=True)
    mount("umount", str(home))
    print(json.dumps({"full": full, "freed": freed}), flush=True)


def mount(*words: str) -> None:
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    for size in sys.argv[3:]:
        main(Path(sys.argv[1]), Path(sys.argv[2]), int(size))
