"""Hashes of code without comments and docstrings; and the version of the code that a worker runs."""

import ast
import hashlib
from collections.abc import Mapping
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).parent
# What a worker must have installed: exact versions, with hashes, out of the project's own lock.
REQUIREMENTS = PACKAGE / "requirements.lock"
# The report is rendered where the forecast is asked for, and these two are run from a shell.
NOT_ON_A_WORKER = ("report", "__main__.py", "csv_files.py")


def is_worker_file(path: Path) -> bool:
    """Return whether a file of this package, given by any path that leads to it, is part of a worker."""
    parts = path.parts
    inside = parts[len(parts) - 1 - parts[::-1].index(PACKAGE.name) + 1 :] if PACKAGE.name in parts else parts
    return bool(inside) and inside[0] not in NOT_ON_A_WORKER and path.suffix in (".py", ".lock")


@cache
def code_version(package: Path = PACKAGE) -> str:
    """Return a hash of the files that a worker is made of, without comments and docstrings: 12 hex digits."""
    return code_hash(
        {
            str(path.relative_to(package)): path
            for path in package.rglob("*")
            if path.is_file() and is_worker_file(Path(PACKAGE.name) / path.relative_to(package))
        }
    )


def code_hash(files: Mapping[str, Path]) -> str:
    """Return a hash of these files by name, without the comments and docstrings of Python: 12 hex digits."""
    digest = hashlib.sha256()
    for name, path in sorted(files.items()):
        content = path.read_bytes()
        if path.suffix == ".py":
            content = _syntax_tree(content.decode()).encode()
        elif path.suffix == ".lock":
            content = b"\n".join(line for line in content.splitlines() if not line.lstrip().startswith(b"#"))
        digest.update(name.encode() + b"\0" + content + b"\0")
    return digest.hexdigest()[:12]


def versioned_app(name: str) -> str:
    """Return the Modal app of this code's worker, such as `serverless-forecast-0a1b2c3d4e5f`.

    Each version has an app of its own: a deploy from a branch never replaces the worker that production
    calls, and runs of the code before a deploy still find theirs.
    """
    return f"{name}-{code_version()}"


def _syntax_tree(source: str) -> str:
    """The syntax tree of a module without docstrings, the same in Python 3.11 and 3.12."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            if ast.get_docstring(node, clean=False) is not None:
                node.body = node.body[1:]
            if hasattr(node, "type_params"):  # New in Python 3.12, and empty.
                del node.type_params
    return ast.dump(tree)
