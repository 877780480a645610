"""The RPCs of a call: what a client asks about it, and what its container asks and answers."""

import asyncio
from contextvars import ContextVar

from google.protobuf.empty_pb2 import Empty
from grpclib import GRPCError, Status
from modal_proto import api_pb2

from tests.services.modal.blobs import Blobs
from tests.services.modal.call import Call
from tests.services.modal.calls import Calls
from tests.services.modal.containers import Container
from tests.services.modal.outcomes import Outcome
from tests.services.modal.report import CallStatus
from tests.services.modal.state import Deployments

HEARTBEAT = 14.5  # seconds; a container asks every 15 and waits for 15.1

calling_task: ContextVar[str] = ContextVar("calling_task")
"""The id of the container whose request is being handled."""

_Status = api_pb2.GenericResult.GenericStatus
_STATUS = {
    _Status.GENERIC_STATUS_SUCCESS: CallStatus.SUCCESS,
    _Status.GENERIC_STATUS_TERMINATED: CallStatus.CANCELLED,
}


class CallRPCs:
    def __init__(self, deployments: Deployments, calls: Calls, blobs: Blobs) -> None:
        self._deployments = deployments
        self._calls = calls
        self._blobs = blobs

    def _size(self, data: bytes, blob_id: str) -> int:
        return self._blobs.path(blob_id).stat().st_size if blob_id else len(data)

    async def FunctionMap(self, request: api_pb2.FunctionMapRequest) -> api_pb2.FunctionMapResponse:
        """spawn() and remote(): the input comes with the request."""
        if len(request.pipelined_inputs) != 1:
            raise GRPCError(Status.UNIMPLEMENTED, "FunctionMap of other than one input")
        variant = self._deployments.variant(request.function_id)
        if variant.function.app.stopped:
            raise GRPCError(Status.FAILED_PRECONDITION, f"App '{variant.function.app.name}' is stopped")
        item = request.pipelined_inputs[0]
        size = self._size(item.input.args, item.input.args_blob_id)
        call = Call(variant, item.input, request.function_call_invocation_type, size)
        self._calls.start(call)
        return api_pb2.FunctionMapResponse(
            function_call_id=call.id,
            function_call_jwt=call.id,
            retry_policy=call.definition.retry_policy,
            pipelined_inputs=[
                api_pb2.FunctionPutInputsResponseItem(
                    idx=item.idx, input_id=call.input_id, input_jwt=call.input_id
                )
            ],
        )

    async def FunctionGetOutputs(
        self, request: api_pb2.FunctionGetOutputsRequest
    ) -> api_pb2.FunctionGetOutputsResponse:
        """Wait as long as asked. Results are kept, whether or not the client asks to clear them."""
        call = self._calls.get(request.function_call_id)
        await call.wait_until(lambda: call.outcome is not None, max(request.timeout, 0))
        if call.outcome is None:
            return api_pb2.FunctionGetOutputsResponse(num_unfinished_inputs=1)
        return api_pb2.FunctionGetOutputsResponse(
            outputs=[
                api_pb2.FunctionGetOutputsItem(
                    idx=0,
                    input_id=call.input_id,
                    task_id=call.container.task_id if call.container else "",
                    result=call.outcome.result,
                    data_format=call.outcome.data_format,
                )
            ]
        )

    async def FunctionCallFromId(
        self, request: api_pb2.FunctionCallFromIdRequest
    ) -> api_pb2.FunctionCallFromIdResponse:
        call = self._calls.get(request.function_call_id)
        return api_pb2.FunctionCallFromIdResponse(
            function_call_id=call.id,
            num_inputs=1,
            metadata=api_pb2.FunctionCallHandleMetadata(
                app_id=call.variant.function.app.id, function_id=call.variant.id
            ),
        )

    async def FunctionCallGetInfo(
        self, request: api_pb2.FunctionCallGetInfoRequest
    ) -> api_pb2.FunctionCallGetInfoResponse:
        """The client ends a log stream when as many inputs are finished as there are."""
        call = self._calls.get(request.function_call_id)
        category = {
            CallStatus.SUCCESS: "succeeded_inputs",
            CallStatus.TIMEOUT: "timeout_inputs",
            CallStatus.CANCELLED: "cancelled_inputs",
            CallStatus.PENDING: "pending_inputs",
            CallStatus.RUNNING: "pending_inputs",
        }.get(call.status, "failed_inputs")
        info = api_pb2.FunctionCallInfo(
            function_call_id=call.id, created_at=call.created_at, scheduled_at=call.created_at, total_inputs=1
        )
        getattr(info, category).total = 1
        return api_pb2.FunctionCallGetInfoResponse(info=info)

    async def FunctionCallCancel(self, request: api_pb2.FunctionCallCancelRequest) -> Empty:
        call = self._calls.get(request.function_call_id)
        self._calls.cancel(call, request.terminate_containers)
        return Empty()

    async def AppStop(self, request: api_pb2.AppStopRequest) -> Empty:
        """Modal ends what an app runs when it stops it."""
        app = self._deployments.app(request.app_id)
        self._deployments.stop(app)
        for call in self._calls:
            if call.variant.function.app is app:
                self._calls.cancel(call, terminate_container=True)
        return Empty()

    def _mine(self) -> tuple[Call, Container]:
        """The call and the container that the request comes from."""
        call = self._calls.of_container(calling_task.get(""))
        if call is None or call.container is None or call.container.task_id != calling_task.get():
            raise GRPCError(Status.FAILED_PRECONDITION, "Not from a running container")
        return call, call.container

    async def ContainerHello(self, request: Empty) -> Empty:
        self._mine()
        return Empty()

    async def ContainerHeartbeat(
        self, request: api_pb2.ContainerHeartbeatRequest
    ) -> api_pb2.ContainerHeartbeatResponse:
        """Held until there is a cancellation to tell of."""
        call, container = self._mine()
        try:
            async with asyncio.timeout(HEARTBEAT):
                await container.cancel_requested.wait()
        except TimeoutError:
            return api_pb2.ContainerHeartbeatResponse()
        container.cancel_requested.clear()
        return api_pb2.ContainerHeartbeatResponse(
            cancel_input_event=api_pb2.CancelInputEvent(input_ids=[call.input_id])
        )

    async def FunctionGetInputs(
        self, request: api_pb2.FunctionGetInputsRequest
    ) -> api_pb2.FunctionGetInputsResponse:
        """The one input, marked as the last, so that the container exits after it."""
        call, container = self._mine()
        input = api_pb2.FunctionInput()
        input.CopyFrom(call.input)
        input.final_input = True
        container.input_taken.set()
        call.becomes(CallStatus.RUNNING)
        return api_pb2.FunctionGetInputsResponse(
            inputs=[
                api_pb2.FunctionGetInputsItem(
                    input_id=call.input_id,
                    input=input,
                    function_call_id=call.id,
                    function_call_invocation_type=call.invocation_type,
                    retry_count=call.containers_started - 1,
                )
            ]
        )

    async def FunctionPutOutputs(self, request: api_pb2.FunctionPutOutputsRequest) -> Empty:
        for item in request.outputs:
            self._answer(item.result, item.data_format)
        return Empty()

    async def TaskResult(self, request: api_pb2.TaskResultRequest) -> Empty:
        """The container could not import the function, say. Modal tries a few starts before it gives up."""
        self._answer(request.result, api_pb2.DATA_FORMAT_UNSPECIFIED)
        return Empty()

    def _answer(self, result: api_pb2.GenericResult, data_format: "api_pb2.DataFormat.ValueType") -> None:
        call, container = self._mine()
        call.output_bytes = self._size(result.data, result.data_blob_id)
        container.answer(Outcome(_STATUS.get(result.status, CallStatus.FAILURE), result, data_format))
