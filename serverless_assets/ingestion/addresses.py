"""URLs: the address of a table, the credentials in one, and what of it may be shown."""

import ipaddress
from base64 import b64encode
from urllib.parse import SplitResult, parse_qsl, unquote, urlencode, urljoin, urlsplit, urlunsplit

from serverless_assets.ingestion.window import Window
from serverless_assets.variables import is_http_address

DEFAULT_PORTS = {"http": 80, "https": 443}


def table_url(base_url: str, table: str, window: Window | None) -> str:
    """The address of a table below `base_url`, whose own query (an access token, say) is kept."""
    parts = urlsplit(base_url)
    query = parse_qsl(parts.query, keep_blank_values=True)
    if window is not None:
        query += [("start", window.start.isoformat()), ("end", window.end.isoformat())]
    path = f"{parts.path.rstrip('/')}/{table}.parquet"
    return urlunsplit(SplitResult(parts.scheme, parts.netloc, path, urlencode(query), ""))


def without_credentials(url: str) -> str:
    """`url` without user, password and query, any of which may be a secret."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit(SplitResult(parts.scheme, host, parts.path, "", ""))


def split_credentials(url: str) -> tuple[str, str | None]:
    """`url` without user and password, and the value of the Authorization header that they stand for."""
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
    """The absolute address that an answer of `url` with the header `Location: {location}` leads to.

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
    from_scheme, from_host, from_port = _origin(origin)
    scheme, host, port = _origin(target)
    is_upgrade = (from_scheme, from_port, scheme, port) == ("http", 80, "https", 443)
    return host == from_host and (is_upgrade or (scheme, port) == (from_scheme, from_port))


def _origin(url: str) -> tuple[str, str, int]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname or "", parts.port or DEFAULT_PORTS[parts.scheme]
