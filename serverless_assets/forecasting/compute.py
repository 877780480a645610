"""What the forecast needs of a compute: bytes in, bytes out, with this much cpu and memory."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, get_args

from serverless_assets.run_inputs import Memory

MEMORY_SIZES = tuple(int(size) for size in get_args(Memory))

Log = Callable[[str], None]


@dataclass(frozen=True)
class Size:
    """What a person asked for: `cpu` in cores, `memory` in MiB."""

    cpu: float
    memory: int

    @property
    def next_memory(self) -> int | None:
        """The next size up that the launchpad offers; None at the largest."""
        return next((size for size in MEMORY_SIZES if size > self.memory), None)


class ComputeError(Exception):
    """The compute gave no answer; the message says why and what to do."""


class OutOfMemory(ComputeError):
    """The work needed more memory than was asked for."""

    def __init__(self, size: Size, peak: float) -> None:
        larger = f"Choose memory {size.next_memory}." if size.next_memory else "There is no larger size."
        super().__init__(
            f"The forecast was stopped: it reached {peak:.0f} MiB of the {size.memory} MiB asked for. "
            f"{larger}"
        )


@dataclass(frozen=True)
class Answered:
    """The worker's answer, and what it took: `seconds` of wall-clock time, `peak_memory` in MiB."""

    content: bytes
    seconds: float
    peak_memory: float


class Compute(Protocol):
    """Runs the forecast's worker."""

    @property
    def name(self) -> str:
        """What people call it."""

    def run(self, request: bytes, size: Size, log: Log) -> Answered:
        """Hand the request to a worker of this size and wait for its answer.

        Raises:
            ComputeError: there is no answer.
        """
