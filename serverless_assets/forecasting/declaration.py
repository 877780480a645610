"""What a person declares of a forecast: the attributes of `serverless_assets/defs/<name>/defs.yaml`."""

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

import dagster as dg
import pyarrow as pa
from pydantic import Field, PrivateAttr, model_validator

from modal_forecast.candidates import MODELS
from modal_forecast.grain import GRAINS, Grain
from modal_forecast.messages import AUTOMATIC
from serverless_assets.forecasting.tables import forecast_schema, part_score_schema
from serverless_assets.run_inputs import CustomisedStyle, RunForecast
from serverless_assets.transformation.manifest import TargetSchema, dbt_asset_key, is_model
from serverless_assets.warehouse import Warehouse

NAME, FILE = r"[a-z_][a-z0-9_]{0,62}", r"[A-Za-z0-9_][A-Za-z0-9_. -]{0,120}"
COLUMN, OPTIONAL_COLUMN = r"^[A-Za-z_][A-Za-z0-9_]*$", r"^([A-Za-z_][A-Za-z0-9_]*)?$"
NOUN, COUNTRY = r"^[A-Za-z][A-Za-z ]*$", r"^[A-Z]{2}$"
PARQUET_FILE, HTML_FILE, GROUP = rf"^({FILE}\.parquet)?$", rf"^({FILE}\.html)?$", r"^[A-Za-z0-9_]+$"
# What a value that does not match should have been.
PATTERNS_IN_WORDS = {
    **dict.fromkeys((f"^{NAME}$", f"^({NAME})?$"), "a name of lower-case letters, digits and underscores"),
    **dict.fromkeys((COLUMN, OPTIONAL_COLUMN), "the name of a column, of letters, digits and underscores"),
    NOUN: "a noun of letters",
    COUNTRY: "the two capital letters of a country, such as US or DE",
    PARQUET_FILE: "the name of a file that ends in .parquet",
    HTML_FILE: "the name of a file that ends in .html",
    GROUP: "letters, digits and underscores",
}
# Of the tables of parts, beside those that a declaration names.
OWN_COLUMNS = {
    *forecast_schema().names,
    *(name for grain in GRAINS.values() for name in part_score_schema(grain).names),
}
Column = Annotated[str, Field(pattern=COLUMN)]
Noun = Annotated[str, Field(pattern=NOUN, max_length=30)]
OptionalName = Annotated[str, Field(pattern=rf"^({NAME})?$")]


if TYPE_CHECKING:
    Method = str
else:
    Method = Literal[(AUTOMATIC, *MODELS)]


class Count(dg.Model, dg.Resolvable):
    """What the rows of the relation count, by which a mistyped day is told from a busy one."""

    column: Column
    noun: Annotated[Noun, Field(description="What is counted, in the singular, such as order.")]


class Parts(dg.Model, dg.Resolvable):
    """The series that add up to the total. Each has a forecast of its own."""

    id: Annotated[Column, Field(description="The column that tells the series apart.")]
    noun: Annotated[Noun, Field(description="What a series is, in the singular, such as store.")]
    name: Annotated[
        str,
        Field(pattern=rf"({COLUMN})|^$", description="The column with its name. Default: that of the id."),
    ] = ""
    asset: Annotated[
        OptionalName,
        Field(description="The asset and table. Default: that of the total, _by_, and the noun."),
    ] = ""

    @model_validator(mode="after")
    def _fill_in(self) -> "Parts":
        self.name = self.name or self.id
        return self

    @property
    def columns(self) -> pa.Schema:
        """The columns that tell the series apart: one, where their names are their ids."""
        return pa.schema({self.id: pa.string(), self.name: pa.string()})

    @property
    def suffix(self) -> str:
        """Ends the names of assets of parts, such as _by_sales_region."""
        return f"_by_{re.sub('[^a-z]+', '_', self.noun.lower())}"


class Section(dg.Model, dg.Resolvable):
    """A section of the report: the table of a Python asset, summed by two of its columns."""

    title: Annotated[str, Field(min_length=1, description="The heading, such as What does each store need?")]
    asset: Annotated[str, Field(pattern=f"^{NAME}$", description="The Python asset. It is made first.")]
    rows: Annotated[Column, Field(description="Its column with what a row of the section is about.")]
    columns: Annotated[Column, Field(description="Its column with what a column of the section is about.")]
    value: Annotated[Column, Field(description="Its column that is summed.")]


class ForecastDeclaration(dg.Model):
    """A forecast of a column's sums by day, week or month, and of the parts that they consist of.

    Fields that are empty in defs.yaml are filled in here.
    """

    name: Annotated[
        str,
        Field(pattern=f"^{NAME}$", description="The forecast, its job, and the beginning of other names."),
    ]
    title: Annotated[str, Field(min_length=1, description="Of the report, such as Daily order revenue.")]
    relation: Annotated[str, Field(min_length=1, description="The dbt model or source with the history.")]
    date: Annotated[Column, Field(description="Its column of days, or of a day of each week or month.")]
    value: Annotated[Column, Field(description="Its column that is summed by the grain and forecast.")]
    grain: Annotated[
        Literal["day", "week", "month"],
        Field(description="What is forecast: days, weeks from Monday on, or months."),
    ] = "day"
    count: Annotated[Count | None, Field(description="What its rows count. Default: the rows.")] = None
    parts: Annotated[Parts | None, Field(description="The series of the total. Default: none.")] = None
    country: Annotated[
        str | None,
        Field(pattern=COUNTRY, description="Whose holidays count: US, DE; not by month. Default: none."),
    ] = None
    unit: Annotated[
        str, Field(max_length=20, description="A currency such as EUR, or what is counted. Default: none.")
    ] = ""
    decimals: Annotated[
        int | None, Field(ge=0, le=6, description="Of values in the report. Default: as the values need.")
    ] = None
    sign: Annotated[
        Literal["non-negative", "any"],
        Field(description="non-negative: a forecast below zero is refused. any: it may be below zero."),
    ] = "non-negative"
    horizon: Annotated[
        int,
        Field(
            ge=1,
            description="Days, weeks or months ahead, unless a run chooses others. Default: "
            f"{', '.join(grain.counted(grain.horizon) for grain in GRAINS.values())}.",
        ),
    ] = 0
    method: Annotated[
        Method,
        Field(description="automatic: all of them, weighed by the back-test. Else that one alone."),
    ] = "automatic"
    group: Annotated[str, Field(pattern=GROUP, description="The asset group. Default: forecasting.")] = (
        "forecasting"
    )
    sections: Annotated[Sequence[Section], Field(description="More of the report. Default: none.")] = ()
    asset: Annotated[OptionalName, Field(description="The asset of the total. Default: the name.")] = ""
    table: Annotated[str, Field(description="The table of the total. Default: as the asset.")] = ""
    file: Annotated[
        str,
        Field(pattern=PARQUET_FILE, description="The total as a file. Default: name.parquet."),
    ] = ""
    page: Annotated[str, Field(pattern=HTML_FILE, description="The report's file. Default: name.html.")] = ""
    # Those of the relation; empty for those of dbt's target. Not declared, as dbt knows them.
    _schema: TargetSchema = PrivateAttr(TargetSchema("", ""))

    @model_validator(mode="after")
    def _fill_in(self) -> "ForecastDeclaration":
        grain = self.time_grain
        self.horizon = self.horizon or grain.horizon
        if self.horizon > grain.longest_horizon:
            raise ValueError(
                f"a horizon of {grain.counted(self.horizon)} is too long: choose {grain.longest_horizon} or "
                "fewer"
            )
        if self.country and not grain.has_holidays:
            raise ValueError(f"a {grain.name} has no holidays of its own: leave out country")
        self.asset = self.asset or self.name
        self.table = self.table or self.asset
        self.file = self.file or f"{self.name}.parquet"
        self.page = self.page or f"{self.name}.html"
        if self.parts:
            for column in self.parts.columns.names:
                if column.lower() in OWN_COLUMNS:
                    raise ValueError(
                        f"the tables of the parts have a column {column!r} of their own: have the relation "
                        "call it something else"
                    )
            self.parts.asset = self.parts.asset or f"{self.asset}{self.parts.suffix}"
        return self

    @property
    def time_grain(self) -> Grain:
        """What one value is of."""
        return GRAINS[self.grain]

    @property
    def accuracy(self) -> str:
        """The asset and table of the scores of earlier forecasts."""
        return f"{self.name}_accuracy"

    @property
    def part_accuracy(self) -> str:
        """The asset and table of the scores of the parts; empty without parts."""
        return f"{self.accuracy}{self.parts.suffix}" if self.parts else ""

    @property
    def accuracies(self) -> list[str]:
        """The assets of scores, which are made before the forecasts."""
        return [self.accuracy, *([self.part_accuracy] if self.parts else [])]

    @property
    def report(self) -> str:
        """The asset of the report."""
        return f"{self.name}_report"

    @property
    def assets(self) -> list[str]:
        """All assets, in the order of a run."""
        return [*self.accuracies, *self.forecasts, self.report]

    @property
    def forecasts(self) -> list[str]:
        """The assets of the total and of the parts, which one step makes."""
        return [self.asset, *([self.parts.asset] if self.parts else [])]

    @property
    def tables(self) -> Mapping[str, str]:
        """The table of each asset that has one."""
        parts = {self.parts.asset: self.parts.asset} if self.parts else {}
        return {**parts, **{name: name for name in self.accuracies}, self.asset: self.table}

    @property
    def counted(self) -> str:
        """What is counted, in the singular."""
        return self.count.noun if self.count else "row"

    def style_of(self, run: RunForecast) -> CustomisedStyle:
        """Return the names and colours of a run: what it does not choose is as declared."""
        style = run.style if isinstance(run.style, CustomisedStyle) else CustomisedStyle()
        return style.model_copy(
            update={
                "forecast_table": style.forecast_table or self.table,
                "forecast_file": style.forecast_file or self.file,
                "html_report": style.html_report or self.page,
            }
        )

    def horizon_of(self, run: RunForecast) -> int:
        """Return the days, weeks or months ahead of a run: as many as its days take, or as declared."""
        days = run.style.nr_days_fcst if isinstance(run.style, CustomisedStyle) else None
        return self.horizon if days is None else self.time_grain.covering(days)

    def of_run(self, run: RunForecast) -> "ForecastDeclaration":
        """Return the forecast with the table of the total that a run chose."""
        return self.model_copy(update={"table": self.style_of(run).forecast_table})

    def located(self, manifest: Mapping[str, Any], target: TargetSchema) -> "ForecastDeclaration":
        """Return the forecast with the database and the schema in which dbt has its relation."""
        node = relations(manifest)[self.relation]
        schema = TargetSchema(str(node["database"] or ""), str(node["schema"]))
        copy = self.model_copy()
        if [name.lower() for name in schema] != [name.lower() for name in target]:
            copy._schema = schema
        return copy

    def beside_relation(self, warehouse: Warehouse) -> Warehouse:
        """Return the warehouse as of the database and the schema of the relation."""
        return warehouse.in_schema(*self._schema)

    def upstream(self, manifest: Mapping[str, Any]) -> dg.AssetKey | None:
        """Return the key of the asset of the relation, a model or a source; None if there is no such."""
        node = relations(manifest).get(self.relation)
        return None if node is None else dbt_asset_key(node)


def relations(manifest: Mapping[str, Any]) -> Mapping[str, Mapping[str, Any]]:
    """Return the models and sources of a dbt project by the names of their relations."""
    models = [node for node in manifest["nodes"].values() if is_model(node)]
    return {
        **{source["identifier"]: source for source in manifest["sources"].values()},
        **{node.get("alias") or node["name"]: node for node in models},
    }
