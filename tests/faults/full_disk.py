"""Runs on a disk of a given size: `unshare -Urm python -m tests.faults.full_disk HOME TEMPLATE SPARE`.

Mounts a file system in memory over HOME, as large as TEMPLATE and SPARE bytes more. It is seen in this
process's mount namespace alone, and gone with it. Prints a JSON document with what a run on the full disk
and one after the disk has grown did, and leaves a copy of HOME in HOME-after.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

LARGE = "512m"


def size_of(folder: Path) -> int:
    """The bytes that the files take on a file system of pages of 4 KiB."""
    return sum(
        4096 + -(-path.lstat().st_size // 4096) * 4096 for path in folder.rglob("*") if not path.is_symlink()
    )


def serverless_run() -> dict[str, object]:
    command = [str(Path(sys.executable).with_name("serverless")), "run"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    return {"code": done.returncode, "text": done.stdout + done.stderr}


def main(home: Path, template: Path, spare: int) -> None:
    home.mkdir(exist_ok=True)
    mount("-t", "tmpfs", "-o", f"size={size_of(template) + spare}", "tmpfs", str(home))
    shutil.copytree(template, home, symlinks=True, dirs_exist_ok=True)
    full = serverless_run()
    mount("-o", f"remount,size={LARGE}", str(home))
    freed = serverless_run()
    shutil.copytree(home, home.with_name(f"{home.name}-after"), symlinks=True)
    print(json.dumps({"full": full, "freed": freed}))


def mount(*words: str) -> None:
    subprocess.run(["mount", *words], check=True, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    os.umask(0o022)
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
