"""Text without what may be a secret."""

import re

from serverless_assets.ingestion.http import without_credentials

_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^\s'\"<>)\]]+")
_SECRET = re.compile(r"(?i)\b(\w*(?:password|passwd|secret|token|api[_-]?key)['\"]?\s*[=:]\s*)\S+")


def without_secrets(text: str) -> str:
    """`text` without user, password and query of addresses, and without values of names such as password."""
    return _SECRET.sub(r"\1***", _ADDRESS.sub(lambda address: _bare(address[0]), text))


def _bare(address: str) -> str:
    try:
        return without_credentials(address)
    except ValueError:
        return "(an address)"
