"""Hashes that tell whether something changed, and what of SQL goes into them.

They are stored: the same content keeps the same hash.
"""

import hashlib
import json
import re
from pathlib import Path

_TOKENS = re.compile(
    r"""(?P<kept>'(?:[^']|'')*'|"(?:[^"]|"")*"|`[^`]*`)   # text and quoted names, to the letter
      | (?P<nothing>\{\#(?!-).*?(?<!-)\#\})                 # a comment of Jinja's; with a dash it takes more
      | (?P<blank>(?:\s|--[^\n]*|/\*.*?\*/)+)""",
    re.VERBOSE | re.DOTALL,
)
# With these, quotes may begin and end elsewhere than the pattern above finds them.
_HARD_TO_READ = re.compile(r"""\\|\$\$|'''|\"\"\"""")


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


def normalised_sql(code: str) -> str:
    """The code without what no warehouse sees: comments, and white space beyond one blank.

    A comment is worth nothing to those who read the table, and rebuilding everything downstream costs. Code
    in which quotes are hard to tell is left to the letter: it is built once too often rather than not at all.
    """
    if _HARD_TO_READ.search(code):
        return code
    without = _TOKENS.sub(lambda match: match["kept"] or ("" if match["nothing"] else " "), code)
    return _TOKENS.sub(lambda match: match["kept"] or " ", without).strip()
