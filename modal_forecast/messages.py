"""The messages between a caller and the worker: histories to forecast, and the forecasts of them.

A message is an Arrow IPC stream in long format, one row for each series and period. JSON in the metadata of
its schema holds the kind of message, the version of the protocol, the names of the series, the number of
rows, and the parameters. One series is a batch of one. Equal messages have equal bytes, so that a hash of a
request's bytes identifies its forecast.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self, TypeVar

import numpy as np
import pyarrow as pa

from modal_forecast.grain import DAY

PROTOCOL_VERSION = 5
REQUEST, ANSWER, REFUSAL = "forecast request", "forecast answer", "forecast refusal"
# The model of a request that asks for the combination that the back-test weighs, and for no candidate alone.
AUTOMATIC = "automatic"
PARAMETERS = ("horizon", "country", "model", "grain")
# The name that the series of a ForecastRequest has in its message.
ONLY_SERIES = "series"

HISTORY_SCHEMA = pa.schema({"ds": pa.date32(), "y": pa.float64()})
FORECAST_SCHEMA = pa.schema(
    {
        "ds": pa.date32(),
        "yhat": pa.float64(),
        "yhat_lower_80": pa.float64(),
        "yhat_upper_80": pa.float64(),
        "yhat_lower_95": pa.float64(),
        "yhat_upper_95": pa.float64(),
    }
)
_UNIQUE_ID = pa.field("unique_id", pa.dictionary(pa.int32(), pa.string()))
_ENVELOPE = b"modal_forecast"
_Item = TypeVar("_Item")


class MessageError(ValueError):
    """Bytes, or the parts of a message, that this version of the protocol cannot read."""


class ForecastRefused(ValueError):
    """The input cannot be forecast; the text says what is wrong with it and what to do.

    Raised by the model, and by `from_bytes` of an answer when the worker refused the request.
    """

    @property
    def reason(self) -> str:
        """One or two sentences for a person."""
        return str(self)

    def to_bytes(self) -> bytes:
        return _pack(REFUSAL, {}, HISTORY_SCHEMA, {"reason": self.reason})

    @classmethod
    def from_bytes(cls, raw: bytes) -> Self:
        """Raises MessageError if `raw` is anything else."""
        _, parameters = _unpack(raw, REFUSAL, HISTORY_SCHEMA)
        return cls(_parameter(parameters, "reason"))


@dataclass(frozen=True)
class ForecastRequest:
    """A history to forecast.

    history: one row a day, week or month, `ds` date32 (any day of it) and `y` float64 in any unit; a null or
        NaN `y` is a missing value. Rows are put in order of `ds`, other columns are dropped, other types are
        cast if nothing is lost.
    horizon: days, weeks or months to forecast after that of the last `ds`.
    country: whose holidays to use, a two-letter ISO 3166 code, or None for no holidays. Months use none.
    model: AUTOMATIC, or one of candidates.MODELS.
    grain: what a row is of, one of grain.GRAINS.

    Raises MessageError if the history has no such columns. validation.py checks whether it can be forecast.
    """

    history: pa.Table
    horizon: int = 180
    country: str | None = "US"
    model: str = AUTOMATIC
    grain: str = DAY.name

    def __post_init__(self) -> None:
        object.__setattr__(self, "history", _conform(self.history, HISTORY_SCHEMA, "The history"))

    def to_bytes(self) -> bytes:
        return ForecastBatch(
            {ONLY_SERIES: self.history}, self.horizon, self.country, self.model, self.grain
        ).to_bytes()

    @classmethod
    def from_bytes(cls, raw: bytes) -> Self:
        """Raises MessageError if `raw` is not the request of one series."""
        batch = ForecastBatch.from_bytes(raw)
        return cls(_only_series(batch.histories), batch.horizon, batch.country, batch.model, batch.grain)


@dataclass(frozen=True)
class ForecastBatch:
    """Many histories to forecast in one call.

    histories: by the name of the series, each as in a ForecastRequest; put in order of the names.
    horizon, country, model, grain: of all series, as in a ForecastRequest.

    Raises MessageError if it is empty.
    """

    histories: Mapping[str, pa.Table]
    horizon: int = 180
    country: str | None = "US"
    model: str = AUTOMATIC
    grain: str = DAY.name

    def __post_init__(self) -> None:
        if not self.histories:
            raise MessageError("The batch is empty: give it one series or more.")
        histories = {
            name: _conform(history, HISTORY_SCHEMA, f"The history of {name!r}")
            for name, history in sorted(self.histories.items())
        }
        object.__setattr__(self, "histories", histories)

    @property
    def requests(self) -> dict[str, ForecastRequest]:
        """The request of each series by itself."""
        return {
            name: ForecastRequest(history, self.horizon, self.country, self.model, self.grain)
            for name, history in self.histories.items()
        }

    def to_bytes(self) -> bytes:
        parameters = {name: getattr(self, name) for name in PARAMETERS}
        return _pack(REQUEST, self.histories, HISTORY_SCHEMA, parameters)

    @classmethod
    def from_bytes(cls, raw: bytes) -> Self:
        """Raises MessageError if `raw` is anything else."""
        histories, parameters = _unpack(raw, REQUEST, HISTORY_SCHEMA)
        return cls(histories, *(_parameter(parameters, name) for name in PARAMETERS))


@dataclass(frozen=True)
class ForecastAnswer:
    """A forecast and how it was made.

    forecast: `horizon` rows of FORECAST_SCHEMA in order of `ds`, the first days of periods, in the unit of
        the history, where yhat_lower_95 <= yhat_lower_80 <= yhat <= yhat_upper_80 <= yhat_upper_95.
    diagnostics: JSON values, as model.forecast() documents them; handler.py adds time and memory.
    """

    forecast: pa.Table
    diagnostics: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "forecast", _conform(self.forecast, FORECAST_SCHEMA, "The forecast"))

    def to_bytes(self) -> bytes:
        return BatchAnswer({ONLY_SERIES: self}).to_bytes()

    @classmethod
    def from_bytes(cls, raw: bytes) -> Self:
        """The answer for one series, with the diagnostics of the batch among its own.

        Raises ForecastRefused if the worker refused it, MessageError if `raw` is anything else.
        """
        batch = BatchAnswer.from_bytes(raw)
        answer = _only_series(batch.answers)
        if isinstance(answer, ForecastRefused):
            raise answer
        return cls(answer.forecast, {**answer.diagnostics, **batch.diagnostics})


@dataclass(frozen=True)
class BatchAnswer:
    """The outcome of a batch: for each series its forecast, or why it was refused.

    answers: by the name of the series, in order of the names.
    diagnostics: of the batch as a whole: time, memory and processes, as handler.py adds them.
    """

    answers: Mapping[str, ForecastAnswer | ForecastRefused]
    diagnostics: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "answers", dict(sorted(self.answers.items())))

    def to_bytes(self) -> bytes:
        answered = {
            name: answer for name, answer in self.answers.items() if isinstance(answer, ForecastAnswer)
        }
        refused = {
            name: answer.reason
            for name, answer in self.answers.items()
            if isinstance(answer, ForecastRefused)
        }
        parameters = {
            "diagnostics": dict(self.diagnostics),
            "series_diagnostics": {name: dict(answer.diagnostics) for name, answer in answered.items()},
            "refused": refused,
        }
        forecasts = {name: answer.forecast for name, answer in answered.items()}
        return _pack(ANSWER, forecasts, FORECAST_SCHEMA, parameters)

    @classmethod
    def from_bytes(cls, raw: bytes) -> Self:
        """The answers; a series that was refused is among them.

        Raises ForecastRefused if the worker refused the whole batch, MessageError if `raw` is anything else.
        """
        if _envelope(_open(raw).schema)["kind"] == REFUSAL:
            raise ForecastRefused.from_bytes(raw)
        forecasts, parameters = _unpack(raw, ANSWER, FORECAST_SCHEMA)
        diagnostics = _parameter(parameters, "series_diagnostics")
        answers: dict[str, ForecastAnswer | ForecastRefused] = {
            name: ForecastAnswer(forecast, _parameter(diagnostics, name))
            for name, forecast in forecasts.items()
        }
        refused: Mapping[str, str] = _parameter(parameters, "refused")
        answers |= {name: ForecastRefused(reason) for name, reason in refused.items()}
        return cls(answers, _parameter(parameters, "diagnostics"))


def _only_series(series: Mapping[str, _Item]) -> _Item:
    if len(series) != 1:
        raise MessageError(f"This message has {len(series)} series, where one was expected.")
    return next(iter(series.values()))


def _conform(table: pa.Table, schema: pa.Schema, what: str) -> pa.Table:
    """`table` in the layout that makes equal tables equal bytes: these columns and types, in order of ds."""
    try:
        table = table.select(schema.names)
        if table.schema.types != schema.types:
            table = table.cast(schema)
    except (pa.ArrowException, KeyError, ValueError) as error:
        columns = ", ".join(f"{column.name} ({column.type})" for column in schema)
        raise MessageError(f"{what} needs the columns {columns}: {error}") from error
    days = table["ds"].to_numpy()
    order = np.argsort(days, kind="stable")
    arrays = [_date_array(days[order])]
    arrays += [_float_array(table[name].to_numpy()[order]) for name in schema.names[1:]]
    return pa.table(arrays, schema=schema)


# The values under nulls, and the chunks, would show in the bytes: going through numpy starts both afresh.
def _date_array(days: np.ndarray) -> pa.Array:
    missing = np.isnat(days)
    return pa.array(np.where(missing, np.datetime64(0, "D"), days), pa.date32(), mask=missing)


def _float_array(values: np.ndarray) -> pa.Array:
    missing = np.isnan(values)
    return pa.array(np.where(missing, 0.0, values) + 0.0, pa.float64(), mask=missing)  # + 0.0: -0.0 is 0.0


def _pack(
    kind: str, tables: Mapping[str, pa.Table], schema: pa.Schema, parameters: Mapping[str, Any]
) -> bytes:
    """The bytes of a message: the conformed table of each series, and parameters that are JSON values."""
    names = list(tables)
    rows = pa.concat_tables(tables.values()) if tables else schema.empty_table()
    envelope = {
        "kind": kind,
        "version": PROTOCOL_VERSION,
        "rows": rows.num_rows,
        "series": names,
        "parameters": parameters,
    }
    text = json.dumps(envelope, sort_keys=True, allow_nan=False)
    codes = np.repeat(np.arange(len(names), dtype=np.int32), [table.num_rows for table in tables.values()])
    ids = pa.DictionaryArray.from_arrays(codes, pa.array(names, pa.string()))
    table = pa.table(
        [ids, *rows.combine_chunks().columns], schema=pa.schema([_UNIQUE_ID, *schema], {_ENVELOPE: text})
    )
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    return bytes(sink.getvalue())


def _unpack(raw: bytes, kind: str, schema: pa.Schema) -> tuple[dict[str, pa.Table], Mapping[str, Any]]:
    """The table of each series and the parameters of a message of this kind.

    Raises MessageError if it is anything else.
    """
    stream = _open(raw)
    envelope = _envelope(stream.schema)
    if envelope["kind"] != kind:
        raise MessageError(f"This is a {envelope['kind']}, where a {kind} was expected.")
    try:
        table = stream.read_all()
        table.validate(full=True)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise MessageError(f"This {kind} is damaged ({error}). Send it again.") from error
    # A stream cut off between two batches reads as a shorter stream, without an error.
    if table.num_rows != envelope["rows"]:
        raise MessageError(
            f"This {kind} is cut off after {table.num_rows} of {envelope['rows']} rows. Send it again."
        )
    names = envelope["series"]
    if not table.schema.equals(pa.schema([_UNIQUE_ID, *schema])) or table["unique_id"].null_count:
        raise MessageError(f"This {kind} is damaged (its columns are others). Send it again.")
    if len(set(names)) < len(names):
        raise MessageError(f"This {kind} has a series more than once. Give every series its own name.")
    ids = table["unique_id"].combine_chunks()
    codes = ids.indices.to_numpy()
    if len(codes) and (ids.dictionary.to_pylist() != names or (np.diff(codes) < 0).any()):
        raise MessageError(f"This {kind} is damaged (its series are mixed up). Send it again.")
    edges = np.searchsorted(codes, np.arange(len(names) + 1))
    rows = table.drop_columns(["unique_id"]).replace_schema_metadata()
    tables = {
        name: rows.slice(start, end - start)
        for name, start, end in zip(names, edges[:-1], edges[1:], strict=True)
    }
    return tables, envelope["parameters"]


def _open(raw: bytes) -> pa.RecordBatchReader:
    try:
        return pa.ipc.open_stream(pa.py_buffer(raw))
    except (pa.ArrowException, OSError, ValueError) as error:
        raise MessageError(
            f"These {len(raw):,} bytes are no message of modal_forecast. Send what `to_bytes()` returned."
        ) from error


def _envelope(schema: pa.Schema) -> Mapping[str, Any]:
    try:
        envelope: Mapping[str, Any] = json.loads((schema.metadata or {})[_ENVELOPE])
        kind, version, _ = envelope["kind"], envelope["version"], (envelope["rows"], envelope["parameters"])
    except (KeyError, TypeError, ValueError) as error:
        raise MessageError(
            "This Arrow table is no message of modal_forecast. Send what `to_bytes()` returned."
        ) from error
    if version != PROTOCOL_VERSION:
        raise MessageError(
            f"This {kind} is of protocol version {version}, and this code reads version {PROTOCOL_VERSION}. "
            "Deploy the worker and its caller from the same commit."
        )
    _parameter(envelope, "series")
    return envelope


def _parameter(parameters: Mapping[str, Any], name: str) -> Any:
    """One of the parameters. Raises MessageError if it is not there."""
    try:
        return parameters[name]
    except (KeyError, TypeError) as error:
        raise MessageError(f"This message lacks its {name}. Send what `to_bytes()` returned.") from error
