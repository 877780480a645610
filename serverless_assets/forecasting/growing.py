"""A forecast that runs out of memory is made again with the next size up, at most twice."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from serverless_assets.forecasting.compute import Answered, Calls, Compute, Log, OutOfMemory, Size

TIMES = 2
# The memory that it took in the end, in MiB, if that is more than was asked for: kept with the forecast.
TOOK = "memory_taken_mib"


def answer(compute: Compute, request: bytes, size: Size, log: Log, calls: Calls) -> tuple[Answered, Size]:
    """The worker's answer, and the size that it took.

    Raises:
        OutOfMemory: the largest of the sizes that were tried is too small as well.
        ComputeError: there is no answer for another reason.
    """
    for _ in range(TIMES):
        try:
            return compute.run(request, size, log, calls), size
        except OutOfMemory as error:
            if size.next_memory is None:
                raise
            size = replace(size, memory=size.next_memory)
            log(f"{error} It is made again with {size.memory} MiB.")
    return compute.run(request, size, log, calls), size


def size_to_begin_with(asked: Size, held: Mapping[str, Any] | None, log: Log) -> Size:
    """The size that was asked for, or more memory if the last forecast took that."""
    taken = int((held or {}).get(TOOK, 0))
    if taken <= asked.memory:
        return asked
    log(f"{asked.memory} MiB were asked for; the last forecast took {taken} MiB, so this one begins there.")
    return replace(asked, memory=taken)


def facts_of(asked: Size, took: Size) -> Mapping[str, int]:
    """What to keep with a forecast, so that the next one begins with what this one took."""
    return {TOOK: took.memory} if took.memory > asked.memory else {}
