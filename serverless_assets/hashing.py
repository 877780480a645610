"""Hashes that tell whether something changed. They are stored: the same content keeps the same hash."""

import hashlib
import json
from pathlib import Path


def digest(content: str | bytes, length: int = 16) -> str:
    """Return the first hexadecimal digits, up to 64, of the SHA-256 of a text (as UTF-8) or of bytes."""
    data = content.encode() if isinstance(content, str) else content
    return hashlib.sha256(data).hexdigest()[:length]


def json_digest(value: object, length: int = 12) -> str:
    """Return a hash of a JSON value that does not depend on the order of its keys."""
    return digest(json.dumps(value, sort_keys=True, default=str), length)


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file, which is not held in memory."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
