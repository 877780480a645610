"""The record of each published forecast: its rows, how they were made, and the request that asked for them;
and the record of the forecasts of its parts, which has their rows.

The forecast's table and file hold the latest forecast only. Records are never changed, so they hold all of
them: for the accuracy of earlier forecasts and for `serverless replay`.
"""

import base64
import json
import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from io import BytesIO
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from modal_forecast.grain import DAY, GRAINS, Grain
from modal_forecast.messages import FORECAST_SCHEMA, ForecastAnswer, ForecastRequest
from modal_forecast.wire import MessageError
from serverless_assets.artifacts import Artifacts
from serverless_assets.errors import UserError
from serverless_assets.forecasting.declaration import Parts
from serverless_assets.forecasting.reuse import fingerprint
from serverless_assets.forecasting.tables import TOTAL_SCHEMA
from serverless_assets.hashing import digest
from serverless_assets.names import FORECAST_KEY, PARTS_KEY
from serverless_assets.run_inputs import RECORD_INFIX

MADE_AT, FORECAST_HASH, FORECAST = "made_at", "forecast_hash", "forecast"
# The name of the only forecast that version 0.1.0 made, which its records do not say.
FIRST_FORECAST = "forecast"
FACTS, REQUEST, DETAILS = b"forecast", b"forecast_request", b"forecast_details"
# The fact with the horizon, by grain: horizon_days and so on.
HORIZON_FACTS = tuple(f"horizon_{grain.plural}" for grain in GRAINS.values())
# The facts without which a forecast cannot be computed again.
REQUIRED_FACTS = (
    MADE_AT, FORECAST_HASH, FORECAST_KEY, "run_id", "forecast_code", "history_hash", "data_as_of",
    "compute", "cpu", "memory_mib",
)  # fmt: skip
TIME_FORMAT, DAY_FORMAT = "%Y%m%dT%H%M%SZ", "%Y%m%d"
NAME_PATTERN = re.compile(
    rf"(?P<forecast>\w+)(?P<parts>-parts)?{RECORD_INFIX}"
    r"(?P<made_at>\d{8}T\d{6}Z)-(?P<data_as_of>\d{8})-(?P<key>[0-9a-f]{16})-(?P<run_id>.+)\.parquet"
)
# The error for each fact that does not match the content of the record.
MISMATCHES = {
    "history_hash": "its history is not the one that the forecast was made from",
    **dict.fromkeys(HORIZON_FACTS, "its horizon is not the one that the forecast was made for"),
    "holidays": "its holidays are not those that the forecast was made with",
    FORECAST_HASH: "its forecast was changed after it was made",
    FORECAST_KEY: "its key is not that of its history, parameters and code",
}


class RecordError(UserError):
    """A record that cannot be read, or whose content does not match its facts."""


@dataclass(frozen=True)
class RecordName:
    """The file name of a record; those of one forecast sort in order of time.

    data_as_of: the last day of the history, the day before the first day of the forecast.
    of_parts: whether it is that of the forecasts of the parts.
    """

    made_at: datetime
    data_as_of: date
    key: str
    run_id: str
    forecast: str = FIRST_FORECAST
    of_parts: bool = False

    def __str__(self) -> str:
        made_at, data_as_of = f"{self.made_at:{TIME_FORMAT}}", f"{self.data_as_of:{DAY_FORMAT}}"
        prefix = record_prefix(self.forecast, self.of_parts)
        return f"{prefix}{made_at}-{data_as_of}-{self.key}-{self.run_id}.parquet"

    @classmethod
    def of(cls, facts: Mapping[str, Any]) -> "RecordName | None":
        """Return the name for the facts of a total or of parts; None for those of anything else."""
        of_parts = PARTS_KEY in facts
        key = facts.get(PARTS_KEY if of_parts else FORECAST_KEY)
        if MADE_AT not in facts or key is None:
            return None
        made_at, data_as_of = datetime.fromisoformat(facts[MADE_AT]), date.fromisoformat(facts["data_as_of"])
        return cls(made_at, data_as_of, key, facts["run_id"], facts.get(FORECAST, FIRST_FORECAST), of_parts)

    @classmethod
    def parse(cls, name: str) -> "RecordName | None":
        """Return the parts of a record's file name; None for the name of any other file."""
        match = NAME_PATTERN.fullmatch(name)
        if match is None:
            return None
        try:
            made_at = datetime.strptime(match["made_at"], TIME_FORMAT).replace(tzinfo=UTC)
            data_as_of = datetime.strptime(match["data_as_of"], DAY_FORMAT).date()
        except ValueError:
            return None
        of_parts = match["parts"] is not None
        return cls(made_at, data_as_of, match["key"], match["run_id"], match["forecast"], of_parts)


def record_prefix(forecast: str, of_parts: bool = False) -> str:
    """Return what the file names of the records of a forecast, or of those of its parts, begin with."""
    return f"{forecast}{'-parts' if of_parts else ''}{RECORD_INFIX}"


@dataclass(frozen=True)
class Record:
    """A published forecast, or those of all parts.

    rows: of its table; of parts the columns `id` and FORECAST_SCHEMA, in any order.
    facts: kept with its table.
    request: to the worker; empty for parts, which are scored and not computed again.
    details: the worker's diagnostics that are too large for a table's state, such as the back-test.
    """

    rows: pa.Table
    facts: Mapping[str, Any]
    request: bytes = b""
    details: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> RecordName:
        name = RecordName.of(self.facts)
        assert name is not None
        return name

    def to_bytes(self) -> bytes:
        """Return the record as a parquet file."""
        file_metadata, options = {FACTS: json.dumps(dict(self.facts))}, {}
        if self.request:
            file_metadata[DETAILS] = json.dumps(dict(self.details))
            # Base64, as many readers of parquet decode metadata as text.
            file_metadata[REQUEST] = base64.b64encode(zlib.compress(self.request)).decode()
        else:
            # Of ten thousand parts 59 MiB.
            values = FORECAST_SCHEMA.names[1:]
            options = {"use_dictionary": ["id", "ds"], "use_byte_stream_split": values}
        # Without store_schema, which would repeat the metadata in Arrow's own copy of the schema.
        options |= {"compression": "zstd", "store_schema": False}
        buffer = BytesIO()
        with pq.ParquetWriter(buffer, self.rows.schema, **options) as writer:
            writer.write_table(self.rows)
            writer.add_key_value_metadata(file_metadata)
        return buffer.getvalue()

    @classmethod
    def from_bytes(cls, content: bytes, of_parts: bool = False) -> "Record":
        """Read the parquet file of a record.

        Raises:
            RecordError: it is not a record, or facts are missing.
        """
        try:
            with pq.ParquetFile(BytesIO(content), read_dictionary=["id"] if of_parts else None) as file:
                file_metadata, rows = file.metadata.metadata, file.read().replace_schema_metadata()
            facts = json.loads(file_metadata[FACTS])
            if of_parts:
                return cls(rows, facts)
            details = json.loads(file_metadata.get(DETAILS, b"{}"))
            request = zlib.decompress(base64.b64decode(file_metadata[REQUEST]))
        except (pa.ArrowException, OSError, KeyError, TypeError, ValueError, zlib.error) as error:
            raise RecordError(f"it cannot be read ({error or type(error).__name__})") from None
        required = (*REQUIRED_FACTS, f"horizon_{grain_in(facts).plural}")
        missing = [fact for fact in required if fact not in facts]
        if missing:
            raise RecordError(f"it does not say its {', '.join(missing)}")
        return cls(rows, facts, request, details)

    def verify(self) -> None:
        """Raise RecordError unless history, parameters, forecast and key match the facts."""
        try:
            request = ForecastRequest.from_bytes(self.request)
            actual = {
                **fingerprint(request, self.facts["forecast_code"], self.rows.schema),
                FORECAST_HASH: forecast_hash(self.rows),
            }
        except MessageError as error:
            raise RecordError(f"what was asked cannot be read: {error}") from None
        for fact, mismatch in MISMATCHES.items():
            recorded, content = self.facts.get(fact), actual.get(fact)
            if recorded != content:
                raise RecordError(f"{mismatch} ({fact} {recorded} recorded, {content} found)")


def forecast_hash(rows: pa.Table) -> str:
    """Return a hash of a forecast's values, whichever run made them and when."""
    return digest(ForecastAnswer(rows).to_bytes())


def record_facts(rows: pa.Table, made_at: datetime, forecast: str = FIRST_FORECAST) -> Mapping[str, Any]:
    """Return the facts that a record adds to those of how the forecast of this name was made."""
    return {FORECAST: forecast, MADE_AT: f"{made_at:%Y-%m-%dT%H:%M:%SZ}", FORECAST_HASH: forecast_hash(rows)}


def grain_in(facts: Mapping[str, Any]) -> Grain:
    """Return the grain of a forecast. Those of version 0.1.0, whose facts do not say it, are of days."""
    return GRAINS[facts.get("grain", DAY.name)]


def horizon_in(facts: Mapping[str, Any]) -> int:
    """Return the horizon of a forecast, in periods of its grain."""
    horizon: int = facts[f"horizon_{grain_in(facts).plural}"]
    return horizon


def list_records(
    artifacts: Artifacts, forecast: str | None = None, of_parts: bool = False
) -> Sequence[RecordName]:
    """Return the names of the records of a forecast, or of all forecasts, the oldest first.

    of_parts: of the forecasts of the parts instead of those of the total.

    Raises:
        ArtifactError: the store cannot be listed.
    """
    names = artifacts.names(record_prefix(forecast, of_parts) if forecast else "")
    parsed = [record for record in map(RecordName.parse, names) if record and record.of_parts == of_parts]
    return sorted(parsed, key=lambda record: record.made_at)


def read_record(artifacts: Artifacts, name: RecordName) -> Record:
    """Return the record of this name.

    Raises:
        RecordError: it is gone, or cannot be read.
        ArtifactError: the store refuses.
    """
    content = artifacts.read(str(name))
    try:
        if content is None:
            raise RecordError("it is gone")
        return Record.from_bytes(content, name.of_parts)
    except RecordError as error:
        raise RecordError(f"The record {name}: {error}.") from None


def read_details(artifacts: Artifacts, facts: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the details of the forecast with these facts; empty if it has no readable record.

    Raises:
        ArtifactError: the store refuses.
    """
    name = RecordName.of(facts)
    try:
        return read_record(artifacts, name).details if name else {}
    except RecordError:
        return {}


def write_record(artifacts: Artifacts, record: Record) -> bool:
    """Write a record, unless it is there, and return whether it was written."""
    name = str(record.name)
    if name in artifacts.names(name):
        return False
    artifacts.write(name, record.to_bytes())
    return True


def part_record(parts: Parts, rows: pa.Table, facts: Mapping[str, Any]) -> Record:
    """Return the record of the rows of the table of parts."""
    columns = FORECAST_SCHEMA.names
    return Record(rows.select([parts.id, *columns]).rename_columns(["id", *columns]), facts)


def as_file(rows: pa.Table, facts: Mapping[str, Any]) -> bytes:
    """Return the parquet file of the latest total: rows of TOTAL_SCHEMA, with its facts."""
    described = rows.cast(TOTAL_SCHEMA).replace_schema_metadata({FACTS: json.dumps(dict(facts))})
    buffer = BytesIO()
    pq.write_table(described, buffer, compression="zstd")
    return buffer.getvalue()


def facts_in(file: bytes | None) -> Mapping[str, Any]:
    """Return the facts of the forecast in a file; empty if there is none, or something else in its place."""
    if file is None:
        return {}
    try:
        facts = json.loads((pq.read_schema(BytesIO(file)).metadata or {})[FACTS])
    except (pa.ArrowException, OSError, KeyError, ValueError):
        return {}
    return facts if isinstance(facts, dict) else {}
