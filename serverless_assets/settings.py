"""What an operator sets with environment variables. What a person picks per run is in `run_inputs`."""

import datetime as dt
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from serverless_assets.errors import UserError
from serverless_assets.variables import VariableReader

PROJECT_ROOT = Path(__file__).resolve().parent.parent
GIB = 1 << 30


class SettingsError(UserError):
    """Variables that make no sense or are missing; the message names each, its value and what would do."""


@dataclass(frozen=True)
class Settings:
    """The operator's choices, read once. Build it with `Settings.from_environ()`.

    Addresses that may carry a secret are not in its repr.
    """

    environment: str
    branch: str | None
    warehouse: str | None
    artifacts: str | None
    artifacts_url: str | None = field(repr=False)
    compute: str | None
    home: Path
    dataset_url: str | None = field(repr=False)
    download_deadline_seconds: int
    download_minimum_rate: int
    first_month: dt.date | None
    sample_seed: int
    sample_end: dt.date | None
    dbt_project: Path
    dbt_schema: str
    forecast_table: str
    forecast_deadline_seconds: int
    forecast_fresh_hours: int
    run_deadline_seconds: int
    runs_kept: int
    budget_usd: float | None
    timezone: str
    automation_is_on: bool
    alert_url: str | None = field(repr=False)
    alert_format: str
    ui_url: str
    owner: str
    code_url: str | None
    project: str | None
    location: str
    bucket: str | None
    maximum_bytes_billed: int
    modal_app: str
    modal_environment: str | None
    has_modal_token: bool

    @property
    def pool(self) -> str:
        """Dagster's name for the warehouse that runs write to, one at a time."""
        return f"{self.environment}/{self.dbt_schema}"

    @classmethod
    def from_environ(cls, environ: Mapping[str, str] = os.environ) -> "Settings":
        """Read every variable.

        Raises:
            SettingsError: for all that cannot be used.
        """
        read = VariableReader(environ)
        environment = read.text("SERVERLESS_ENV") or "local"
        branch = read.branch("SERVERLESS_BRANCH")
        settings = cls(
            environment=environment,
            branch=branch,
            warehouse=read.text("SERVERLESS_WAREHOUSE"),
            artifacts=read.text("SERVERLESS_ARTIFACTS"),
            artifacts_url=read.text("SERVERLESS_ARTIFACTS_URL"),
            compute=read.text("SERVERLESS_COMPUTE"),
            home=_beside(read.path("SERVERLESS_HOME", PROJECT_ROOT / _home(environment)), branch),
            dataset_url=read.url("SERVERLESS_DATASET_URL"),
            download_deadline_seconds=read.whole_number("SERVERLESS_DOWNLOAD_DEADLINE", 3600, smallest=1),
            download_minimum_rate=read.whole_number("SERVERLESS_DOWNLOAD_MIN_RATE", 1000),
            first_month=read.month("SERVERLESS_FIRST_MONTH"),
            sample_seed=read.whole_number("SERVERLESS_SAMPLE_SEED", 7),
            sample_end=read.date("SERVERLESS_SAMPLE_END"),
            dbt_project=read.path("SERVERLESS_DBT_PROJECT", PROJECT_ROOT / "dbt_project"),
            dbt_schema=_schema(read.schema("DBT_SCHEMA", "dwh"), branch),
            forecast_table=read.identifier("SERVERLESS_FORECAST_TABLE", "order_forecast"),
            forecast_deadline_seconds=read.whole_number("SERVERLESS_FORECAST_DEADLINE", 1800, smallest=1),
            forecast_fresh_hours=read.whole_number("SERVERLESS_FORECAST_FRESH_HOURS", 36, smallest=1),
            run_deadline_seconds=read.whole_number("SERVERLESS_RUN_DEADLINE", 7200, smallest=1),
            runs_kept=read.whole_number("SERVERLESS_KEEP_RUNS", 100, smallest=1),
            budget_usd=read.amount("SERVERLESS_BUDGET_USD"),
            timezone=read.timezone("SERVERLESS_TIMEZONE", "UTC"),
            automation_is_on=read.one_of("SERVERLESS_AUTOMATION", ("off", "on"), "off") == "on",
            alert_url=read.url("SERVERLESS_ALERT_URL"),
            alert_format=read.one_of("SERVERLESS_ALERT_FORMAT", ("slack", "json"), "slack"),
            ui_url=(read.url("SERVERLESS_UI_URL") or "http://127.0.0.1:3000").rstrip("/"),
            owner=read.owner("SERVERLESS_OWNER", "team:data"),
            code_url=read.url("SERVERLESS_CODE_URL"),
            project=read.project("GOOGLE_CLOUD_PROJECT"),
            location=read.location("SERVERLESS_LOCATION", "US"),
            bucket=read.bucket("SERVERLESS_BUCKET"),
            maximum_bytes_billed=read.whole_number("SERVERLESS_MAX_BYTES_BILLED", 10 * GIB, smallest=1),
            modal_app=read.modal_name("SERVERLESS_MODAL_APP", longest=51) or "serverless-forecast",
            modal_environment=read.modal_name("MODAL_ENVIRONMENT"),
            has_modal_token=read.has_modal_token(),
        )
        if read.problems:
            raise SettingsError("\n".join(read.problems))
        return settings


def yesterday() -> dt.date:
    """The last whole day, in UTC."""
    return dt.datetime.now(dt.UTC).date() - dt.timedelta(days=1)


def _home(environment: str) -> str:
    # Environments do not share state by accident: each has a home of its own, and so has each branch.
    return ".serverless" if environment == "local" else f".serverless-{Path(environment).name}"


def _beside(home: Path, branch: str | None) -> Path:
    return home.with_name(f"{home.name}-{branch}") if branch else home


def _schema(schema: str, branch: str | None) -> str:
    return f"{schema}_{branch.replace('-', '_')}" if branch else schema
