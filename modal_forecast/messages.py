"""A history to forecast, and the forecast of it: what is said between whoever asks and the worker.

batch_messages.py says the same of many series in one call, and wire.py how a message is put into bytes.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import pyarrow as pa

from modal_forecast.wire import MessageError, kind_of, pack, parameter, unpack

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

REQUEST, ANSWER, REFUSAL = "forecast request", "forecast answer", "forecast refusal"


class ForecastRefused(ValueError):
    """The input cannot be forecast; the text says what is wrong with it and what to do.

    Raised by the model, and by `ForecastAnswer.from_bytes` when a worker answered with it.
    """

    @property
    def reason(self) -> str:
        """One or two sentences for a person."""
        return str(self)

    def to_bytes(self) -> bytes:
        return pack(REFUSAL, pa.table({}), {"reason": self.reason})

    @classmethod
    def from_bytes(cls, raw: bytes) -> Self:
        """Raises MessageError if `raw` is anything else."""
        _, parameters = unpack(raw, REFUSAL)
        return cls(parameter(parameters, "reason"))


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
        return pack(REQUEST, self.history, {"horizon": self.horizon, "country": self.country})

    @classmethod
    def from_bytes(cls, raw: bytes) -> Self:
        """Raises MessageError if `raw` is anything else."""
        history, parameters = unpack(raw, REQUEST)
        return cls(history, parameter(parameters, "horizon"), parameter(parameters, "country"))


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
        return pack(ANSWER, self.forecast, {"diagnostics": dict(self.diagnostics)})

    @classmethod
    def from_bytes(cls, raw: bytes) -> Self:
        """Raises ForecastRefused if the worker refused the input, MessageError if `raw` is anything else."""
        if kind_of(raw) == REFUSAL:
            raise ForecastRefused.from_bytes(raw)
        forecast, parameters = unpack(raw, ANSWER)
        return cls(forecast, parameter(parameters, "diagnostics"))


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
