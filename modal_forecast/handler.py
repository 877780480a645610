"""A request in, an answer out, with what it cost: for a worker process, a Modal function and the CLI."""

from dataclasses import asdict

from modal_forecast.messages import ForecastAnswer, ForecastRefused, ForecastRequest, MessageError
from modal_forecast.model import Log, forecast
from modal_forecast.resources import measured


def handle(raw_request: bytes, log: Log) -> bytes:
    """Answer the bytes of a ForecastRequest with those of a ForecastAnswer, or of a ForecastRefused in words.

    An exception that leaves this function is a bug, not an unfit input.
    """
    try:
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
