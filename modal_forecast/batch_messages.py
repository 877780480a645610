"""Many series in one call: each of them in the message that it would be sent in alone."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, Self, TypeVar

import pyarrow as pa

from modal_forecast.messages import REFUSAL, ForecastAnswer, ForecastRefused, ForecastRequest
from modal_forecast.wire import MessageError, kind_of, pack, parameter, unpack

BATCH_SCHEMA = pa.schema({"series": pa.string(), "message": pa.large_binary()})

BATCH, BATCH_ANSWER = "forecast batch", "batch answer"


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
        return pack(BATCH, _batch_table(self.requests), parameters)

    @classmethod
    def from_bytes(cls, raw: bytes) -> Self:
        """Raises MessageError if `raw` is anything else."""
        table, parameters = unpack(raw, BATCH)
        requests = _batch_messages(table, ForecastRequest.from_bytes)
        return cls(requests, *(parameter(parameters, name) for name in ("total", "cpus", "memory_mib")))


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
        return pack(BATCH_ANSWER, _batch_table(self.answers), {"diagnostics": dict(self.diagnostics)})

    @classmethod
    def from_bytes(cls, raw: bytes) -> Self:
        """A series that was refused is in `answers`.

        Raises ForecastRefused if the worker refused the whole batch, MessageError if `raw` is anything else.
        """
        if kind_of(raw) == REFUSAL:
            raise ForecastRefused.from_bytes(raw)
        table, parameters = unpack(raw, BATCH_ANSWER)
        return cls(_batch_messages(table, answer_or_refusal), parameter(parameters, "diagnostics"))


def is_batch(raw: bytes) -> bool:
    """Whether these are the bytes of a ForecastBatch. Raises MessageError if they are of no message."""
    return kind_of(raw) == BATCH


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
