"""A request in, an answer out, with what it cost: for a worker process, a Modal function and the CLI."""

from dataclasses import asdict

from modal_forecast.batch import forecast_batch, processes_for
from modal_forecast.batch_messages import BatchAnswer, ForecastBatch, is_batch
from modal_forecast.messages import ForecastAnswer, ForecastRefused, ForecastRequest
from modal_forecast.model import Log, forecast
from modal_forecast.resources import measured
from modal_forecast.wire import MessageError


def handle(raw_request: bytes, log: Log) -> bytes:
    """Answer the bytes of a ForecastRequest with those of a ForecastAnswer, or of a ForecastRefused in words.

    Those of a ForecastBatch are answered with those of a BatchAnswer, and with a ForecastRefused only if the
    batch itself cannot be read. An exception that leaves this function is a bug, not an unfit input.
    """
    try:
        if is_batch(raw_request):
            return measured_batch(ForecastBatch.from_bytes(raw_request), log).to_bytes()
        return measured_forecast(ForecastRequest.from_bytes(raw_request), log).to_bytes()
    except (ForecastRefused, MessageError) as refusal:
        log(f"refused: {refusal}")
        return ForecastRefused(str(refusal)).to_bytes()


def measured_forecast(request: ForecastRequest, log: Log) -> ForecastAnswer:
    """The model's answer, with the fields of resources.Usage added to its diagnostics.

    Raises ForecastRefused.
    """
    with measured() as usage:
        answer = forecast(request, log)
    return ForecastAnswer(answer.forecast, {**answer.diagnostics, **asdict(usage)})


def measured_batch(batch: ForecastBatch, log: Log) -> BatchAnswer:
    """The answers, with the fields of resources.Usage and the number of `processes` as its diagnostics."""
    processes = processes_for(batch)
    with measured() as usage:
        answer = forecast_batch(batch, log, processes)
    return BatchAnswer(answer.answers, {**answer.diagnostics, **asdict(usage), "processes": processes})
