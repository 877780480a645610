"""The messages between a caller and the worker: histories to forecast, and the forecasts of them.

One series is a batch of one. Equal messages have equal bytes, so that a hash of a request's bytes identifies
its forecast.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self, TypeVar

import pyarrow as pa

from modal_forecast.grain import DAY
from modal_forecast.wire import MessageError, conform, kind_of, pack, parameter, unpack

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
_Item = TypeVar("_Item")


class ForecastRefused(ValueError):
    """The input cannot be forecast; the text says what is wrong with it and what to do.

    Raised by the model, and by `from_bytes` of an answer when the worker refused the request.
    """

    def to_bytes(self) -> bytes:
        return pack(REFUSAL, {}, HISTORY_SCHEMA, {"reason": str(self)})

    @classmethod
    def from_bytes(cls, raw: bytes) -> Self:
        """Raises MessageError if `raw` is anything else."""
        _, parameters = unpack(raw, REFUSAL, HISTORY_SCHEMA)
        return cls(parameter(parameters, "reason"))


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
        object.__setattr__(self, "history", conform(self.history, HISTORY_SCHEMA, "The history"))

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
            name: conform(history, HISTORY_SCHEMA, f"The history of {name!r}")
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
        return pack(REQUEST, self.histories, HISTORY_SCHEMA, parameters)

    @classmethod
    def from_bytes(cls, raw: bytes) -> Self:
        """Raises MessageError if `raw` is anything else."""
        histories, parameters = unpack(raw, REQUEST, HISTORY_SCHEMA)
        return cls(histories, *(parameter(parameters, name) for name in PARAMETERS))


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
        object.__setattr__(self, "forecast", conform(self.forecast, FORECAST_SCHEMA, "The forecast"))

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


SeriesAnswer = ForecastAnswer | ForecastRefused


@dataclass(frozen=True)
class BatchAnswer:
    """The outcome of a batch: for each series its forecast, or why it was refused.

    answers: by the name of the series, in order of the names.
    diagnostics: of the batch as a whole: time, memory and processes, as handler.py adds them.
    """

    answers: Mapping[str, SeriesAnswer]
    diagnostics: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "answers", dict(sorted(self.answers.items())))

    def to_bytes(self) -> bytes:
        forecasts, diagnostics, refused = {}, {}, {}
        for name, answer in self.answers.items():
            if isinstance(answer, ForecastRefused):
                refused[name] = str(answer)
            else:
                forecasts[name], diagnostics[name] = answer.forecast, dict(answer.diagnostics)
        parameters = {
            "diagnostics": dict(self.diagnostics),
            "series_diagnostics": diagnostics,
            "refused": refused,
        }
        return pack(ANSWER, forecasts, FORECAST_SCHEMA, parameters)

    @classmethod
    def from_bytes(cls, raw: bytes) -> Self:
        """The answers; a series that was refused is among them.

        Raises ForecastRefused if the worker refused the whole batch, MessageError if `raw` is anything else.
        """
        if kind_of(raw) == REFUSAL:
            raise ForecastRefused.from_bytes(raw)
        forecasts, parameters = unpack(raw, ANSWER, FORECAST_SCHEMA)
        diagnostics = parameter(parameters, "series_diagnostics")
        answers: dict[str, SeriesAnswer] = {
            name: ForecastAnswer(forecast, parameter(diagnostics, name))
            for name, forecast in forecasts.items()
        }
        refused: Mapping[str, str] = parameter(parameters, "refused")
        answers |= {name: ForecastRefused(reason) for name, reason in refused.items()}
        return cls(answers, parameter(parameters, "diagnostics"))


def _only_series(series: Mapping[str, _Item]) -> _Item:
    if len(series) != 1:
        raise MessageError(f"This message has {len(series)} series, where one was expected.")
    return next(iter(series.values()))
