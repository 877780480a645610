"""How a call ends: for the client a GenericResult, for a test a word."""

from dataclasses import dataclass
from typing import Self

from modal_proto import api_pb2

from tests.services.modal.report import CallStatus

_Status = api_pb2.GenericResult.GenericStatus


@dataclass(frozen=True)
class Outcome:
    """How an attempt at a call ended, for a test and for the client."""

    status: CallStatus
    result: api_pb2.GenericResult
    data_format: "api_pb2.DataFormat.ValueType" = api_pb2.DATA_FORMAT_UNSPECIFIED

    @classmethod
    def _killed(cls, status: CallStatus, generic: "_Status.ValueType", message: str) -> Self:
        return cls(status, api_pb2.GenericResult(status=generic, exception=message))

    @classmethod
    def crashed(cls, message: str) -> Self:
        return cls._killed(CallStatus.CRASHED, _Status.GENERIC_STATUS_INTERNAL_FAILURE, message)

    @classmethod
    def timed_out(cls, message: str) -> Self:
        return cls._killed(CallStatus.TIMEOUT, _Status.GENERIC_STATUS_TIMEOUT, message)

    @classmethod
    def out_of_memory(cls, limit: int) -> Self:
        message = f"Container was terminated: out of memory (limit {limit} MiB)"
        return cls._killed(CallStatus.OOM, _Status.GENERIC_STATUS_KERNEL_OOM_KILL, message)

    @classmethod
    def cancelled(cls) -> Self:
        return cls._killed(
            CallStatus.CANCELLED, _Status.GENERIC_STATUS_TERMINATED, "Function call was cancelled by user"
        )
