"""Retry a forecast that runs out of memory with the next larger size, at most twice."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from serverless_assets.forecasting.compute import Answered, Calls, Compute, Log, OutOfMemory, Size

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
