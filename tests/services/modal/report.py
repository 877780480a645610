"""What a test can ask the server about a call. Plain data: it goes from the server to the test as JSON."""

from dataclasses import dataclass
from enum import StrEnum


class CallStatus(StrEnum):
    PENDING = "pending"
    """No container has taken the input yet, or the next one is being started."""
    RUNNING = "running"
    """A container has the input: the function runs."""
    SUCCESS = "success"
    FAILURE = "failure"
    """The function raised, or could not be imported."""
    TIMEOUT = "timeout"
    CANCELLED = "cancelled"
    OOM = "oom"
    CRASHED = "crashed"
    """The container ended without an answer."""

    @property
    def finished(self) -> bool:
        return self not in (CallStatus.PENDING, CallStatus.RUNNING)


@dataclass(frozen=True)
class CallReport:
    """One function call.

    Shapes: `cpu` in cores and `memory` in MiB, each (request, limit) with None for no limit; `timeout` in
    seconds. `input_bytes` and `output_bytes` are those of the pickles.
    """

    call_id: str
    app: str
    environment: str
    function: str
    cpu: tuple[float, float | None]
    memory: tuple[int, int | None]
    timeout: int
    regions: tuple[str, ...]
    status: CallStatus
    containers_started: int
    container_pid: int | None
    peak_memory_mib: float
    input_bytes: int
    input_is_blob: bool
    output_bytes: int
    output_is_blob: bool
    exception: str

    @classmethod
    def from_json(cls, values: dict) -> "CallReport":
        return cls(
            **{
                **values,
                "cpu": tuple(values["cpu"]),
                "memory": tuple(values["memory"]),
                "regions": tuple(values["regions"]),
                "status": CallStatus(values["status"]),
            }
        )
