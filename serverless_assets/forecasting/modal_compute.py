"""The forecast's worker on Modal: a deployed function, called with the size that a run asks for."""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from threading import Thread
from typing import Any

import modal
from modal.exception import NotFoundError

from modal_forecast.app import FUNCTION_NAME, app
from modal_forecast.code_version import code_version
from serverless_assets.forecasting.compute import Answered, Call, Calls, ComputeError, Log, Size, Usage
from serverless_assets.forecasting.modal_errors import (
    Unreachable,
    WorkerDiffers,
    deadline_passed,
    refuse_if_nobody_listens,
    translate_call_errors,
    translate_errors,
)
from serverless_assets.hashing import digest
from serverless_assets.stopping import start_thread, within

SECONDS_BETWEEN_LOOKS = 1.0
SECONDS_TO_CANCEL = 4.0
# Modal's list prices, for an estimate: a workspace may have others. A region of one's choice costs more,
# and a part of one, such as us-east, still more (https://modal.com/docs/guide/region-selection).
USD_PER_CORE_SECOND = 0.0000131
USD_PER_GIB_SECOND = 0.00000222
FACTOR_FOR_REGION, FACTOR_FOR_PART_OF_REGION = 1.5, 1.75
SECONDS_FOR_THE_LAST_LINES = 5.0
SMALLEST = Size(cpu=0.25, memory=256)


@dataclass(frozen=True)
class ModalCompute:
    """A `Compute` on Modal. A call that has no answer after `deadline_seconds` is cancelled.

    `environment` is the Modal environment; None means the token's default. `region` is where workers run;
    None means anywhere.
    """

    app: str
    environment: str | None
    deadline_seconds: float
    region: str | None = None

    @property
    def name(self) -> str:
        return "Modal"

    def run(self, request: bytes, size: Size, log: Log, calls: Calls) -> Answered:
        started = time.monotonic()
        code = code_version()
        key = self.key(request, size)
        call = calls.in_flight(key)
        result = self._resume(call, size, log, calls) if call else None
        if call is None or result is None:
            # A call whose start is interrupted would have no id here, and would work on unasked.
            starting = start_thread(self._start, key, request, size, code)
            with _cancelled_with_the_run(starting.result, calls):
                call = starting.result()
                calls.started(call)
                log(f"Call {call.id} started with {size.cpu:g} cores and {size.memory} MiB: {call.link}")
                result = self._answer(call, size, log)
        if result["answer"] is None:
            calls.ended(call)
            raise WorkerDiffers(self.app, str(result["code"]), code)
        return Answered(
            result["answer"],
            time.monotonic() - started,
            facts={"modal_call": call.id, "modal_dashboard": call.link, "worker_code": code},
            call=call,
        )

    def price(self, size: Size, used: Usage) -> float | None:
        # What was asked for is charged, or what was used if that is more. Modal's cores are physical ones, of
        # two of the system's each: to count one of those as a whole core charges too much rather than too
        # little.
        core_seconds = max(size.cpu * used.seconds, used.cpu_seconds)
        gib = max(float(size.memory), used.peak_memory) / 1024
        factor = 1.0
        if self.region:
            factor = FACTOR_FOR_PART_OF_REGION if "-" in self.region else FACTOR_FOR_REGION
        return factor * (core_seconds * USD_PER_CORE_SECOND + gib * used.seconds * USD_PER_GIB_SECOND)

    def max_usage(self, size: Size) -> Usage:
        return Usage(self.deadline_seconds, self.deadline_seconds * _max_cores(size), size.memory)

    def check(self) -> str:
        # The worker itself is asked, which costs a container of the smallest size for a second or two.
        call = self._start("", b"", SMALLEST, "")
        with translate_call_errors(call.id, SMALLEST, self.deadline_seconds):
            deployed = str(self._poll(modal.FunctionCall.from_id(call.id))["code"])
        if deployed != code_version():
            raise WorkerDiffers(self.app, deployed, code_version())
        return f"the app {self.app} is deployed and answers, with this code ({deployed})"

    def key(self, request: bytes, size: Size) -> str:
        """Return the key of a call for this request with this code."""
        prefix = f"{self.app} {self.environment} {self.region} {size} {code_version()} ".encode()
        return digest(prefix + request)

    def _start(self, key: str, request: bytes, size: Size, code: str) -> Call:
        with translate_errors(self.app, self.environment):
            refuse_if_nobody_listens()
            function = modal.Function.from_name(self.app, FUNCTION_NAME, environment_name=self.environment)
            # A fraction of a core is what the work is sure to get, and a whole one the most that it may use,
            # as in the local compute. Memory is held to what was asked for, and so is the bill.
            sized = function.with_options(
                cpu=(size.cpu, float(_max_cores(size))),
                memory=(size.memory, size.memory),
                timeout=math.ceil(self.deadline_seconds),
                region=self.region,
                retries=0,
            )
            started = sized.spawn(request, code, _max_cores(size))
            return Call(key, started.object_id, started.get_dashboard_url())

    def _resume(self, call: Call, size: Size, log: Log, calls: Calls) -> dict[str, Any] | None:
        """The answer of a call that an earlier run left in flight; None if that failed."""
        try:
            with _cancelled_with_the_run(lambda: call, calls):
                log(
                    f"Taking up call {call.id}, which an earlier run left in flight, instead of paying again."
                )
                return self._answer(call, size, log)
        except Unreachable:
            raise
        except ComputeError as error:
            log(f"{error} A new call takes its place.")
            return None

    def _answer(self, call: Call, size: Size, log: Log) -> dict[str, Any]:
        handle = modal.FunctionCall.from_id(call.id)
        relay = Thread(target=_relay_log, args=(handle, log), name="modal-logs", daemon=True)
        relay.start()
        with translate_call_errors(call.id, size, self.deadline_seconds):
            result = self._poll(handle)
        relay.join(SECONDS_FOR_THE_LAST_LINES)
        return result

    def _poll(self, handle: modal.FunctionCall[Any]) -> dict[str, Any]:
        # Short looks, so that a cancelled run is noticed between two of them.
        deadline = time.monotonic() + self.deadline_seconds
        while (left := deadline - time.monotonic()) > 0:
            with suppress(TimeoutError):
                return dict(handle.get(timeout=min(SECONDS_BETWEEN_LOOKS, left)))
        # The function's own timeout has passed as well, and does not end a container that is started again
        # and again because it runs out of memory.
        raise deadline_passed(self.deadline_seconds)


def deploy(app_name: str, environment: str | None) -> None:
    """Deploy this code's worker as `app_name`.

    Raises:
        ComputeError: it could not be deployed; the worker that was there stays.
    """
    with translate_errors(app_name, environment):
        refuse_if_nobody_listens()
        try:
            # The first time, Modal builds the image, which takes minutes: what it says meanwhile is shown.
            with modal.enable_output():
                app.deploy(name=app_name, environment_name=environment)
        except NotFoundError as error:
            raise ComputeError(
                f"Modal has no environment {environment!r} ({error}). Create it with "
                f"`modal environment create {environment}`, or set MODAL_ENVIRONMENT to one that there is."
            ) from None


def _max_cores(size: Size) -> int:
    """A whole core, where a fraction of one was asked for: that is what the work is sure to get."""
    return max(1, math.ceil(size.cpu))


@contextmanager
def _cancelled_with_the_run(call: Callable[[], Call], calls: Calls) -> Iterator[None]:
    """Cancel the call if the block ends early, such as when the run is cancelled.

    call: returns it once it has started.
    """
    try:
        yield
    except Unreachable:
        # It may well succeed: the next run asks for it.
        raise
    except BaseException:
        # The run ends, whether or not Modal and the warehouse answer. What they do not hear of, the next run
        # takes up.
        within(SECONDS_TO_CANCEL, lambda: _cancel(call(), calls))
        raise


def _cancel(call: Call, calls: Calls) -> None:
    with suppress(modal.exception.Error):
        modal.FunctionCall.from_id(call.id).cancel(terminate_containers=True)
    calls.ended(call)


def _relay_log(handle: modal.FunctionCall[Any], log: Log) -> None:
    """Pass the call's log on, line by line. Losing the log loses nothing else, so that it never fails."""
    with suppress(Exception):
        rest = ""
        for entry in handle.logs.stream():
            *lines, rest = (rest + entry.message).split("\n")
            for line in lines:
                log(line)
        if rest:
            log(rest)
