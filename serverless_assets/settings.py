"""What an operator sets with environment variables. What a person picks per run is in `run_inputs`."""

import datetime as dt
import difflib
import os
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Annotated, Any
from zoneinfo import ZoneInfo

from annotated_types import Ge
from dotenv import load_dotenv
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from serverless_assets.addresses import is_http_address
from serverless_assets.errors import UserError
from serverless_assets.names import WORK
from serverless_assets.project_root import PROJECT_ROOT

GIB = 1 << 30
PREFIX = "SERVERLESS_"
# Names that DuckDB or BigQuery keeps for itself.
SYSTEM_SCHEMAS = frozenset({"information_schema", "pg_catalog", "system", "temp"})


class SettingsError(UserError):
    """Variables that cannot be used or are missing; the message names each, its value and what is allowed."""


# Validators raise a ValueError that says what is allowed; `Settings.from_environ` adds variable and value.


def _matching(pattern: str, allowed: str) -> AfterValidator:
    def check(value: str) -> str:
        if not re.fullmatch(pattern, value):
            raise ValueError(allowed)
        return value

    return AfterValidator(check)


def _identifier(example: str) -> AfterValidator:
    return _matching(
        r"[A-Za-z_][A-Za-z0-9_]{0,62}", f"a name of letters, digits and underscores, such as {example}"
    )


def _modal_name(longest: int) -> AfterValidator:
    return _matching(
        rf"[A-Za-z0-9][A-Za-z0-9._-]{{0,{longest - 1}}}",
        f"a name of at most {longest} letters, digits, dots, dashes and underscores",
    )


def _day(suffix: str, allowed: str) -> BeforeValidator:
    def parse(value: object) -> object:
        try:
            return dt.date.fromisoformat(f"{value}{suffix}") if isinstance(value, str) else value
        except ValueError:
            raise ValueError(allowed) from None

    return BeforeValidator(parse)


def _parse_switch(value: object) -> bool:
    if value not in ("off", "on", False, True):
        raise ValueError("one of off, on")
    return value in ("on", True)


def _check_schema(value: str) -> str:
    if WORK in value.lower():
        raise ValueError(
            f"a schema whose name does not contain {WORK}, which ends that of where runs write to"
        )
    if value.lower() in SYSTEM_SCHEMAS:
        raise ValueError("a schema that the warehouse does not use itself, such as dwh")
    return value


def _check_timezone(value: str) -> str:
    try:
        ZoneInfo(value)
    except (KeyError, ValueError, OSError):
        raise ValueError("a time zone such as Europe/Berlin") from None
    return value


def _check_url(value: str) -> str:
    if not is_http_address(value):
        raise ValueError(NOT_AN_ADDRESS)
    return value


NOT_AN_ADDRESS = "an http(s) address such as https://example.com/data"
Folder = Annotated[Path, AfterValidator(lambda path: path.expanduser().absolute())]
Url = Annotated[str, AfterValidator(_check_url)]
BaseUrl = Annotated[Url, AfterValidator(lambda url: url.rstrip("/"))]
Month = Annotated[dt.date | None, _day("-01", "a month such as 2024-01")]
Day = Annotated[dt.date | None, _day("", "a date such as 2026-01-31")]
Schema = Annotated[str, _identifier("dwh"), AfterValidator(_check_schema)]
Table = Annotated[str, _identifier("order_forecast")]
TimeZone = Annotated[str, AfterValidator(_check_timezone)]
AlertFormat = Annotated[str, _matching("slack|json", "one of slack, json")]
# Old projects have an organisation before a colon.
ProjectId = Annotated[
    str, _matching(r"([a-z0-9.-]+:)?[a-z][a-z0-9-]{3,28}[a-z0-9]", "a project id such as my-shop-123")
]
Bucket = Annotated[
    str,
    _matching(
        r"[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]", "a bucket's name without gs://, such as my-shop-forecasts"
    ),
]
Location = Annotated[str, _matching(r"[A-Za-z0-9-]{2,40}", "a location such as US or europe-west3")]
BigQueryPrice = Annotated[
    str,
    _matching(r"\d+(\.\d+)?/(TiB|slot-hour)", "US dollars by the unit, such as 6.25/TiB or 0.06/slot-hour"),
]
ModalRegion = Annotated[str, _matching(r"[a-z]{2}(-[a-z0-9]+)*", "a region such as eu or us-east")]
# It becomes part of a dataset's name and of a folder's.
Branch = Annotated[
    str, _matching(r"[a-z0-9][a-z0-9-]{0,39}", "small letters, digits and dashes, such as pr-123")
]
KeyPrefix = Annotated[
    str,
    _matching(
        r"[A-Za-z0-9_-]+(/[A-Za-z0-9_-]+)*", "names of letters, digits, _ and -, such as shop or acme/shop"
    ),
]
Owner = Annotated[
    str,
    _matching(
        r"team:[\w.-]+|[^@\s]+@[^@\s]+\.[^@\s]+",
        "a team such as team:data, or an address such as ada@example.com",
    ),
]
Switch = Annotated[bool, BeforeValidator(_parse_switch)]


class Settings(BaseModel):
    """The operator's settings, read once with `Settings.from_environ()`; each field's alias is its variable.

    Addresses that may carry a secret are not in its repr.
    """

    # Without pydantic-settings, which would replace two lines of `from_environ`: `.env` has to be set for
    # dbt, Modal and child processes too, and it corrects no misspelt variable.
    model_config = ConfigDict(frozen=True, populate_by_name=True)

    environment: str = Field("local", alias="SERVERLESS_ENV")
    branch: Branch | None = Field(None, alias="SERVERLESS_BRANCH")
    warehouse: str | None = Field(None, alias="SERVERLESS_WAREHOUSE")
    artifacts: str | None = Field(None, alias="SERVERLESS_ARTIFACTS")
    artifacts_url: str | None = Field(None, alias="SERVERLESS_ARTIFACTS_URL", repr=False)
    compute: str | None = Field(None, alias="SERVERLESS_COMPUTE")
    home: Folder = Field(alias="SERVERLESS_HOME")
    dataset_url: Url | None = Field(None, alias="SERVERLESS_DATASET_URL", repr=False)
    download_deadline_seconds: int = Field(3600, ge=1, alias="SERVERLESS_DOWNLOAD_DEADLINE")
    download_minimum_rate: int = Field(1000, ge=0, alias="SERVERLESS_DOWNLOAD_MIN_RATE")
    load_memory_mib: int = Field(640, ge=128, alias="SERVERLESS_LOAD_MEMORY")
    first_month: Month = Field(None, alias="SERVERLESS_FIRST_MONTH")
    sample_seed: int = Field(7, ge=0, alias="SERVERLESS_SAMPLE_SEED")
    sample_end: Day = Field(None, alias="SERVERLESS_SAMPLE_END")
    dbt_project: Folder = Field(PROJECT_ROOT / "dbt_project", alias="SERVERLESS_DBT_PROJECT")
    dbt_schema: Schema = Field("dwh", alias="DBT_SCHEMA")
    forecast_table: Table = Field("order_forecast", alias="SERVERLESS_FORECAST_TABLE")
    forecast_deadline_seconds: int = Field(1800, ge=1, alias="SERVERLESS_FORECAST_DEADLINE")
    forecast_fresh_hours: int = Field(36, ge=1, alias="SERVERLESS_FORECAST_FRESH_HOURS")
    run_deadline_seconds: int = Field(7200, ge=1, alias="SERVERLESS_RUN_DEADLINE")
    runs_kept: int = Field(100, ge=1, alias="SERVERLESS_KEEP_RUNS")
    releases_kept: int = Field(3, ge=2, alias="SERVERLESS_KEEP_RELEASES")
    budget_usd: float | None = Field(
        None,
        ge=0,
        allow_inf_nan=False,
        alias="SERVERLESS_BUDGET_USD",
        description="a sum in US dollars such as 0.50",
    )
    timezone: TimeZone = Field("UTC", alias="SERVERLESS_TIMEZONE")
    automation_is_on: Switch = Field(False, alias="SERVERLESS_AUTOMATION")
    alert_url: Url | None = Field(None, alias="SERVERLESS_ALERT_URL", repr=False)
    alert_format: AlertFormat = Field("slack", alias="SERVERLESS_ALERT_FORMAT")
    ui_url: BaseUrl = Field("http://127.0.0.1:3000", alias="SERVERLESS_UI_URL")
    reports_url: BaseUrl | None = Field(None, alias="SERVERLESS_REPORTS_URL")
    key_prefix: KeyPrefix = Field("", alias="SERVERLESS_KEY_PREFIX")
    owner: Owner = Field("team:data", alias="SERVERLESS_OWNER")
    code_url: Url | None = Field(None, alias="SERVERLESS_CODE_URL")
    project: ProjectId | None = Field(None, alias="GOOGLE_CLOUD_PROJECT")
    execution_project: ProjectId | None = Field(None, alias="SERVERLESS_EXECUTION_PROJECT")
    location: Location = Field("US", alias="SERVERLESS_LOCATION")
    bucket: Bucket | None = Field(None, alias="SERVERLESS_BUCKET")
    maximum_bytes_billed: int = Field(10 * GIB, ge=1, alias="SERVERLESS_MAX_BYTES_BILLED")
    bigquery_price: BigQueryPrice = Field("", alias="SERVERLESS_BIGQUERY_PRICE")
    modal_app: Annotated[str, _modal_name(51)] = Field("serverless-forecast", alias="SERVERLESS_MODAL_APP")
    modal_environment: Annotated[str, _modal_name(64)] | None = Field(None, alias="MODAL_ENVIRONMENT")
    modal_region: ModalRegion | None = Field(None, alias="SERVERLESS_MODAL_REGION")
    has_modal_token: bool = False

    @property
    def pool(self) -> str:
        """Dagster's name for the warehouse that runs write to, one at a time."""
        return f"{self.environment}/{self.dbt_schema}"

    @classmethod
    def from_environ(cls, environ: Mapping[str, str] = os.environ) -> "Settings":
        """Read every variable; of this process, also those in the project's `.env`, which it sets.

        Raises:
            SettingsError: for all that cannot be used.
        """
        if environ is os.environ:
            # dbt, Modal and child processes read variables of their own: they get those in the file, too.
            load_dotenv(PROJECT_ROOT / ".env")
        # A blank variable counts as not set, as in `SERVERLESS_ENV= make run`.
        variables = {name: value.strip() for name, value in environ.items() if value.strip()}
        aliases = {field.alias for field in cls.model_fields.values()}
        values: dict[str, Any] = {name: value for name, value in variables.items() if name in aliases}
        values.setdefault("SERVERLESS_HOME", str(_default_home(values.get("SERVERLESS_ENV", "local"))))
        values["has_modal_token"] = _has_modal_token(variables)
        _refuse_misspelt(variables.keys() - aliases, [alias for alias in aliases if alias])
        try:
            settings = cls.model_validate(values)
        except ValidationError as error:
            raise SettingsError("\n".join(map(_problem, error.errors()))) from None
        if settings.branch is None:
            return settings
        schema = f"{settings.dbt_schema}_{settings.branch.replace('-', '_')}"
        home = settings.home.with_name(f"{settings.home.name}-{settings.branch}")
        return settings.model_copy(update={"home": home, "dbt_schema": schema})


def _refuse_misspelt(names: Collection[str], aliases: Collection[str]) -> None:
    """Refuse variables that look like a setting but are none; a dbt project may read others of this prefix.

    Of the others, those whose first word is nearly `SERVERLESS` and which are nearly the name of a setting.

    Raises:
        SettingsError: for each of them.
    """
    settings = {alias.removeprefix(PREFIX) for alias in aliases if alias.startswith(PREFIX)}
    problems = []
    for variable in sorted(name for name in names if name.startswith(PREFIX)):
        name = variable.removeprefix(PREFIX)
        likely = [alias for alias in sorted(settings) if alias.startswith(name) or name.startswith(alias)]
        likely += difflib.get_close_matches(name, sorted(settings), 1, 0.8)
        # Two letters of a short name are swapped.
        likely += [alias for alias in sorted(settings) if sorted(alias) == sorted(name)]
        if likely:
            problems.append(f"{variable} is not a setting. Did you mean {PREFIX}{likely[0]}?")
    for variable in sorted(names):
        word = variable.partition("_")[0] + "_"
        if word != PREFIX and difflib.get_close_matches(word, [PREFIX], 1, 0.8):
            likely = difflib.get_close_matches(variable, [PREFIX + name for name in settings], 1, 0.85)
            problems += [f"{variable} is not a setting. Did you mean {name}?" for name in likely]
    if problems:
        raise SettingsError("\n".join(problems))


def yesterday() -> dt.date:
    """The last whole day, in UTC."""
    return dt.datetime.now(dt.UTC).date() - dt.timedelta(days=1)


def _default_home(environment: str) -> Path:
    """Return a home of its own for each environment, so that they share no state by accident."""
    return PROJECT_ROOT / (
        ".serverless" if environment == "local" else f".serverless-{Path(environment).name}"
    )


def _has_modal_token(variables: Mapping[str, str]) -> bool:
    """Return whether Modal's client will find a token, in its own variables or in its own file."""
    if "MODAL_TOKEN_ID" in variables and "MODAL_TOKEN_SECRET" in variables:
        return True
    return Path(variables.get("MODAL_CONFIG_PATH", "~/.modal.toml")).expanduser().is_file()


def _problem(error: Mapping[str, Any]) -> str:
    """Return a sentence on a value: the variable, its value, and what is allowed."""
    name, reason = str(error["loc"][0]), error.get("ctx", {}).get("error")
    if str(reason) == NOT_AN_ADDRESS:
        # The value may carry a password: it is not repeated.
        return f"{name} is not {reason}."
    field = next(field for field in Settings.model_fields.values() if field.alias == name)
    allowed = reason or field.description
    if not allowed:
        smallest = next(limit.ge for limit in field.metadata if isinstance(limit, Ge))
        allowed = f"a whole number such as {field.default}, {smallest} at least"
    return f"{name} is {error['input']!r}, which cannot be used. Set it to {allowed}."
