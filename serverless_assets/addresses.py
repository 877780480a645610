"""Addresses: which can be requested over HTTP; and who may see their secrets."""

import ipaddress
import re
from base64 import b64encode
from urllib.parse import SplitResult, unquote, urljoin, urlsplit, urlunsplit

DEFAULT_PORTS = {"http": 80, "https": 443}
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


def split_credentials(url: str) -> tuple[str, str | None]:
    """Return `url` without user and password, and the Authorization header that stands for them."""
    parts = urlsplit(url)
    userinfo, at, host = parts.netloc.rpartition("@")
    bare = urlunsplit(parts._replace(netloc=host))
    if not at:
        return bare, None
    user, _, password = userinfo.partition(":")
    token = b64encode(f"{unquote(user)}:{unquote(password)}".encode()).decode()
    return bare, f"Basic {token}"


def is_loopback(url: str) -> bool:
    """Whether the host of `url` is this machine."""
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def redirect_target(url: str, location: str) -> str:
    """Return the absolute address that an answer of `url` with the header `Location: {location}` leads to.

    Raises:
        ValueError: it is not to be followed; the message ends the sentence "It redirects to ...".
    """
    try:
        # http.client reads headers as Latin-1; servers send UTF-8.
        target = urljoin(url, location.strip().encode("latin-1").decode("utf-8", "replace"))
        scheme = urlsplit(target).scheme
    except ValueError:
        raise ValueError("an address that cannot be parsed") from None
    if scheme not in DEFAULT_PORTS:
        raise ValueError(f"an address of the scheme {scheme[:20]!r}; allowed are http and https")
    if not is_http_address(target):
        raise ValueError("an address whose host or port is not valid")
    if scheme == "http" and urlsplit(url).scheme == "https":
        raise ValueError(f"{without_credentials(target)}, which is not encrypted as https is")
    return target


def may_have_credentials(origin: str, target: str) -> bool:
    """Whether the credentials for `origin` may be sent to `target`, to which it redirects."""
    (from_scheme, from_host, from_port), (scheme, host, port) = (
        (parts.scheme, parts.hostname or "", parts.port or DEFAULT_PORTS[parts.scheme])
        for parts in map(urlsplit, (origin, target))
    )
    is_upgrade = (from_scheme, from_port, scheme, port) == ("http", 80, "https", 443)
    return host == from_host and (is_upgrade or (scheme, port) == (from_scheme, from_port))
