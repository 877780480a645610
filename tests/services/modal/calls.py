"""The calls that run: containers are started for them, started again, and killed."""

import asyncio
import contextlib
import traceback
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from modal_proto import api_pb2

from tests.services.modal.call import Call, cores_of
from tests.services.modal.containers import Container, Limits
from tests.services.modal.logs import Logs
from tests.services.modal.outcomes import Outcome
from tests.services.modal.report import CallStatus
from tests.services.modal.sources import Sources
from tests.services.modal.state import new_id, not_found

CANCEL_GRACE = 10.0  # seconds a function has to end itself after a cancel that spares its container
RETRIED = (CallStatus.FAILURE, CallStatus.TIMEOUT, CallStatus.OOM, CallStatus.CRASHED)


@dataclass(frozen=True)
class Settings:
    server_url: str
    directory: Path
    reschedule_oom: bool
    """Whether a container out of memory is started again without end, as Modal does for deployed apps."""


class Calls:
    """All calls, each run by a task of its own."""

    def __init__(self, settings: Settings, sources: Sources, logs: Logs) -> None:
        self._settings = settings
        self._sources = sources
        self._logs = logs
        self._calls: dict[str, Call] = {}
        self._by_task: dict[str, Call] = {}

    def __iter__(self) -> Iterator[Call]:
        return iter(self._calls.values())

    def get(self, call_id: str) -> Call:
        if call_id not in self._calls:
            raise not_found(f"Function call '{call_id}' not found")
        return self._calls[call_id]

    def of_container(self, task_id: str) -> Call | None:
        return self._by_task.get(task_id)

    def start(self, call: Call) -> None:
        self._calls[call.id] = call
        call.task = asyncio.create_task(self._run(call))

    def cancel(self, call: Call, terminate_container: bool) -> None:
        """Ask the function to stop, or do not ask."""
        if call.outcome is not None or call.task is None:
            return
        call.cancelling = True
        if terminate_container or call.status is CallStatus.PENDING or call.container is None:
            call.task.cancel()
        else:
            call.container.cancel_requested.set()
            asyncio.get_running_loop().call_later(CANCEL_GRACE, self.cancel, call, True)

    async def close(self) -> None:
        """Kill all containers; calls without an outcome stay without."""
        tasks = [call.task for call in self if call.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self, call: Call) -> None:
        try:
            await self._attempts(call)
        except asyncio.CancelledError:
            if call.cancelling and call.outcome is None:
                call.becomes(CallStatus.CANCELLED, Outcome.cancelled())
        except Exception as error:
            # A gap of this server: the caller must not wait for it.
            traceback.print_exc()
            call.becomes(CallStatus.CRASHED, Outcome.crashed(f"The test server failed: {error!r}"))

    async def _attempts(self, call: Call) -> None:
        policy, retries = call.definition.retry_policy, 0
        while True:
            async with self._container(call) as container:
                outcome = await container.outcome()
                oom = outcome.status is CallStatus.OOM and self._settings.reschedule_oom
                retry = outcome.status in RETRIED and retries < policy.retries
                if call.cancelling or not (oom or retry):
                    call.becomes(outcome.status, outcome)
                    return
            call.becomes(CallStatus.PENDING)
            if not oom:
                await asyncio.sleep(_delay(policy, retries))
                retries += 1

    @contextlib.asynccontextmanager
    async def _container(self, call: Call) -> AsyncIterator[Container]:
        definition, function = call.definition, call.variant.function
        arguments = api_pb2.ContainerArguments(
            task_id=new_id("ta"),
            function_id=call.variant.id,
            app_id=function.app.id,
            function_def=definition,
            environment_name=function.app.environment,
            app_layout=function.app.layout(),
        )
        container = Container(
            arguments,
            _limits(definition),
            self._settings.directory / arguments.task_id,
            self._sources.tree(definition.mount_ids),
            {
                "MODAL_IS_REMOTE": "1",
                "MODAL_SERVER_URL": self._settings.server_url,
                "MODAL_TASK_ID": arguments.task_id,
                "MODAL_IMAGE_ID": definition.image_id,
                "MODAL_ENVIRONMENT": function.app.environment,
                # Modal's worker knows a container by its socket. Here it says who it is.
                "MODAL_OVERRIDE_HEADERS": f"x-modal-task-id:{arguments.task_id}",
            },
            self._line_of(call, arguments.task_id),
        )
        self._by_task[arguments.task_id] = call
        call.container = container
        async with container:
            call.containers_started += 1
            call.touch()
            yield container

    def _line_of(self, call: Call, task_id: str) -> Callable[[str, "api_pb2.FileDescriptor.ValueType"], None]:
        logs = self._logs.of(call.variant.function.app.id)

        def add(line: str, source: "api_pb2.FileDescriptor.ValueType") -> None:
            logs.add(
                line,
                source,
                function_id=call.variant.function.id,
                function_call_id=call.id,
                input_id=call.input_id,
                task_id=task_id,
            )

        return add


def _limits(definition: api_pb2.Function) -> Limits:
    return Limits(
        startup=definition.startup_timeout_secs or definition.timeout_secs,
        timeout=definition.timeout_secs,
        memory=definition.resources.memory_mb_max or None,
        cores=cores_of(definition.resources),
    )


def _delay(policy: api_pb2.FunctionRetryPolicy, retries: int) -> float:
    """Seconds before the next attempt."""
    milliseconds = policy.initial_delay_ms * policy.backoff_coefficient**retries
    return min(milliseconds, policy.max_delay_ms or milliseconds) / 1000
