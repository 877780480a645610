"""A forecast as it lands: the rows of its table, and its file, which says by itself how they were made."""

import json
from collections.abc import Mapping
from datetime import datetime
from io import BytesIO
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from modal_forecast.grain import DAY, GRAINS, Grain
from modal_forecast.messages import FORECAST_SCHEMA, ForecastAnswer
from serverless_assets.forecasting.declaration import ForecastDeclaration

SCHEMA = pa.schema([("forecast_run", pa.string()), ("forecast_made_on", pa.date32()), *FORECAST_SCHEMA])
FACTS = b"forecast"
# The fact with the horizon, by grain: horizon_days and so on.
HORIZON_FACTS = tuple(f"horizon_{grain.plural}" for grain in GRAINS.values())


def grain_in(facts: Mapping[str, Any]) -> Grain:
    """Return the grain of a forecast. Those of earlier versions, whose facts do not say it, are of days."""
    return GRAINS[facts.get("grain", DAY.name)]


def horizon_in(facts: Mapping[str, Any]) -> int:
    """Return the horizon of a forecast, in periods of its grain."""
    horizon: int = facts[f"horizon_{grain_in(facts).plural}"]
    return horizon


def describe_columns(declaration: ForecastDeclaration) -> Mapping[str, str]:
    """Return the description of each column of a forecast."""
    unit, grain = f", in {declaration.unit}" if declaration.unit else "", declaration.time_grain
    return {
        "forecast_run": "The run that made the forecast.",
        "forecast_made_on": "The day on which it was made, in UTC.",
        "ds": f"The {grain.name} that is forecast{'' if grain is DAY else ', by its first day'}.",
        "yhat": f"The expected value of the {grain.name}{unit}.",
        "yhat_lower_80": "With 80% probability the value is not below this, nor above the upper bound.",
        "yhat_upper_80": "The upper bound of the 80% interval.",
        "yhat_lower_95": "With 95% probability the value is not below this, nor above the upper bound.",
        "yhat_upper_95": "The upper bound of the 95% interval.",
    }


def forecast_rows(answer: ForecastAnswer, run_id: str, made_on: datetime) -> pa.Table:
    """The rows of SCHEMA: which run made the forecast and when, then the answer's columns."""
    count = answer.forecast.num_rows
    run_columns = [pa.array([run_id] * count, pa.string()), pa.array([made_on.date()] * count, pa.date32())]
    return pa.table([*run_columns, *answer.forecast.columns], schema=SCHEMA)


def as_file(rows: pa.Table, facts: Mapping[str, Any]) -> bytes:
    """Rows of SCHEMA and the forecast's facts as parquet."""
    described = rows.cast(SCHEMA).replace_schema_metadata({FACTS: json.dumps(dict(facts))})
    buffer = BytesIO()
    pq.write_table(described, buffer, compression="zstd")
    return buffer.getvalue()


def facts_in(file: bytes | None) -> Mapping[str, Any]:
    """The facts of the forecast in a file; empty if there is none, or something else in its place."""
    if file is None:
        return {}
    try:
        facts = json.loads((pq.read_schema(BytesIO(file)).metadata or {})[FACTS])
    except (pa.ArrowException, OSError, KeyError, ValueError):
        return {}
    return facts if isinstance(facts, dict) else {}
