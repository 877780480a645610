"""What a person may choose when launching a run: one form, the same for every job and asset.

The launchpad completes and refuses what the types say. What it cannot check (a colour, a number's
range) `RunInputs.checked()` checks before the first step of a run that writes assets.
"""

import re
from collections.abc import Mapping
from typing import Any, Literal, Self
from urllib.parse import urlsplit

import dagster as dg
from pydantic import Field

from modal_forecast.grain import DAY
from modal_forecast.report.report_input import check_color
from serverless_assets.addresses import is_http_address
from serverless_assets.errors import UserError

Cpu = Literal["0.25", "0.5", "0.75", "1.0", "1.5", "2.0", "4.0", "8.0", "16.0", "32.0"]
Memory = Literal["256", "512", "1024", "2048", "4096", "8192", "16384", "32768"]

LONGEST_HORIZON_DAYS = DAY.longest_horizon
# Part of the file name of each record of a forecast.
RECORD_INFIX = "-record-"
# Dagster's form knows no ranges, patterns or colours.
NOT_IN_THE_FORM = "The form cannot check this: the run does, before its first step."
# `refuse_choices` refuses a name for several forecasts, as each would replace the one before.
ONE_FORECAST = f"For a run that makes one forecast. Empty: as declared. {NOT_IN_THE_FORM}"
NOTHING_TO_RUN = "There is nothing to run yet: `serverless add-table URL` declares a raw table and a model."


class ChoiceError(UserError):
    """A choice of a person that a run cannot use; the message names it, and what there is to choose."""


class Reload(dg.Config):
    """Load the raw tables from the source again."""

    ingestion: Literal["reload"] = "reload"
    dataset_url: str = Field(
        default="",
        description="Base URL that serves the tables, for this run only. Empty: the environment's. "
        f"{NOT_IN_THE_FORM}",
    )

    @property
    def address(self) -> str | None:
        """The base URL for this run; None for the environment's source."""
        return self.dataset_url.strip() or None


class Reuse(dg.Config):
    """Keep the raw tables as they are."""

    ingestion: Literal["reuse"] = "reuse"


class DefaultStyle(dg.Config):
    """As far ahead as the forecast declares, history in blue and forecast in red. Others: `customised`."""

    style: Literal["default"] = "default"


class CustomisedStyle(dg.Config):
    """Your own names, colours and horizon. What is left out is as each forecast of the run declares it."""

    style: Literal["customised"] = "customised"
    forecast_table: str = Field(
        default="", description=f"Table of the total, such as october_forecast. {ONE_FORECAST}"
    )
    forecast_file: str = Field(
        default="", description=f"Name of the forecast's file, such as october.parquet. {ONE_FORECAST}"
    )
    html_report: str = Field(
        default="", description=f"Name of the report's file, such as october.html. {ONE_FORECAST}"
    )
    color_history: str = Field(
        default="blue",
        description="Colour of the history, for each forecast of the run: a CSS colour such as blue, #1f77b4 "
        f"or rgb(31, 119, 180). {NOT_IN_THE_FORM}",
    )
    color_prediction: str = Field(
        default="red", description=f"Colour of the forecast, as color_history. {NOT_IN_THE_FORM}"
    )
    nr_days_fcst: int | None = Field(
        default=None,
        description=f"The horizon: days ahead, 1 to {LONGEST_HORIZON_DAYS}, of each forecast of the run. One "
        "by week or month looks as many weeks or months ahead as these days take: 180 days are 26 weeks or 6 "
        f"months. Left out: as declared. {NOT_IN_THE_FORM}",
    )


class RunForecast(dg.Config):
    """Forecast on the environment's compute, with this much cpu and memory."""

    forecast: Literal["run"] = "run"
    # Dagster's form has no type that offers choices and takes numbers.
    cpu: Cpu = Field(
        default="0.25", description='Cores, in quotes: "0.5". YAML reads 0.5 as a number, which is refused.'
    )
    memory: Memory = Field(
        default="256", description='MiB, in quotes: "512". YAML reads 512 as a number, which is refused.'
    )
    style: DefaultStyle | CustomisedStyle = Field(
        default=DefaultStyle(),
        discriminator="style",
        description="Horizon, colours and names. default: as declared. To choose others for this run, write "
        "customised: {nr_days_fcst: 30, color_prediction: teal} or the like instead of default: {}.",
    )


class SkipForecast(dg.Config):
    """Run no forecast and start no compute."""

    forecast: Literal["skip"] = "skip"


class RunInputs(dg.ConfigurableResource):
    """What a person may choose when launching a run."""

    rebuild: Literal["changed", "all"] = Field(
        default="changed",
        description="changed: load, build and forecast what changed in code or data. all: everything.",
    )
    deleted_models: Literal["keep", "drop"] = Field(
        default="keep",
        description="Tables of models that were deleted from the dbt project: reported, or dropped.",
    )
    ingestion: Reload | Reuse = Field(default=Reload(), discriminator="ingestion")
    forecast: RunForecast | SkipForecast = Field(default=RunForecast(), discriminator="forecast")

    @property
    def rebuild_all(self) -> bool:
        """Load, build and forecast everything, changed or not."""
        return self.rebuild == "all"

    @property
    def drop_deleted(self) -> bool:
        """Drop the tables of models that were deleted from the dbt project."""
        return self.deleted_models == "drop"

    @property
    def choices(self) -> Mapping[str, Any]:
        """Return as run config what is chosen other than by default, without the fields of a choice."""
        by_default = RunInputs()
        values = {name: getattr(self, name) for name in RunInputs.model_fields}
        return {
            name: value if isinstance(value, str) else {getattr(value, name): {}}
            for name, value in values.items()
            if value != getattr(by_default, name)
        }

    def checked(self) -> Self:
        """Return these inputs.

        Raises:
            ChoiceError: with every choice that cannot be used.
        """
        problems = []
        if isinstance(self.forecast, RunForecast) and isinstance(self.forecast.style, CustomisedStyle):
            problems += _style_problems(self.forecast.style)
        if isinstance(self.ingestion, Reload):
            problems += _url_problems(self.ingestion.address or "")
        if problems:
            raise ChoiceError(f"The run config cannot be used: {' '.join(problems)}")
        return self


def run_inputs(
    reuse: bool = False, skip_forecast: bool = False, rebuild: bool = False, drop_deleted: bool = False
) -> RunInputs:
    """The choices that the command line offers; all others as they are by default."""
    return RunInputs(
        rebuild="all" if rebuild else "changed",
        deleted_models="drop" if drop_deleted else "keep",
        ingestion=Reuse() if reuse else Reload(),
        forecast=SkipForecast() if skip_forecast else RunForecast(),
    )


def _style_problems(style: CustomisedStyle) -> list[str]:
    problems = []
    days = style.nr_days_fcst
    if days is not None and not 1 <= days <= LONGEST_HORIZON_DAYS:
        problems.append(f"nr_days_fcst is {days}; choose 1 to {LONGEST_HORIZON_DAYS} days.")
    if style.forecast_table and not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,62}", style.forecast_table):
        problems.append(
            f"forecast_table is {style.forecast_table!r:.100}; choose a name of letters, digits and "
            "underscores, such as order_forecast."
        )
    for field in ("color_history", "color_prediction"):
        try:
            check_color(getattr(style, field))
        except ValueError as error:
            problems.append(f"{field}: {error}")
    for field, ending in (("forecast_file", ".parquet"), ("html_report", ".html")):
        name = getattr(style, field)
        if not name:
            continue
        # A plain file name, which cannot leave the folder of artifacts.
        if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_. -]{0,120}", name) or not name.endswith(ending):
            problems.append(
                f"{field} is {name!r:.100}; choose a file name, not a path, that ends in {ending}."
            )
        elif RECORD_INFIX in name.lower():
            problems.append(
                f"{field} is {name!r}; choose a name without {RECORD_INFIX}, which marks the records of "
                "earlier forecasts."
            )
    return problems


def _url_problems(url: str) -> list[str]:
    if not url:
        return []
    if not is_http_address(url):
        return ["dataset_url is not an http(s) address such as https://example.com/data."]
    parts = urlsplit(url)
    if parts.username or parts.password or parts.query:
        return [
            "dataset_url contains credentials, and Dagster stores run configs in clear text: set "
            "SERVERLESS_DATASET_URL instead."
        ]
    return []
