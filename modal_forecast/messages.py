"""The messages between whoever asks for a forecast and the worker that makes it.

A message is one small Arrow IPC stream. The metadata of its schema is JSON: the kind of message, the version
of this protocol, the number of rows, and the parameters that are not a table. Equal messages have equal
bytes, so that a hash of a request's bytes identifies the forecast.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, Self, TypeVar

import numpy as np
import pyarrow as pa

PROTOCOL_VERSION = 1

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

BATCH_SCHEMA = pa.schema({"series": pa.string(), "message": pa.large_binary()})

_ENVELOPE = b"modal_forecast"
_REQUEST, _ANSWER, _REFUSAL = "forecast request", "forecast answer", "forecast refusal"
_BATCH, _BATCH_ANSWER = "forecast batch", "batch answer"


class MessageError(ValueError):
    """Bytes, or the parts of a message, that this version of the protocol cannot read."""


class ForecastRefused(ValueError):
    """The input cannot be forecast; the text says what is wrong with it and what to do.

    Raised by the model, and by `ForecastAnswer.from_bytes` when a worker answered with it.
    """

    @property
    def reason(self) -> str:
        """One or two sentences for a person."""
        return str(self)

    def to_bytes(self) -> bytes:
        return _pack(_REFUSAL, pa.table({}), {"reason": self.reason})

    @classmethod
    def from_bytes(cls, raw: bytes) -> Self:
        """Raises MessageError if `raw` is anything else."""
        _, parameters = _unpack(raw, _REFUSAL)
        return cls(_parameter(parameters, "reason"))


@dataclass(frozen=True)
class ForecastRequest:
    """A history to forecast.

    history: one row a day, `ds` date32 and `y` float64 in any unit; a null or NaN `y` is a missing day. Rows
        are put in order of `ds`, other columns are dropped, other types are cast if nothing is lost.
    horizon: days to forecast after the last `ds`.
    country: whose holidays to use, a two-letter ISO 3166 code, or None for no holidays.

    Raises MessageError if the history has no such columns. Whether it can be forecast, validation.py says.
    """

    history: pa.Table
    horizon: int = 180
    country: str | None = "US"

    def __post_init__(self) -> None:
        object.__setattr__(self, "history", _conform(self.history, HISTORY_SCHEMA, "The history"))

    def to_bytes(self) -> bytes:
        return _pack(_REQUEST, self.history, {"horizon": self.horizon, "country": self.country})

    @classmethod
    def from_bytes(cls, raw: bytes) -> Self:
        """Raises MessageError if `raw` is anything else."""
        history, parameters = _unpack(raw, _REQUEST)
        return cls(history, _parameter(parameters, "horizon"), _parameter(parameters, "country"))


@dataclass(frozen=True)
class ForecastAnswer:
    """A forecast and how it was made.

    forecast: `horizon` rows of FORECAST_SCHEMA in order of `ds`, in the unit of the history, where
        yhat_lower_95 <= yhat_lower_80 <= yhat <= yhat_upper_80 <= yhat_upper_95.
    diagnostics: JSON values; model.forecast() says which, and handler.py adds what it took.
    """

    forecast: pa.Table
    diagnostics: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "forecast", _conform(self.forecast, FORECAST_SCHEMA, "The forecast"))

    def to_bytes(self) -> bytes:
        return _pack(_ANSWER, self.forecast, {"diagnostics": dict(self.diagnostics)})

    @classmethod
    def from_bytes(cls, raw: bytes) -> Self:
        """Raises ForecastRefused if the worker refused the input, MessageError if `raw` is anything else."""
        if _envelope(_open(raw).schema)["kind"] == _REFUSAL:
            raise ForecastRefused.from_bytes(raw)
        forecast, parameters = _unpack(raw, _ANSWER)
        return cls(forecast, _parameter(parameters, "diagnostics"))


@dataclass(frozen=True)
class ForecastBatch:
    """Many histories to forecast in one call.

    requests: by the name of the series; put in order of the names, so that equal batches have equal bytes.
    total: the name of the series that all others add up to, or None if they have nothing to do with each
        other. All must then have one horizon. A history that ends before the total's is forecast from the
        total's last day on, as if the days between were missing: fill them with 0 if nothing was sold.
    cpus: the most processes to use, or None for as many as there are cpus.
    memory_mib: the memory that the worker may use, or None for what the system says. Neither changes the
        forecasts, but both are in the bytes.

    Raises MessageError if it is empty, or if the total is not one of the series, is the only one, or has
    another horizon than a part.
    """

    requests: Mapping[str, ForecastRequest]
    total: str | None = None
    cpus: int | None = None
    memory_mib: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "requests", dict(sorted(self.requests.items())))
        if not self.requests:
            raise MessageError("The batch is empty: give it one series or more.")
        if self.total is None:
            return
        if self.total not in self.requests or len(self.requests) < 2:
            raise MessageError(
                f"The total {self.total!r} must be one of the {len(self.requests)} series of the batch, "
                "and not the only one: add it, or the parts that add up to it."
            )
        horizon = self.requests[self.total].horizon
        other = [name for name, request in self.requests.items() if request.horizon != horizon]
        if other:
            raise MessageError(
                f"The horizon of {other[0]!r} is {self.requests[other[0]].horizon!r} and that of its total "
                f"{horizon!r}: give all that add up the same."
            )

    def to_bytes(self) -> bytes:
        parameters = {"total": self.total, "cpus": self.cpus, "memory_mib": self.memory_mib}
        return _pack(_BATCH, _batch_table(self.requests), parameters)

    @classmethod
    def from_bytes(cls, raw: bytes) -> Self:
        """Raises MessageError if `raw` is anything else."""
        table, parameters = _unpack(raw, _BATCH)
        requests = _batch_messages(table, ForecastRequest.from_bytes)
        return cls(requests, *(_parameter(parameters, name) for name in ("total", "cpus", "memory_mib")))


@dataclass(frozen=True)
class BatchAnswer:
    """What came of a batch: for each series its forecast, or why it was refused.

    answers: by the name of the series, in order of the names.
    diagnostics: what the batch took as a whole; handler.py says what.
    """

    answers: Mapping[str, ForecastAnswer | ForecastRefused]
    diagnostics: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "answers", dict(sorted(self.answers.items())))

    def to_bytes(self) -> bytes:
        return _pack(_BATCH_ANSWER, _batch_table(self.answers), {"diagnostics": dict(self.diagnostics)})

    @classmethod
    def from_bytes(cls, raw: bytes) -> Self:
        """A series that was refused is in `answers`.

        Raises ForecastRefused if the worker refused the whole batch, MessageError if `raw` is anything else.
        """
        if _envelope(_open(raw).schema)["kind"] == _REFUSAL:
            raise ForecastRefused.from_bytes(raw)
        table, parameters = _unpack(raw, _BATCH_ANSWER)
        return cls(_batch_messages(table, answer_or_refusal), _parameter(parameters, "diagnostics"))


def is_batch(raw: bytes) -> bool:
    """Whether these are the bytes of a ForecastBatch. Raises MessageError if they are of no message."""
    return bool(_envelope(_open(raw).schema)["kind"] == _BATCH)


def answer_or_refusal(raw: bytes) -> ForecastAnswer | ForecastRefused:
    """What a worker said of one series. Raises MessageError if `raw` is anything else."""
    try:
        return ForecastAnswer.from_bytes(raw)
    except ForecastRefused as refusal:
        return refusal


class _Message(Protocol):
    def to_bytes(self) -> bytes: ...


_M = TypeVar("_M", bound=_Message)


def _batch_table(messages: Mapping[str, _Message]) -> pa.Table:
    """One row a series: its name and its own message, as it would be sent alone."""
    rows = {"series": list(messages), "message": [message.to_bytes() for message in messages.values()]}
    return pa.table(rows, schema=BATCH_SCHEMA)


def _batch_messages(table: pa.Table, read: Callable[[bytes], _M]) -> dict[str, _M]:
    if not table.schema.equals(BATCH_SCHEMA) or any(column.null_count for column in table.columns):
        raise MessageError("This batch is damaged. Send it again.")
    names = table["series"].to_pylist()
    if len(set(names)) < len(names):
        raise MessageError("This batch has a series more than once. Give every series a name of its own.")
    messages = {}
    for name, raw in zip(names, table["message"], strict=True):
        try:
            messages[name] = read(raw.as_buffer())
        except MessageError as error:
            raise MessageError(f"The series {name!r} cannot be read. {error}") from error
    return messages


def _pack(kind: str, table: pa.Table, parameters: Mapping[str, Any]) -> bytes:
    envelope = {"kind": kind, "version": PROTOCOL_VERSION, "rows": table.num_rows, "parameters": parameters}
    text = json.dumps(envelope, sort_keys=True, allow_nan=False)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema.with_metadata({_ENVELOPE: text})) as stream:
        stream.write_table(table)
    return bytes(sink.getvalue())


def _unpack(raw: bytes, kind: str) -> tuple[pa.Table, Mapping[str, Any]]:
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
    return table.replace_schema_metadata(), envelope["parameters"]


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
            f"This {kind} is of protocol version {version}, and version {PROTOCOL_VERSION} is spoken here. "
            "Deploy the worker and its caller from the same commit."
        )
    return envelope


def _parameter(parameters: Mapping[str, Any], name: str) -> Any:
    try:
        return parameters[name]
    except (KeyError, TypeError) as error:
        raise MessageError(f"This message lacks its {name}. Send what `to_bytes()` returned.") from error


def _conform(table: pa.Table, schema: pa.Schema, what: str) -> pa.Table:
    """`table` in the layout that makes equal tables equal bytes: these columns and types, in order of ds."""
    try:
        table = table.select(schema.names)
        if table.schema.types != schema.types:
            table = table.cast(schema)
    except (pa.ArrowException, KeyError, ValueError) as error:
        needed = ", ".join(f"{column.name} ({column.type})" for column in schema)
        raise MessageError(f"{what} needs the columns {needed}: {error}") from error
    days = table["ds"].to_numpy()
    in_order = np.argsort(days, kind="stable")
    columns = [_date_column(days[in_order])]
    columns += [_float_column(table[name].to_numpy()[in_order]) for name in schema.names[1:]]
    return pa.table(columns, schema=schema)


# What lies under a null, and the chunks, would show in the bytes: going through numpy starts both afresh.
def _date_column(days: np.ndarray) -> pa.Array:
    missing = np.isnat(days)
    return pa.array(np.where(missing, np.datetime64(0, "D"), days), pa.date32(), mask=missing)


def _float_column(values: np.ndarray) -> pa.Array:
    missing = np.isnan(values)
    return pa.array(np.where(missing, 0.0, values) + 0.0, pa.float64(), mask=missing)  # + 0.0: -0.0 is 0.0
