"""The interface of a compute: bytes in, bytes out, with this much cpu and memory, or more if it runs out."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, get_args

from serverless_assets.errors import UserError
from serverless_assets.run_inputs import Cpu, Memory, RunForecast

MEMORY_SIZES = tuple(int(size) for size in get_args(Memory))
SMALLEST_CPU = float(get_args(Cpu)[0])

Log = Callable[[str], None]


@dataclass(frozen=True)
class Size:
    """The size of a worker: `cpu` in cores, `memory` in MiB."""

    cpu: float
    memory: int

    @classmethod
    def of(cls, inputs: RunForecast) -> "Size":
        """Return the size that a run chose."""
        return cls(float(inputs.cpu), int(inputs.memory))

    @property
    def next_memory(self) -> int | None:
        """The next larger memory that the launchpad offers; None at the largest."""
        return next((size for size in MEMORY_SIZES if size > self.memory), None)


@dataclass(frozen=True)
class Usage:
    """Wall-clock seconds that a worker took and, if known, seconds on a core and peak memory in MiB."""

    seconds: float
    cpu_seconds: float = 0.0
    peak_memory: float = 0.0


class ComputeError(UserError):
    """The compute gave no answer; the message says why and what to do."""


class WorkerFailed(ComputeError):
    """The worker began and ended without an answer: it crashed, or ran out of memory or time."""


class OutOfMemory(WorkerFailed):
    """The work needed more memory than was asked for; `peak` is in MiB, where the compute knows it."""

    def __init__(self, size: Size, peak: float | None = None) -> None:
        larger = f"Choose memory {size.next_memory}." if size.next_memory else "There is no larger size."
        reached = f"{math.ceil(peak)} MiB of the" if peak else "the"
        super().__init__(
            f"The forecast was stopped: it reached {reached} {size.memory} MiB asked for. {larger}"
        )


@dataclass(frozen=True)
class Call:
    """A call that a remote compute works on for us. `key` says what was asked for, `id` is the compute's."""

    key: str
    id: str
    link: str = ""


@dataclass(frozen=True)
class Answered:
    """The worker's answer.

    seconds: of wall-clock time. peak_memory: in MiB, 0 if it was not watched.
    facts: metadata from this compute, such as a call id and a link.
    call: the remote call whose answer this is; it has ended for good once the answer is stored.
    """

    content: bytes
    seconds: float
    peak_memory: float = 0.0
    facts: Mapping[str, Any] = field(default_factory=dict)
    call: Call | None = None


class Calls:
    """Remote calls that were started and not seen to end. These are not kept: no later run resumes them."""

    def in_flight(self, key: str) -> Call | None:
        """Return the last call for `key` that was started and has not ended."""
        return None

    def started(self, call: Call) -> None:
        """Keep a call where a run that is killed does not take it away."""

    def ended(self, call: Call) -> None:
        """Forget a call: its answer was taken, or there will be none."""


class Compute(Protocol):
    """Runs the forecast's worker."""

    @property
    def name(self) -> str:
        """Its name for people."""

    def run(self, request: bytes, size: Size, log: Log, calls: Calls) -> Answered:
        """Hand the request to a worker of this size and wait for its answer.

        A remote compute takes up the call for the same request that an earlier run left in flight.
        Whatever ends the wait (a cancelled run, too) ends the work.

        Raises:
            ComputeError: there is no answer.
        """

    def price(self, size: Size, used: Usage) -> float | None:
        """Return the price in US dollars of a call of that size; None where nothing is charged."""

    def max_usage(self, size: Size) -> Usage:
        """Return the most that a call of that size can take: it is ended at its deadline."""

    def check(self) -> str:
        """Return a sentence about the compute, without running a forecast.

        Raises:
            ComputeError: it cannot be used.
        """


MAX_RETRIES = 2
# The metadata key of the memory in MiB that a forecast needed in the end, if that is more than was asked for.
MEMORY_NEEDED = "memory_taken_mib"


def run_with_memory_retry(
    compute: Compute, request: bytes, size: Size, log: Log, calls: Calls
) -> tuple[Answered, Size]:
    """Return the worker's answer, and the size that it needed.

    Raises:
        OutOfMemory: the largest of the sizes that were tried is too small as well.
        ComputeError: there is no answer for another reason.
    """
    for _ in range(MAX_RETRIES):
        try:
            return compute.run(request, size, log, calls), size
        except OutOfMemory as error:
            if size.next_memory is None:
                raise
            size = replace(size, memory=size.next_memory)
            log(f"{error} The forecast is run again with {size.memory} MiB.")
    return compute.run(request, size, log, calls), size


def initial_size(requested: Size, last_states: Sequence[Mapping[str, Any] | None], log: Log) -> Size:
    """Return the size that was asked for, with more memory if one of the last forecasts needed that."""
    needed = max(int((state or {}).get(MEMORY_NEEDED, 0)) for state in last_states)
    if needed <= requested.memory:
        return requested
    log(
        f"{requested.memory} MiB were asked for; the last forecast needed {needed} MiB, "
        "so this one starts with that."
    )
    return replace(requested, memory=needed)


def memory_facts(requested: Size, used: Size) -> Mapping[str, int]:
    """Return the metadata to keep with a forecast, so that the next one starts with the memory it needed."""
    return {MEMORY_NEEDED: used.memory} if used.memory > requested.memory else {}
