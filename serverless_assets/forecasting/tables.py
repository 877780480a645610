"""The tables of a forecast: their columns, what each column says, and the rows of forecasts."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from modal_forecast.grain import DAY, Grain
from modal_forecast.messages import FORECAST_SCHEMA
from serverless_assets.warehouse import TableShape

if TYPE_CHECKING:
    from serverless_assets.forecasting.declaration import ForecastDeclaration

SCORES = ("mase", "wape", "bias", "coverage_80", "coverage_95")
# Of the parts, the first forecasts of each week are scored, of the last half year: ten thousand parts make
# 40 MB a vintage.
SCORED_VINTAGES = 26


def forecast_schema(columns: Iterable[pa.Field] = ()) -> pa.Schema:
    """Return the columns of a table of forecasts. columns: those that tell parts apart."""
    run = [("forecast_run", pa.string()), ("forecast_made_on", pa.date32())]
    return pa.schema([*run, *columns, *FORECAST_SCHEMA])


TOTAL_SCHEMA = forecast_schema()


def score_schema(grain: Grain) -> pa.Schema:
    """Return the columns of the scores; the one that counts scored rows is named days, weeks or months."""
    return pa.schema(
        {
            "vintage": pa.string(),
            "made_at": pa.timestamp("us"),
            "data_as_of": pa.date32(),
            "horizon": pa.string(),
            grain.plural: pa.int64(),
            **dict.fromkeys(SCORES, pa.float64()),
        }
    )


def part_score_schema(grain: Grain, columns: Iterable[pa.Field] = ()) -> pa.Schema:
    """Return the columns of the scores of parts. columns: those that tell parts apart."""
    counts = [("forecasts", pa.int64()), (grain.plural, pa.int64())]
    scores = [(name, pa.float64()) for name in SCORES]
    return pa.schema([*columns, ("horizon", pa.string()), *counts, *scores])


def tables_of(declaration: "ForecastDeclaration") -> Mapping[str, tuple[TableShape, Mapping[str, str]]]:
    """Return the table of each asset that has one, and the description of each of its columns."""
    grain, title = declaration.time_grain, declaration.title
    unit = f", in {declaration.unit}" if declaration.unit else ""
    forecasts = {
        "forecast_run": "The run that made the forecast.",
        "forecast_made_on": "The day on which it was made, in UTC.",
        "ds": f"The {grain.name} that is forecast{'' if grain is DAY else ', by its first day'}.",
        "yhat": f"The expected value of the {grain.name}{unit}.",
        "yhat_lower_80": "With 80% probability the value is not below this, nor above the upper bound.",
        "yhat_upper_80": "The upper bound of the 80% interval.",
        "yhat_lower_95": "With 95% probability the value is not below this, nor above the upper bound.",
        "yhat_upper_95": "The upper bound of the 95% interval.",
    }
    scores = {
        "vintage": "The run that made the forecast.",
        "made_at": "When it was made, in UTC.",
        "data_as_of": "The last day of the history that it was made from.",
        "horizon": f"How many {grain.plural} ahead: all of them, or a part.",
        grain.plural: f"How many of its {grain.plural} have come and are scored.",
        "mase": "Mean absolute error, as a share of that of repeating what came "
        f"{grain.counted(grain.season)} before (Hyndman and Koehler, 2006). "
        "Null where the history has no such error.",
        "wape": "Sum of absolute errors, as a share of what came. Null where nothing came.",
        "bias": "Sum of errors as a share of what came; above 0: the forecast was too high.",
        "coverage_80": f"Share of {grain.plural} within the 80% bounds.",
        "coverage_95": f"Share of {grain.plural} within the 95% bounds.",
    }
    tables = {
        declaration.asset: (
            TOTAL_SCHEMA,
            f"{title} for the coming {grain.plural}, with 80% and 95% bounds.",
            forecasts,
        ),
        declaration.accuracy: (
            score_schema(grain),
            "Every published forecast against what came: error, bias and coverage, by how far ahead it saw.",
            scores,
        ),
    }
    if parts := declaration.parts:
        names = {parts.name: f"The name of the {parts.noun}.", parts.id: f"The {parts.noun}."}
        tables[parts.asset] = (
            forecast_schema(parts.columns),
            f"The forecast of each {parts.noun}, with 80% and 95% bounds; {grain.preposition} every "
            f"{grain.name} they add up to the total.",
            {**forecasts, **names},
        )
        counts = {
            "forecasts": "How many forecasts are scored: the first of each week, of "
            f"{SCORED_VINTAGES} weeks.",
            grain.plural: f"How many of their {grain.plural} have come, each counted once for each forecast.",
        }
        tables[declaration.part_accuracy] = (
            part_score_schema(grain, parts.columns),
            f"Published forecasts of each {parts.noun} against what came: error, bias and coverage.",
            {**{name: scores[name] for name in ("horizon", *SCORES)}, **names, **counts},
        )
    return {
        asset: (TableShape(declaration.tables[asset], schema, text), columns)
        for asset, (schema, text, columns) in tables.items()
    }


def forecast_rows(
    forecasts: Sequence[pa.Table],
    run_id: str,
    made_on: date,
    parts: Mapping[str, Sequence[str]] | None = None,
) -> pa.Table:
    """Return the rows of a table of forecasts, one forecast after the other.

    parts: name of a column that tells parts apart -> its value for each forecast.
    """
    counts = [forecast.num_rows for forecast in forecasts]
    of_forecast = pa.array(np.repeat(np.arange(len(forecasts)), counts))
    columns = [
        pa.repeat(pa.scalar(run_id, pa.string()), sum(counts)),
        pa.repeat(pa.scalar(made_on, pa.date32()), sum(counts)),
        *(pa.array(values, pa.string()).take(of_forecast) for values in (parts or {}).values()),
        *pa.concat_tables(forecasts).columns,
    ]
    return pa.table(columns, schema=forecast_schema(pa.schema(dict.fromkeys(parts or {}, pa.string()))))
