"""Addresses: which can be asked over HTTP; and how they, and other text, are shown without secrets."""

import ipaddress
import re
from urllib.parse import SplitResult, urlsplit, urlunsplit

_HOST = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*")
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^\s'\"<>)\]]+")
_SECRET = re.compile(r"(?i)\b(\w*(?:password|passwd|secret|token|api[_-]?key)['\"]?\s*[=:]\s*)\S+")


def is_http_address(value: str) -> bool:
    """Return whether `value` is an absolute http or https address with a valid host and port."""
    try:
        parts = urlsplit(value)
        host = parts.hostname or ""
        # Reading the port raises a ValueError for one that is no number below 65536.
        if parts.scheme not in ("http", "https") or parts.port == 0:
            return False
        if ":" in host:
            return bool(ipaddress.ip_address(host))
        # Raises a ValueError for a label that is empty or longer than 63 characters.
        ascii_host = host.removesuffix(".").encode("idna").decode()
        return len(ascii_host) < 254 and bool(_HOST.fullmatch(ascii_host))
    except ValueError:
        return False


def without_credentials(url: str) -> str:
    """Return `url` without user, password and query, any of which may be a secret."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit(SplitResult(parts.scheme, host, parts.path, "", ""))


def without_secrets(text: str) -> str:
    """Return `text` without user, password and query of addresses, and values of names such as password."""

    def bare(address: re.Match[str]) -> str:
        try:
            return without_credentials(address[0])
        except ValueError:
            return "(an address)"

    return _SECRET.sub(r"\1***", _ADDRESS.sub(bare, text))
