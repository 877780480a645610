"""Environment variables read one by one: what is wrong with each is noted, and told all at once."""

import datetime as dt
import ipaddress
import math
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo


def is_http_address(value: str) -> bool:
    """Whether `value` is an absolute http or https address whose host and port can be asked."""
    try:
        parts = urlsplit(value)
        # Reading the port raises a ValueError for one that is no number below 65536.
        return parts.scheme in ("http", "https") and parts.port != 0 and _is_host(parts.hostname or "")
    except ValueError:
        return False


def _is_host(name: str) -> bool:
    """Whether `name` is an IP address, or a host name with labels of 1 to 63 characters.

    Raises:
        ValueError: it is neither.
    """
    if ":" in name:
        return bool(ipaddress.ip_address(name))
    ascii_name = name.removesuffix(".").encode("idna").decode()
    return len(ascii_name) < 254 and bool(re.fullmatch(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*", ascii_name))


# Names that DuckDB or BigQuery keeps for itself.
SYSTEM_SCHEMAS = frozenset({"information_schema", "pg_catalog", "system", "temp"})


@dataclass(frozen=True)
class VariableReader:
    """Reads variables one by one, and notes what is wrong with each instead of stopping at the first."""

    environ: Mapping[str, str]
    problems: list[str] = field(default_factory=list)

    def text(self, name: str) -> str | None:
        # An empty variable counts as not set, as in `SERVERLESS_ENV= make run`.
        return self.environ.get(name, "").strip() or None

    def matching(self, name: str, pattern: str, wanted: str) -> str | None:
        value = self.text(name)
        if value and not re.fullmatch(pattern, value):
            self._unusable(name, value, wanted)
            return None
        return value

    def identifier(self, name: str, default: str) -> str:
        wanted = f"a name of letters, digits and underscores, such as {default}"
        return self.matching(name, r"[A-Za-z_][A-Za-z0-9_]{0,62}", wanted) or default

    def schema(self, name: str, default: str) -> str:
        value = self.identifier(name, default)
        if value.lower() in SYSTEM_SCHEMAS:
            self._unusable(name, value, f"a schema that the warehouse does not use itself, such as {default}")
            return default
        return value

    def project(self, name: str) -> str | None:
        # With an optional organisation before a colon, as old projects have it.
        return self.matching(
            name, r"([a-z0-9.-]+:)?[a-z][a-z0-9-]{3,28}[a-z0-9]", "a project id such as my-shop-123"
        )

    def bucket(self, name: str) -> str | None:
        return self.matching(
            name,
            r"[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]",
            "a bucket's name without gs://, such as my-shop-forecasts",
        )

    def location(self, name: str, default: str) -> str:
        return self.matching(name, r"[A-Za-z0-9-]{2,40}", "a location such as US or europe-west3") or default

    def branch(self, name: str) -> str | None:
        # It becomes part of a dataset's name and of a folder's.
        return self.matching(
            name, r"[a-z0-9][a-z0-9-]{0,39}", "small letters, digits and dashes, such as pr-123"
        )

    def owner(self, name: str, default: str) -> str:
        wanted = f"a team such as {default}, or an address such as ada@example.com"
        return self.matching(name, r"team:[\w.-]+|[^@\s]+@[^@\s]+\.[^@\s]+", wanted) or default

    def modal_name(self, name: str, longest: int = 64) -> str | None:
        return self.matching(
            name,
            rf"[A-Za-z0-9][A-Za-z0-9._-]{{0,{longest - 1}}}",
            f"a name of at most {longest} letters, digits, dots, dashes and underscores",
        )

    def has_modal_token(self) -> bool:
        """Whether Modal's client will find a token, in its own variables or in its own file."""
        if self.text("MODAL_TOKEN_ID") and self.text("MODAL_TOKEN_SECRET"):
            return True
        return Path(self.text("MODAL_CONFIG_PATH") or "~/.modal.toml").expanduser().is_file()

    def path(self, name: str, default: Path) -> Path:
        return Path(self.text(name) or default).expanduser().absolute()

    def url(self, name: str) -> str | None:
        value = self.text(name)
        if value and not is_http_address(value):
            # The value may carry a password: it is not repeated.
            self.problems.append(f"{name} is not an http(s) address such as https://example.com/data.")
        return value

    def one_of(self, name: str, known: Collection[str], default: str) -> str:
        value = self.text(name) or default
        if value not in known:
            self._unusable(name, value, f"one of {', '.join(known)}")
            return default
        return value

    def amount(self, name: str) -> float | None:
        """A sum of money, zero or more."""
        value = self.text(name)
        if value is None:
            return None
        try:
            found = float(value)
        except ValueError:
            found = math.nan
        if not (math.isfinite(found) and found >= 0):
            self._unusable(name, value, "a sum in US dollars such as 0.50")
            return None
        return found

    def date(self, name: str) -> dt.date | None:
        return self._day(name, "", "a date such as 2026-01-31")

    def month(self, name: str) -> dt.date | None:
        return self._day(name, "-01", "a month such as 2024-01")

    def _day(self, name: str, ending: str, wanted: str) -> dt.date | None:
        value = self.text(name)
        if not value:
            return None
        try:
            return dt.date.fromisoformat(f"{value}{ending}")
        except ValueError:
            self._unusable(name, value, wanted)
            return None

    def whole_number(self, name: str, default: int, smallest: int = 0) -> int:
        value = self.text(name)
        if value is None:
            return default
        if not value.isdecimal() or int(value) < smallest:
            self._unusable(name, value, f"a whole number such as {default}")
            return default
        return int(value)

    def timezone(self, name: str, default: str) -> str:
        value = self.text(name) or default
        try:
            ZoneInfo(value)
        except (KeyError, ValueError, OSError):
            self._unusable(name, value, "a time zone such as Europe/Berlin")
        return value

    def _unusable(self, name: str, value: str, wanted: str) -> None:
        self.problems.append(f"{name} is {value!r}, which cannot be used. Set it to {wanted}.")
