"""What `serverless run` and `serverless plan` are asked for: a job, its run config and the months to load."""

import difflib
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import dagster as dg
import yaml

from serverless_assets.asset_keys import asset_name
from serverless_assets.automation.jobs import FULL_REBUILD, JOBS
from serverless_assets.automation.planned import Selection
from serverless_assets.definitions import build
from serverless_assets.errors import UserError
from serverless_assets.months import Window
from serverless_assets.names import FORECAST_TAG, MAIN_JOB, RAW_TABLE_TAG
from serverless_assets.partitions import months_of
from serverless_assets.run_inputs import NOTHING_TO_RUN, RunInputs
from serverless_assets.settings import Settings

# The options that leave out a part of a run, by the run input that they set.
OPTIONS = {"ingestion": "--reuse", "forecast": "--skip-forecast"}


class RunRefused(UserError):
    """A run that cannot be started; the message says why."""


@dataclass(frozen=True)
class Launch:
    """A run that can be started: `months` are the first and the last to load; None means all."""

    job: dg.JobDefinition
    run_config: Mapping[str, Any]
    months: tuple[date, date] | None

    def to_plan(self) -> tuple[RunInputs, Selection]:
        """Return the run inputs of the run, its assets and its months.

        Raises:
            RunRefused: the job has no assets.
        """
        assets = {asset_name(key) for key in self.job.asset_layer.selected_asset_keys}
        if not assets:
            raise RunRefused(f"The job {self.job.name!r} changes no asset, so there is nothing to plan.")
        config = self.run_config.get("resources", {}).get("run_inputs", {}).get("config", {})
        return RunInputs(**config), Selection(assets, Window.of_months(*self.months) if self.months else None)


@dataclass(frozen=True)
class Request:
    """The words of the command line. `inputs` are its options, which change the form that the job opens on;
    the file has a whole run config instead."""

    job: str
    inputs: RunInputs
    months: str | None
    config_file: Path | None = None

    @property
    def command(self) -> str:
        """The command that asks for this, to be typed again."""
        options = {
            "--rebuild": self.inputs.rebuild_all,
            "--drop-deleted": self.inputs.drop_deleted,
            **{option: name in self.inputs.choices for name, option in OPTIONS.items()},
        }
        words = ["serverless", "run", *([self.job] if self.job != MAIN_JOB else [])]
        words += [option for option, is_chosen in options.items() if is_chosen]
        words += ["--months", self.months] if self.months else []
        words += ["--config", str(self.config_file)] if self.config_file else []
        return shlex.join(words)

    def launch(self, settings: Settings) -> Launch:
        """Return the run. It loads the code location, which takes a second.

        Raises:
            RunRefused: the words do not make sense.
        """
        config = None
        if self.config_file:
            if self.inputs.choices:
                raise RunRefused(
                    "--config is a whole run config: leave out --reuse, --skip-forecast, --rebuild and "
                    "--drop-deleted, or write them into the file."
                )
            try:
                config = yaml.safe_load(self.config_file.read_text()) or {}
            except yaml.YAMLError as error:
                raise RunRefused(f"{self.config_file} is not YAML: {error}") from None
        definitions = build(settings)
        names = [job.name for job in definitions.jobs or []]
        if self.job not in names:
            raise RunRefused(_no_such_job(self.job, names, definitions))
        job = definitions.resolve_job_def(self.job)
        if self.job in JOBS and not job.asset_layer.selected_asset_keys:
            raise RunRefused(NOTHING_TO_RUN)
        if config is None:
            config = fill_in(job, self.inputs.choices)
        months = read_months(self.months, self.job, months_of(job)) if self.months else None
        return Launch(job, config, months)


def _no_such_job(word: str, names: Sequence[str], definitions: dg.Definitions) -> str:
    """Return why a word is not a job: it may be an asset, or be misspelt."""
    assets = {
        name: {asset_name(key) for key in definitions.resolve_job_def(name).asset_layer.selected_asset_keys}
        for name in names
    }
    if building := [name for name in names if word in assets[name]]:
        smallest = min(building, key=lambda name: len(assets[name]))
        return (
            f"{word!r} is an asset, not a job. `serverless run {smallest}` builds it with others, and "
            f"`serverless why {word}` says what the next run does with it. To build it alone, use the UI."
        )
    near = difflib.get_close_matches(word, names, 1)
    return f"There is no job {word!r}. {f'Did you mean {near[0]}? ' if near else ''}Jobs: {', '.join(names)}."


def fill_in(job: dg.JobDefinition, choices: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the run config that the job opens on, with the choices instead of its own.

    Raises:
        RunRefused: the job is there to do what a choice leaves out.
    """
    config = job.run_config or {}
    if not choices:
        return config
    options = sorted(OPTIONS[name] for name in OPTIONS.keys() & choices)
    if job.name == FULL_REBUILD and options:
        left_out = " and ".join(options)
        raise RunRefused(
            f"The job {job.name!r} loads, builds and forecasts everything, and {left_out} would leave "
            f"part of it out: use `serverless run --rebuild {' '.join(options)}`, or leave out {left_out}."
        )
    assets = [job.asset_layer.get(key) for key in job.asset_layer.selected_asset_keys]
    loads = {RAW_TABLE_TAG in asset.tags for asset in assets}
    has_forecast = any(FORECAST_TAG in asset.tags for asset in assets)
    only = {
        OPTIONS["ingestion"]: loads == {True},
        OPTIONS["forecast"]: has_forecast and not any(loads) and not any("dbt" in a.kinds for a in assets),
    }
    for option in options:
        if only[option]:
            raise RunRefused(f"{option} leaves nothing of the job {job.name!r} to do: leave it out.")
    resources = config.get("resources", {})
    form = resources.get("run_inputs", {}).get("config", {})
    return {**config, "resources": {**resources, "run_inputs": {"config": {**form, **choices}}}}


def read_months(months: str, job: str, partitions: dg.PartitionsDefinition | None) -> tuple[date, date]:
    """Return the first and last of the months that a run of `job` is to load.

    Raises:
        RunRefused: they are no months, or not among the job's partitions.
    """
    first, _, last = months.partition("..")
    try:
        start, end = (date.fromisoformat(f"{month.strip()}-01") for month in (first, last or first))
    except ValueError:
        raise RunRefused(
            f"--months is {months!r}: expected a month or a range, such as 2026-01..2026-03."
        ) from None
    if start > end:
        raise RunRefused(f"--months is {months!r}: the first month is after the last.")
    if partitions is None:
        raise RunRefused(f"--months does not apply to the job {job!r}, which has no months: leave it out.")
    keys = partitions.get_partition_keys()
    if not {start.isoformat(), end.isoformat()} <= set(keys):
        raise RunRefused(
            f"--months is {months!r}: expected months from {keys[0][:7]} (SERVERLESS_FIRST_MONTH) to "
            f"{keys[-1][:7]}."
        )
    return start, end


def config_mistakes(message: str) -> list[str]:
    """Return Dagster's message on a run config as lines: each with the place, and what is allowed there."""
    if unquoted := re.match(
        r"Value at path root:(\S+) for enum type Literal\[(.+)\] must be a string$", message
    ):
        place, choices = unquoted.groups()
        return [f"{place.replace(':', '.')} needs quotes: choose from {choices.replace(chr(39), chr(34))}."]
    if choice := re.match(r"Value at path root:(\S+) not in enum type Literal\[(.+)\] got (.*)$", message):
        place, choices, value = choice.groups()
        return [f"{place.replace(':', '.')} is {value!r}: choose from {choices.replace(chr(39), '')}."]
    unexpected = re.match(
        r'Received unexpected config entr(?:y|ies) "(.+?)" at path (\S+)\. Expected: "(.*?)\.?"\.?$', message
    )
    if not unexpected:
        path = re.compile(r"\broot((:\w+)*)")
        return [path.sub(lambda match: match[1][1:].replace(":", "."), message.partition("\n")[0])]
    names, path_text, allowed_text = unexpected.groups()
    if allowed_text.startswith("{"):
        # A type, such as `{ run?: { cpu?: String } skip?: { } }`: the names are those of its first level.
        fields = allowed_text[1:-1]
        while "{" in fields:
            fields = re.sub(r"\{[^{}]*\}", "", fields)
        allowed = re.findall(r"(\w+)\??:", fields)
    else:
        allowed = re.findall(r"[\w.-]+", allowed_text)
    place = path_text.partition(":")[2].replace(":", ".") or "The run config"
    return [
        f"{place} has no {name!r}. "
        + "".join(f"Did you mean {near}? " for near in difflib.get_close_matches(name, allowed, 1))
        + f"It has {', '.join(allowed)}."
        for name in re.findall(r"[\w.-]+", names)
    ]
