"""The record of a forecast: its rows, how they were made, and what was asked, to ask it again. Pure.

The forecast's table and file hold the latest forecast; the records, which never change, hold all of them.
"""

import base64
import json
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from io import BytesIO
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from modal_forecast.messages import ForecastAnswer, ForecastRequest, MessageError
from serverless_assets.errors import UserError
from serverless_assets.forecasting.forecast_file import FACTS
from serverless_assets.forecasting.reuse import KEY, ForecastFingerprint, digest
from serverless_assets.run_inputs import RECORD_PREFIX

PREFIX = RECORD_PREFIX
MADE_AT, FORECAST_HASH = "made_at", "forecast_hash"
REQUEST, DETAILS = b"forecast_request", b"forecast_details"
# Without these, a forecast cannot be asked again as it was.
NEEDED = (
    MADE_AT,
    FORECAST_HASH,
    KEY,
    "run_id",
    "forecast_code",
    "history_hash",
    "horizon_days",
    "data_as_of",
    "compute",
    "cpu",
    "memory_mib",
)
_NAME = re.compile(
    re.escape(PREFIX)
    + r"(?P<made_at>\d{8}T\d{6}Z)-(?P<data_as_of>\d{8})-(?P<key>[0-9a-f]{16})-(?P<run_id>.+)\.parquet"
)

# A fact, and what is said if it is not that of what the record holds.
DIFFERENCES = {
    "history_hash": "its history is not the one that the forecast was made from",
    "horizon_days": "its horizon is not the one that the forecast was made for",
    "holidays": "its holidays are not those that the forecast was made with",
    FORECAST_HASH: "its forecast was changed after it was made",
    KEY: "its key is not that of its history, parameters and code",
}


class RecordError(UserError):
    """A record that cannot be read, or that does not hold together; the message says why."""


@dataclass(frozen=True)
class RecordName:
    """The name of a record's file. In order of names, records are in order of time.

    data_as_of: the last day of the history, after which are the days of the forecast.
    """

    made_at: datetime
    data_as_of: date
    key: str
    run_id: str

    def __str__(self) -> str:
        return (
            f"{PREFIX}{self.made_at:%Y%m%dT%H%M%SZ}-{self.data_as_of:%Y%m%d}-{self.key}-{self.run_id}.parquet"
        )

    @classmethod
    def of(cls, facts: Mapping[str, Any]) -> "RecordName | None":
        """The name for a forecast's facts; None if it was made before there were records."""
        if MADE_AT not in facts:
            return None
        made_at, data_as_of = datetime.fromisoformat(facts[MADE_AT]), date.fromisoformat(facts["data_as_of"])
        return cls(made_at, data_as_of, facts[KEY], facts["run_id"])

    @classmethod
    def parse(cls, name: str) -> "RecordName | None":
        """None for the name of any other file."""
        found = _NAME.fullmatch(name)
        if found is None:
            return None
        try:
            made_at = datetime.strptime(found["made_at"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
            data_as_of = datetime.strptime(found["data_as_of"], "%Y%m%d").date()
        except ValueError:
            return None
        return cls(made_at, data_as_of, found["key"], found["run_id"])


@dataclass(frozen=True)
class Record:
    """`rows` of the forecast's table, the `facts` kept with it, and the worker's `request`.

    `details` is what the worker said of the forecast that is too much to be kept with a table.
    """

    rows: pa.Table
    facts: Mapping[str, Any]
    request: bytes
    details: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return str(RecordName.of(self.facts))

    def to_bytes(self) -> bytes:
        buffer = BytesIO()
        # Arrow's own copy of the schema would hold all that is said here a second time.
        with pq.ParquetWriter(buffer, self.rows.schema, compression="zstd", store_schema=False) as writer:
            writer.write_table(self.rows)
            # Many readers of parquet take what is said here for text.
            request = base64.b64encode(zlib.compress(self.request)).decode()
            said = {FACTS: self.facts, DETAILS: self.details}
            writer.add_key_value_metadata({key: json.dumps(dict(found)) for key, found in said.items()})
            writer.add_key_value_metadata({REQUEST: request})
        return buffer.getvalue()

    @classmethod
    def from_bytes(cls, content: bytes) -> "Record":
        """Raises RecordError if `content` is anything else."""
        try:
            with pq.ParquetFile(BytesIO(content)) as file:
                said = file.metadata.metadata
                facts, details = json.loads(said[FACTS]), json.loads(said.get(DETAILS, b"{}"))
                request = zlib.decompress(base64.b64decode(said[REQUEST]))
                rows = file.read().replace_schema_metadata()
        except (pa.ArrowException, OSError, KeyError, TypeError, ValueError, zlib.error) as error:
            raise RecordError(f"it cannot be read ({error or type(error).__name__})") from None
        missing = [fact for fact in NEEDED if fact not in facts]
        if missing:
            raise RecordError(f"it does not say its {', '.join(missing)}")
        return cls(rows, facts, request, details)

    def verify(self) -> None:
        """Raise `RecordError` unless history, parameters, forecast and key are those that it says."""
        try:
            basis = ForecastFingerprint.of(
                ForecastRequest.from_bytes(self.request), self.facts["forecast_code"], self.rows.schema
            )
            found = {**basis.as_facts(), FORECAST_HASH: forecast_hash(self.rows)}
        except MessageError as error:
            raise RecordError(f"what was asked cannot be read: {error}") from None
        for fact, difference in DIFFERENCES.items():
            if self.facts.get(fact) != found[fact]:
                raise RecordError(
                    f"{difference} ({fact} {self.facts.get(fact)} recorded, {found[fact]} found)"
                )


def forecast_hash(rows: pa.Table) -> str:
    """What tells the values of a forecast from others, whichever run made them, and when."""
    return digest(ForecastAnswer(rows).to_bytes())


def made_facts(rows: pa.Table, made_at: datetime) -> Mapping[str, Any]:
    """What a record needs to be known of a forecast, besides how it was made."""
    return {MADE_AT: f"{made_at:%Y-%m-%dT%H:%M:%SZ}", FORECAST_HASH: forecast_hash(rows)}
