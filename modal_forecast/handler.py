"""Answer a request, with the time and memory that took: for a worker process and a Modal function."""

from dataclasses import asdict

from modal_forecast.batch import forecast_batch, processes_for
from modal_forecast.messages import (
    BatchAnswer,
    ForecastAnswer,
    ForecastBatch,
    ForecastRefused,
    ForecastRequest,
)
from modal_forecast.model import Log, forecast
from modal_forecast.resources import measured
from modal_forecast.wire import MessageError


def handle(raw_request: bytes, log: Log, cores: int | None = None) -> bytes:
    """Answer the bytes of a ForecastRequest or ForecastBatch with those of the answer.

    cores: the most to use; None for all that this process may run on.

    A series that cannot be forecast is refused in the answer, and a request that cannot be read is answered
    with the bytes of a ForecastRefused. An exception that leaves this function is a bug, not an unfit input.
    """
    try:
        batch = ForecastBatch.from_bytes(raw_request)
    except MessageError as error:
        log(f"refused: {error}")
        return ForecastRefused(str(error)).to_bytes()
    processes = processes_for(batch, cores)
    with measured() as usage:
        answer = forecast_batch(batch, log, processes)
    diagnostics = asdict(usage) | ({"processes": processes} if len(batch.histories) > 1 else {})
    return BatchAnswer(answer.answers, diagnostics).to_bytes()


def measured_forecast(request: ForecastRequest, log: Log) -> ForecastAnswer:
    """Return the model's answer, with the fields of resources.ResourceUsage among its diagnostics.

    Raises ForecastRefused.
    """
    with measured() as usage:
        answer = forecast(request, log)
    return ForecastAnswer(answer.forecast, {**answer.diagnostics, **asdict(usage)})
