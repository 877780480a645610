"""What an operator sets with environment variables. What a person picks per run is in `run_inputs`."""

import datetime as dt
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

PROJECT_ROOT = Path(__file__).resolve().parent.parent


class SettingsError(ValueError):
    """A variable whose value makes no sense; the message names it, its value and what would do."""


@dataclass(frozen=True)
class Settings:
    """The operator's choices, read once. Build it with `Settings.from_environ()`."""

    environment: str
    home: Path
    dataset_url: str | None
    first_month: dt.date | None
    sample_seed: int
    sample_end: dt.date | None
    dbt_schema: str
    forecast_table: str
    timezone: str

    @classmethod
    def from_environ(cls, environ: Mapping[str, str] = os.environ) -> "Settings":
        """Read every variable, or raise `SettingsError` for the first that cannot be used."""
        read = _Reader(environ)
        return cls(
            environment=read.text("SERVERLESS_ENV", "local"),
            home=read.path("SERVERLESS_HOME", PROJECT_ROOT / ".serverless"),
            dataset_url=read.url("SERVERLESS_DATASET_URL"),
            first_month=read.month("SERVERLESS_FIRST_MONTH"),
            sample_seed=read.whole_number("SERVERLESS_SAMPLE_SEED", 7),
            sample_end=read.date("SERVERLESS_SAMPLE_END"),
            dbt_schema=read.identifier("DBT_SCHEMA", "dwh"),
            forecast_table=read.identifier("SERVERLESS_FORECAST_TABLE", "order_forecast"),
            timezone=read.timezone("SERVERLESS_TIMEZONE", "UTC"),
        )


def is_http_address(value: str) -> bool:
    """Whether `value` is an absolute http or https address."""
    try:
        parts = urlsplit(value)
        return parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:
        return False


def yesterday() -> dt.date:
    """The last whole day, in UTC."""
    return dt.datetime.now(dt.UTC).date() - dt.timedelta(days=1)


@dataclass(frozen=True)
class _Reader:
    environ: Mapping[str, str]

    def text(self, name: str, default: str) -> str:
        # An empty variable counts as not set, as in `SERVERLESS_ENV= make run`.
        return self.environ.get(name, "").strip() or default

    def identifier(self, name: str, default: str) -> str:
        value = self.text(name, default)
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,62}", value):
            raise _unusable(name, value, "a name of letters, digits and underscores, such as " + default)
        return value

    def path(self, name: str, default: Path) -> Path:
        return Path(self.text(name, str(default))).expanduser().absolute()

    def url(self, name: str) -> str | None:
        value = self.text(name, "")
        if not value:
            return None
        if not is_http_address(value):
            # The value may carry a password: it is not repeated.
            raise SettingsError(f"{name} is not an http(s) address such as https://example.com/data.")
        return value

    def date(self, name: str) -> dt.date | None:
        value = self.text(name, "")
        if not value:
            return None
        try:
            return dt.date.fromisoformat(value)
        except ValueError:
            raise _unusable(name, value, "a date such as 2026-01-31") from None

    def month(self, name: str) -> dt.date | None:
        value = self.text(name, "")
        if not value:
            return None
        try:
            return dt.date.fromisoformat(f"{value}-01")
        except ValueError:
            raise _unusable(name, value, "a month such as 2024-01") from None

    def whole_number(self, name: str, default: int) -> int:
        value = self.text(name, str(default))
        if not value.isdecimal():
            raise _unusable(name, value, "a whole number such as " + str(default))
        return int(value)

    def timezone(self, name: str, default: str) -> str:
        value = self.text(name, default)
        try:
            ZoneInfo(value)
        except (KeyError, ValueError, OSError):
            raise _unusable(name, value, "a time zone such as Europe/Berlin") from None
        return value


def _unusable(name: str, value: str, wanted: str) -> SettingsError:
    return SettingsError(f"{name} is {value!r}, which cannot be used. Set it to {wanted}.")
