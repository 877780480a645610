"""A forecast as it lands: the rows of its table, and its file, which says by itself how they were made."""

import json
from collections.abc import Mapping
from datetime import datetime
from io import BytesIO
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from modal_forecast.messages import FORECAST_SCHEMA, ForecastAnswer
from serverless_assets.forecasting.declaration import ForecastDeclaration

SCHEMA = pa.schema([("forecast_run", pa.string()), ("forecast_made_on", pa.date32()), *FORECAST_SCHEMA])
FACTS = b"forecast"


def describe_columns(declaration: ForecastDeclaration) -> Mapping[str, str]:
    """Return the description of each column of a forecast."""
    unit = f", in {declaration.unit}" if declaration.unit else ""
    return {
        "forecast_run": "The run that made the forecast.",
        "forecast_made_on": "The day on which it was made, in UTC.",
        "ds": "The day that is forecast.",
        "yhat": f"The expected value of the day{unit}.",
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
