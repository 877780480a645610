"""The record of the published forecasts of all parts, by which they are scored when their days have come.

A record is never changed. Unlike that of a total it has no request, which would be their whole histories.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from io import BytesIO
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from modal_forecast.grain import DAY, Grain
from modal_forecast.messages import FORECAST_SCHEMA
from serverless_assets.artifacts import Artifacts
from serverless_assets.forecasting.declaration import Parts
from serverless_assets.forecasting.forecast_file import FACTS, grain_in
from serverless_assets.forecasting.record import FORECAST, MADE_AT, RecordError, RecordName
from serverless_assets.names import PARTS_KEY

VALUES = FORECAST_SCHEMA.names[1:]


@dataclass(frozen=True)
class PartVintage:
    """The published forecasts of all parts: `rows` has id, ds and the columns of a forecast, in any order.

    data_as_of: the last day of their histories.
    """

    data_as_of: date
    rows: pa.Table
    grain: Grain = DAY


def part_record_name(facts: Mapping[str, Any]) -> RecordName:
    """Return the name of the record of the forecasts with these facts, which are kept with their table."""
    made_at, data_as_of = datetime.fromisoformat(facts[MADE_AT]), date.fromisoformat(facts["data_as_of"])
    return RecordName(made_at, data_as_of, facts[PARTS_KEY], facts["run_id"], facts[FORECAST], of_parts=True)


def write_part_record(artifacts: Artifacts, parts: Parts, rows: pa.Table, facts: Mapping[str, Any]) -> None:
    """Write the record of `rows`, those of the table of parts; one that is there is left as it is."""
    name = str(part_record_name(facts))
    if name in artifacts.names(name):
        return
    table = rows.select([parts.id, *FORECAST_SCHEMA.names]).rename_columns(["id", *FORECAST_SCHEMA.names])
    buffer = BytesIO()
    with pq.ParquetWriter(
        buffer,
        table.schema,
        compression="zstd",
        store_schema=False,
        use_dictionary=["id", "ds"],
        use_byte_stream_split=VALUES,
    ) as writer:
        writer.write_table(table)
        writer.add_key_value_metadata({FACTS: json.dumps(dict(facts))})
    artifacts.write(name, buffer.getvalue())


def read_part_record(artifacts: Artifacts, name: RecordName) -> PartVintage:
    """Return the forecasts in the record of this name.

    Raises:
        RecordError: it is gone, or cannot be read.
        ArtifactError: the store refuses.
    """
    content = artifacts.read(str(name))
    if content is None:
        raise RecordError(f"The record {name}: it is gone.")
    try:
        rows = pq.read_table(BytesIO(content), columns=["id", *FORECAST_SCHEMA.names], read_dictionary=["id"])
        grain = grain_in(json.loads(rows.schema.metadata[FACTS]))
    except (pa.ArrowException, OSError, KeyError, TypeError, ValueError) as error:
        raise RecordError(f"The record {name}: it cannot be read ({error}).") from None
    return PartVintage(name.data_as_of, rows, grain)
