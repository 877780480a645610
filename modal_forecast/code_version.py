"""Which code a worker runs, so that whoever calls a deployed one can tell that it is another than his own."""

import hashlib
from pathlib import Path

PACKAGE = Path(__file__).parent
# What a worker must have installed: exact versions, with hashes, out of the project's own lock.
REQUIREMENTS = PACKAGE / "requirements.lock"
# The report is rendered where the forecast is asked for, and these two are run from a shell.
NOT_ON_A_WORKER = ("report", "__main__.py", "csv_files.py")


def is_worker_file(path: Path) -> bool:
    """Whether a file of this package, given by any path that leads to it, is part of a worker."""
    parts = path.parts
    inside = parts[len(parts) - 1 - parts[::-1].index(PACKAGE.name) + 1 :] if PACKAGE.name in parts else parts
    return bool(inside) and inside[0] not in NOT_ON_A_WORKER and path.suffix in (".py", ".lock")


def code_version(package: Path = PACKAGE) -> str:
    """A hash of every file that a worker is made of: 12 hexadecimal digits."""
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*")):
        if path.is_file() and is_worker_file(Path(PACKAGE.name) / path.relative_to(package)):
            digest.update(f"{path.relative_to(package)}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()[:12]


def versioned_app(name: str) -> str:
    """The Modal app that the worker of this code is deployed as, such as `serverless-forecast-0a1b2c3d4e5f`.

    Each version has an app of its own: a deploy from a branch never replaces the worker that production
    calls, and runs of the code before a deploy still find theirs.
    """
    return f"{name}-{code_version()}"
