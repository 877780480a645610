"""What an operator sets with environment variables. What a person picks per run is in `run_inputs`."""

import datetime as dt
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

from serverless_assets.errors import ToldError

PROJECT_ROOT = Path(__file__).resolve().parent.parent
GIB = 1 << 30


class SettingsError(ToldError):
    """Variables that make no sense or are missing; the message names each, its value and what would do."""


@dataclass(frozen=True)
class Settings:
    """The operator's choices, read once. Build it with `Settings.from_environ()`."""

    environment: str
    compute: str | None
    home: Path
    dataset_url: str | None
    first_month: dt.date | None
    sample_seed: int
    sample_end: dt.date | None
    dbt_project: Path
    dbt_schema: str
    forecast_table: str
    forecast_deadline_seconds: int
    timezone: str
    project: str | None
    location: str
    bucket: str | None
    maximum_bytes_billed: int
    modal_app: str
    modal_environment: str | None
    has_modal_token: bool

    @classmethod
    def from_environ(cls, environ: Mapping[str, str] = os.environ) -> "Settings":
        """Read every variable.

        Raises:
            SettingsError: for all that cannot be used.
        """
        read = _Reader(environ)
        environment = read.text("SERVERLESS_ENV") or "local"
        # Environments do not share state by accident: each has a home of its own.
        home = ".serverless" if environment == "local" else f".serverless-{Path(environment).name}"
        settings = cls(
            environment=environment,
            compute=read.text("SERVERLESS_COMPUTE"),
            home=read.path("SERVERLESS_HOME", PROJECT_ROOT / home),
            dataset_url=read.url("SERVERLESS_DATASET_URL"),
            first_month=read.month("SERVERLESS_FIRST_MONTH"),
            sample_seed=read.whole_number("SERVERLESS_SAMPLE_SEED", 7),
            sample_end=read.date("SERVERLESS_SAMPLE_END"),
            dbt_project=read.path("SERVERLESS_DBT_PROJECT", PROJECT_ROOT / "dbt_project"),
            dbt_schema=read.identifier("DBT_SCHEMA", "dwh"),
            forecast_table=read.identifier("SERVERLESS_FORECAST_TABLE", "order_forecast"),
            forecast_deadline_seconds=read.whole_number("SERVERLESS_FORECAST_DEADLINE", 1800, smallest=1),
            timezone=read.timezone("SERVERLESS_TIMEZONE", "UTC"),
            project=read.project("GOOGLE_CLOUD_PROJECT"),
            location=read.location("SERVERLESS_LOCATION", "US"),
            bucket=read.bucket("SERVERLESS_BUCKET"),
            maximum_bytes_billed=read.whole_number("SERVERLESS_MAX_BYTES_BILLED", 10 * GIB, smallest=1),
            modal_app=read.modal_name("SERVERLESS_MODAL_APP") or "serverless-forecast",
            modal_environment=read.modal_name("MODAL_ENVIRONMENT"),
            has_modal_token=read.has_modal_token(),
        )
        if read.problems:
            raise SettingsError("\n".join(read.problems))
        return settings


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
        return value

    def identifier(self, name: str, default: str) -> str:
        wanted = f"a name of letters, digits and underscores, such as {default}"
        return self.matching(name, r"[A-Za-z_][A-Za-z0-9_]{0,62}", wanted) or default

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

    def modal_name(self, name: str) -> str | None:
        return self.matching(
            name,
            r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}",
            "a name of letters, digits, dots, dashes and underscores",
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
