"""The component `serverless_assets.Forecast`, its instances in the defs folder, and which are refused."""

import re
import sys
import traceback
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from typing import Any

import dagster as dg
import yaml
from pydantic import ValidationError

from serverless_assets.dagster_internals import ComponentTreeException, DagsterUnresolvableSymbolError
from serverless_assets.errors import UserError, error_sentence
from serverless_assets.forecasting.declaration import PATTERNS_IN_WORDS, ForecastDeclaration, relations
from serverless_assets.forecasting.record import RecordName
from serverless_assets.project_root import PROJECT_ROOT, ROOT_MODULE
from serverless_assets.run_inputs import ChoiceError, RunForecast, RunInputs
from serverless_assets.settings import SettingsError
from serverless_assets.transformation.manifest import TargetSchema
from serverless_assets.warehouse import Warehouse

# Dagster loads the Python files of the defs folder by it.
warnings.filterwarnings("ignore", "Function `load_definitions_from_modules?`", dg.PreviewWarning)

# The forecast of the sample shop, which a dbt project of one's own may go without.
BUNDLED_FORECAST = "forecast"
Build = Callable[[ForecastDeclaration], dg.Definitions]
# Dagster calls build_defs() with no more than the file's place; what is built depends on the environment.
_build: ContextVar[Build] = ContextVar("build")
TEMPLATE = """\
# All that a forecast may declare: `dg utils inspect-component serverless_assets.Forecast`.
type: serverless_assets.Forecast

attributes:
  name: {name}
  title: Daily {words}
  # CHANGE THIS FIRST: the dbt model or source with the history, such as one row per day; its column of days;
  # and its column of numbers, which is summed by day and forecast.
  relation: daily_{name}
  date: day
  value: {name}
  # A currency, such as EUR, or what is counted, such as guests.
  unit: ""
  # Of weeks (from Monday on) or months instead of days; the relation may still have a row for each day.
  # grain: month
  # Whose holidays count, as a two-letter code.
  # country: DE
  # The series that add up to the total, each with a forecast of its own: the columns of the relation that
  # hold the id and the name of each, and what one is.
  # parts: {{id: region_id, name: region_name, noun: region}}
"""


class ForecastScaffolder(dg.Scaffolder):
    """Writes a defs.yaml with the attributes that every forecast needs."""

    def scaffold(self, request: dg.ScaffoldRequest) -> None:
        name = request.target_path.name
        content = TEMPLATE.format(name=name, words=name.replace("_", " "))
        (request.target_path / "defs.yaml").write_text(content)


@dg.scaffold_with(ForecastScaffolder)
class Forecast(dg.Component, ForecastDeclaration, dg.Resolvable):
    """A forecast of sums by day, week or month, with its checks, accuracy, report, jobs and sensor."""

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        return _build.get()(self)


def defs_folder() -> dg.ComponentTree:
    """Return what the project's folder `defs` declares."""
    # A project need not be installed to be run from its folder.
    if str(PROJECT_ROOT) not in sys.path:
        sys.path.append(str(PROJECT_ROOT))
    # Not for_project(), which takes a sixth of a second to read pyproject.toml.
    return dg.ComponentTree.from_module(import_module(f"{ROOT_MODULE}.defs"), PROJECT_ROOT)


def read_forecasts(
    manifest: Mapping[str, Any], target: TargetSchema, first_table: str
) -> tuple[ForecastDeclaration, ...]:
    """Return the forecasts of the defs folder; the bundled one only if the dbt project has its relation.

    target: where dbt builds models that name no schema.
    first_table: the table of the bundled forecast, which is named BUNDLED_FORECAST.

    Raises:
        SettingsError: a defs.yaml has mistakes, two forecasts have one name, or one reads a relation that the
            project does not have.
    """
    with _as_settings_error():
        declared = defs_folder().get_all_components(of_type=Forecast)
    names = [forecast.name for forecast in declared]
    if twice := {name for name in names if names.count(name) > 1}:
        raise SettingsError(f"Several forecasts are named {', '.join(twice)}: give each a name of its own.")
    forecasts = []
    for forecast in declared:
        is_bundled = forecast.name == BUNDLED_FORECAST
        if forecast.upstream(manifest):
            forecast = forecast.model_copy(update={"table": first_table}) if is_bundled else forecast
            forecasts.append(forecast.located(manifest, target))
        elif not is_bundled:
            near = get_close_matches(forecast.relation, relations(manifest), 1)
            raise SettingsError(
                f"The forecast {forecast.name!r} reads {forecast.relation!r}, but the dbt project has no "
                f"model or source of that name.{''.join(f' Did you mean {name!r}?' for name in near)} "
                "Correct `relation` in its defs.yaml, or delete its folder."
            )
    return tuple(forecasts)


def build_defs_folder(build: Build) -> dg.Definitions:
    """Return the definitions of the defs folder. `build` returns those of a forecast."""
    tree = defs_folder()
    token = _build.set(build)
    try:
        with _as_settings_error():
            # The whole tree would list the components of every package, which imports all of them.
            return tree.build_defs(tree.defs_module_path)
    finally:
        _build.reset(token)


@contextmanager
def _as_settings_error() -> Iterator[None]:
    """Raise what is wrong in a file of the defs folder; Dagster raises a picture of the folder about it."""
    try:
        yield
    except (DagsterUnresolvableSymbolError, yaml.YAMLError) as error:
        raise SettingsError(f"A `type` or file in {ROOT_MODULE}/defs cannot be read: {error}") from None
    except UserError:
        raise
    except Exception as error:
        cause = (error.__cause__ if isinstance(error, ComponentTreeException) else None) or error
        if isinstance(cause, ValidationError):
            # Error while loading component guests[0]:
            folder = re.search(r"component (\S+)\[\d+\]", str(error))
            file = defs_folder().defs_module_path / (folder[1] if folder else "") / "defs.yaml"
            # That text is none, either, is no news: Dagster takes text in place of any value.
            mistakes = [
                f"{_place(mistake, file)}: {_mistake_sentence(mistake)}"
                for mistake in cause.errors()
                if ".str at " not in _place(mistake, file)
            ]
            raise SettingsError("\n".join(mistakes)) from None
        if place := _place_of_error(cause):
            raise SettingsError(f"{place}: {error_sentence(cause)}") from cause
        raise cause from None


def _place_of_error(error: BaseException) -> str | None:
    """The file and the line of the defs folder at which an error was raised; None if it was elsewhere."""
    folder = str(defs_folder().defs_module_path)
    frames = traceback.extract_tb(error.__traceback__)
    places = [f"{frame.filename}:{frame.lineno}" for frame in frames if frame.filename.startswith(folder)]
    return places[-1] if places else None


def _place(mistake: Mapping[str, Any], file: Path) -> str:
    """The attribute, its file and line; of attributes that do not go together, the file."""
    if not mistake["loc"]:
        return str(file)
    # Dagster names the file and the line, and its class of a nested attribute, unless it read all of them.
    attribute = re.sub(r"\.[A-Z]\w*Model\b", "", str(mistake["loc"][0]))
    if " at " in attribute:
        return attribute
    lines = file.read_text().splitlines() if file.is_file() else []
    numbers = (n for n, line in enumerate(lines, 1) if re.match(rf"\s*{re.escape(attribute)}\s*:", line))
    return f"attributes.{attribute} at {file}:{next(numbers, 1)}"


def _mistake_sentence(mistake: Mapping[str, Any]) -> str:
    if mistake["type"] == "extra_forbidden":
        attribute = str(mistake["loc"][0]).split(" at ")[0].rpartition(".")[2]
        near = get_close_matches(attribute, ForecastDeclaration.model_fields, 1)
        return f"there is no such attribute.{''.join(f' Did you mean {name}?' for name in near)}"
    if mistake["type"] == "missing":
        return "it is missing."
    if expected := PATTERNS_IN_WORDS.get(mistake.get("ctx", {}).get("pattern")):
        return f"expected {expected}; it is {mistake['input']!r}."
    message = mistake["msg"].removeprefix("Value error, ")
    return f"{message}; it is {mistake['input']!r}." if mistake["loc"] else f"{message.rstrip('.')}."


def refuse_owned_tables(
    forecasts: Sequence[ForecastDeclaration],
    manifest: Mapping[str, Any],
    other_assets: Iterable[str] = (),
    input: str = "",
) -> None:
    """Raise SettingsError, or ChoiceError about a run input, if a forecast's table would replace another's.

    Args:
        manifest: of the dbt project.
        other_assets: that write a table of their own name.
        input: the run input by which the table of the last forecast was chosen, if one did.
    """
    owners = dict(table_owners(manifest))
    owners |= {name.lower(): f"the asset {name}" for name in other_assets}
    for forecast in forecasts:
        for asset, table in forecast.tables.items():
            owner = owners.setdefault(table.lower(), f"the asset {asset}")
            if owner == f"the asset {asset}":
                continue
            setting = f"In defs.yaml of the forecast {forecast.name}, the table of {asset}"
            if forecast.name == BUNDLED_FORECAST and asset == forecast.asset:
                setting = "SERVERLESS_FORECAST_TABLE"
            raise (ChoiceError if input else SettingsError)(
                f"{input or setting} is {table!r}, which is the table of {owner}. Set it to a name that no "
                "model, seed, snapshot, source or other asset has, such as order_forecast."
            )


def table_owners(manifest: Mapping[str, Any]) -> Mapping[str, str]:
    """Return who in the dbt project writes each table, by its name in lower case, as DuckDB ignores case."""
    owners: dict[str, str] = {}
    for node in manifest["nodes"].values():
        if node["resource_type"] in ("model", "seed", "snapshot"):
            owner = f"the {node['resource_type']} {node['name']} ({node['original_file_path']})"
            owners |= {name.lower(): owner for name in (node["name"], node.get("alias")) if name}
    for source in manifest["sources"].values():
        owners[source["identifier"].lower()] = f"the source {source['source_name']}.{source['name']}"
    return owners


def refuse_choices(
    forecasts: Sequence[ForecastDeclaration],
    planned: Collection[str],
    inputs: RunInputs,
    manifest: Mapping[str, Any],
    other_assets: Iterable[str],
    warehouse: Warehouse,
) -> None:
    """Raise ChoiceError if the table or file that a run chose for its forecasts is another's.

    Args:
        planned: the assets that the run writes.
        manifest, other_assets: as for `refuse_owned_tables`.
        warehouse: that people read.
    """
    chosen = [forecast for forecast in forecasts if set(forecast.assets) & set(planned)]
    run = inputs.forecast
    if not chosen or not isinstance(run, RunForecast):
        return
    styles = [forecast.style_of(run) for forecast in chosen]
    for field in ("forecast_table", "forecast_file", "html_report"):
        if len({getattr(style, field) for style in styles}) < len(chosen):
            jobs = " or ".join(forecast.name for forecast in chosen)
            raise ChoiceError(
                f"{field} is {getattr(styles[0], field)!r}, and this run makes {len(chosen)} forecasts: "
                f"leave it out, so that each has its own, or run the job {jobs}."
            )
    for forecast, style in zip(chosen, styles, strict=True):
        others = [other for other in forecasts if other.name != forecast.name]
        for field, value, of_others in (
            ("forecast_file", style.forecast_file, {other.file: other.name for other in others}),
            ("html_report", style.html_report, {other.page: other.name for other in others}),
        ):
            if owner := of_others.get(value):
                raise ChoiceError(
                    f"{field} is {value!r}, which is that of the forecast {owner}. Choose another name."
                )
        table = forecast.of_run(run).table
        if table == forecast.table:
            continue
        refuse_owned_tables([*others, forecast.of_run(run)], manifest, other_assets, "forecast_table")
        existing = {name.lower(): name for name in warehouse.tables()}.get(table.lower())
        record = RecordName.of(warehouse.read_state(existing)) if existing else None
        if existing and (record is None or record.of_parts or record.forecast != forecast.name):
            raise ChoiceError(
                f"forecast_table is {table!r}, which is there already and was not made by the forecast "
                f"{forecast.name}. Choose another name, or drop it."
            )
