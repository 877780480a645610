"""The calls: each runs a container, and what that prints is kept with the app."""

import asyncio
import time
import traceback
from collections.abc import AsyncIterator, Callable
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path

from google.protobuf.empty_pb2 import Empty
from grpclib import GRPCError, Status
from modal_proto import api_pb2

from tests.services.modal.container import Container, Outcome, crashed, killed
from tests.services.modal.deployments import Deployments, Files, Function, new_id, not_found
from tests.services.modal.harness import CallReport, CallStatus

calling_task: ContextVar[str] = ContextVar("calling_task", default="")
"""The id of the container whose request is being handled; empty for a client's."""

_Status = api_pb2.GenericResult.GenericStatus
_STATUS = {
    _Status.GENERIC_STATUS_SUCCESS: CallStatus.SUCCESS,
    _Status.GENERIC_STATUS_TERMINATED: CallStatus.CANCELLED,
}
_COUNTED_AS = {
    CallStatus.SUCCESS: "succeeded_inputs",
    CallStatus.TIMEOUT: "timeout_inputs",
    CallStatus.CANCELLED: "cancelled_inputs",
    CallStatus.PENDING: "pending_inputs",
    CallStatus.RUNNING: "pending_inputs",
}


@dataclass(eq=False)
class Call:
    """One call of one input. It goes on whatever becomes of the client, and keeps its result."""

    function: Function
    input: api_pb2.FunctionInput
    invocation_type: int
    id: str = field(default_factory=lambda: new_id("fc"))
    input_id: str = field(default_factory=lambda: new_id("in"))
    created_at: float = field(default_factory=time.time)
    status: CallStatus = CallStatus.PENDING
    outcome: Outcome | None = None
    container: Container | None = None
    containers_started: int = 0
    task: asyncio.Task[None] | None = None

    def report(self) -> CallReport:
        definition = self.function.definition
        resources = definition.resources
        return CallReport(
            call_id=self.id,
            app=self.function.app.name,
            cpu=(resources.milli_cpu / 1000, resources.milli_cpu_max / 1000 or None),
            memory=(resources.memory_mb, resources.memory_mb_max or None),
            timeout=definition.timeout_secs,
            regions=tuple(definition.scheduler_placement.regions),
            status=self.status,
            containers_started=self.containers_started,
            container_pid=self.container.pid if self.container else None,
        )


class Calls:
    """All calls, each run by a task of its own, and the RPCs of clients and containers about them.

    With `reschedule_oom`, a container out of memory is started again without end, as Modal does for deployed
    apps.
    """

    def __init__(
        self, deployments: Deployments, files: Files, directory: Path, url: str, reschedule_oom: bool
    ) -> None:
        self._deployments = deployments
        self._files = files
        self._directory = directory
        self._url = url
        self._reschedule_oom = reschedule_oom
        self.by_id: dict[str, Call] = {}
        self._by_task: dict[str, Call] = {}
        self._logs: dict[str, list[api_pb2.TaskLogsBatch]] = {}
        self._changed = asyncio.Event()

    async def wait_until(self, condition: Callable[[], bool], timeout: float) -> bool:
        """Whether the condition came true within so many seconds."""
        try:
            async with asyncio.timeout(timeout):
                while not condition():
                    await self._changed.wait()
        except TimeoutError:
            return condition()
        return True

    def is_container(self, task_id: str) -> bool:
        return task_id in self._by_task

    def call(self, call_id: str) -> Call:
        if call_id not in self.by_id:
            raise not_found(f"Function call '{call_id}' not found")
        return self.by_id[call_id]

    async def close(self) -> None:
        """Kill all containers; calls without an outcome stay without."""
        tasks = [call.task for call in self.by_id.values() if call.task]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _touch(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    def _becomes(self, call: Call, status: CallStatus, outcome: Outcome | None = None) -> None:
        call.status, call.outcome = status, outcome
        self._touch()

    async def _run(self, call: Call) -> None:
        try:
            while True:
                async with self._container(call) as container:
                    call.container = container
                    call.containers_started += 1
                    self._touch()
                    outcome = await container.outcome()
                if outcome[0] is not CallStatus.OOM or not self._reschedule_oom:
                    break
                self._becomes(call, CallStatus.PENDING)
            self._becomes(call, outcome[0], outcome)
        except asyncio.CancelledError:
            message = "Function call was cancelled by user"
            outcome = killed(CallStatus.CANCELLED, _Status.GENERIC_STATUS_TERMINATED, message)
            self._becomes(call, CallStatus.CANCELLED, outcome)
        except Exception as error:
            # A gap of this server: the caller must not wait for it.
            traceback.print_exc()
            self._becomes(call, CallStatus.CRASHED, crashed(f"The test server failed: {error!r}"))

    def _container(self, call: Call) -> Container:
        function, definition = call.function, call.function.definition
        arguments = api_pb2.ContainerArguments(
            task_id=new_id("ta"),
            function_id=function.id,
            app_id=function.app.id,
            function_def=definition,
            environment_name=function.app.environment,
            app_layout=function.app.layout(),
        )
        task_id = arguments.task_id
        self._by_task[task_id] = call

        def log(line: str, source: int) -> None:
            batches = self._logs.setdefault(function.app.id, [])
            now = time.time_ns()
            item = api_pb2.TaskLogs(
                data=line,
                file_descriptor=source,
                timestamp=now / 1e9,
                timestamp_ns=now,
                function_call_id=call.id,
                input_id=call.input_id,
                container_id=task_id,
            )
            # Their numbers start at one, so that an empty entry id means from the start.
            entry = f"{len(batches) + 1}-0"
            batches.append(api_pb2.TaskLogsBatch(entry_id=entry, task_id=task_id, items=[item]))
            self._touch()

        return Container(
            arguments, self._directory / task_id, self._files.tree(definition.mount_ids), self._url, log
        )

    # What a client asks

    async def FunctionMap(self, request: api_pb2.FunctionMapRequest) -> api_pb2.FunctionMapResponse:
        """spawn() and remote(): the input comes with the request."""
        (item,) = request.pipelined_inputs
        function = self._deployments.function(request.function_id)
        call = Call(function, item.input, request.function_call_invocation_type)
        self.by_id[call.id] = call
        call.task = asyncio.create_task(self._run(call))
        response = api_pb2.FunctionPutInputsResponseItem(
            idx=item.idx, input_id=call.input_id, input_jwt=call.input_id
        )
        return api_pb2.FunctionMapResponse(
            function_call_id=call.id, function_call_jwt=call.id, pipelined_inputs=[response]
        )

    async def FunctionGetOutputs(
        self, request: api_pb2.FunctionGetOutputsRequest
    ) -> api_pb2.FunctionGetOutputsResponse:
        """Wait as long as asked. Results are kept, whether or not the client asks to clear them."""
        call = self.call(request.function_call_id)
        await self.wait_until(lambda: call.outcome is not None, max(request.timeout, 0))
        if call.outcome is None:
            return api_pb2.FunctionGetOutputsResponse(num_unfinished_inputs=1)
        _, result, data_format = call.outcome
        output = api_pb2.FunctionGetOutputsItem(
            input_id=call.input_id,
            task_id=call.container.task_id if call.container else "",
            result=result,
            data_format=data_format,
        )
        return api_pb2.FunctionGetOutputsResponse(outputs=[output])

    async def FunctionCallFromId(
        self, request: api_pb2.FunctionCallFromIdRequest
    ) -> api_pb2.FunctionCallFromIdResponse:
        call = self.call(request.function_call_id)
        return api_pb2.FunctionCallFromIdResponse(
            function_call_id=call.id,
            num_inputs=1,
            metadata=api_pb2.FunctionCallHandleMetadata(
                app_id=call.function.app.id, function_id=call.function.id
            ),
        )

    async def FunctionCallGetInfo(
        self, request: api_pb2.FunctionCallGetInfoRequest
    ) -> api_pb2.FunctionCallGetInfoResponse:
        """The client ends a log stream when as many inputs are finished as there are."""
        call = self.call(request.function_call_id)
        info = api_pb2.FunctionCallInfo(
            function_call_id=call.id, created_at=call.created_at, scheduled_at=call.created_at, total_inputs=1
        )
        getattr(info, _COUNTED_AS.get(call.status, "failed_inputs")).total = 1
        return api_pb2.FunctionCallGetInfoResponse(info=info)

    async def FunctionCallCancel(self, request: api_pb2.FunctionCallCancelRequest) -> Empty:
        call = self.call(request.function_call_id)
        if call.task and call.outcome is None:
            call.task.cancel()
        return Empty()

    async def AppGetLogs(self, request: api_pb2.AppGetLogsRequest) -> AsyncIterator[api_pb2.TaskLogsBatch]:
        """Entries as they come, until the time asked for is over. The client then decides whether to go on
        from the last entry it has."""
        batches = self._logs.setdefault(request.app_id, [])
        number = int((request.last_entry_id or "0").partition("-")[0])
        deadline = time.monotonic() + request.timeout
        while True:
            for batch in batches[number:]:
                number += 1
                if request.function_call_id in ("", batch.items[0].function_call_id):
                    yield batch
            left = deadline - time.monotonic()
            if left <= 0 or not await self.wait_until(lambda known=number: len(batches) > known, left):
                return

    # What a container asks and answers

    def _mine(self) -> tuple[Call, Container]:
        """The call and the container that the request comes from."""
        call = self._by_task.get(calling_task.get())
        if call is None or call.container is None or call.container.task_id != calling_task.get():
            raise GRPCError(Status.FAILED_PRECONDITION, "Not from a running container")
        return call, call.container

    async def ContainerHello(self, request: Empty) -> Empty:
        return Empty()

    async def ContainerHeartbeat(
        self, request: api_pb2.ContainerHeartbeatRequest
    ) -> api_pb2.ContainerHeartbeatResponse:
        return api_pb2.ContainerHeartbeatResponse()

    async def FunctionGetInputs(
        self, request: api_pb2.FunctionGetInputsRequest
    ) -> api_pb2.FunctionGetInputsResponse:
        """The one input, marked as the last, so that the container exits after it."""
        call, container = self._mine()
        input = api_pb2.FunctionInput()
        input.CopyFrom(call.input)
        input.final_input = True
        container.input_taken.set()
        self._becomes(call, CallStatus.RUNNING)
        item = api_pb2.FunctionGetInputsItem(
            input_id=call.input_id,
            input=input,
            function_call_id=call.id,
            function_call_invocation_type=call.invocation_type,
        )
        return api_pb2.FunctionGetInputsResponse(inputs=[item])

    async def FunctionPutOutputs(self, request: api_pb2.FunctionPutOutputsRequest) -> Empty:
        _, container = self._mine()
        for item in request.outputs:
            status = _STATUS.get(item.result.status, CallStatus.FAILURE)
            container.answer((status, item.result, item.data_format))
        return Empty()
