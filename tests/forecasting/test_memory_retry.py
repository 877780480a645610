"""A forecast that runs out of memory gets more, up to a limit, and the next one starts with that."""

import sys
from dataclasses import dataclass, field

import pytest

from serverless_assets.forecasting.compute import (
    OutOfMemory,
    Size,
    initial_size,
    memory_facts,
    run_with_memory_retry,
)
from serverless_assets.forecasting.local_compute import LocalCompute
from tests.forecasting.calls_in_memory import CallsInMemory


@dataclass
class Worker:
    """A real process that holds so many MiB, answers, and is ended by the local compute if it may not."""

    mib: int
    lines: list[str] = field(default_factory=list)

    def answer(self, memory: int) -> tuple[bytes, Size]:
        code = (
            f"import sys, time; held = b'x' * ({self.mib} << 20); time.sleep(0.3); sys.stdout.write('done')"
        )
        compute = LocalCompute((sys.executable, "-c", code), deadline_seconds=60)
        answered, size = run_with_memory_retry(
            compute, b"", Size(0.25, memory), self.lines.append, CallsInMemory()
        )
        return answered.content, size

    @property
    def retries(self) -> list[str]:
        return [line for line in self.lines if "again" in line]


def test_what_fits_is_made_once():
    worker = Worker(10)
    assert worker.answer(256) == (b"done", Size(0.25, 256))
    assert worker.retries == []


@pytest.mark.parametrize(("mib", "took"), [(300, 512), (600, 1024)])
def test_out_of_memory_gets_the_next_size_up_and_says_so(mib, took):
    worker = Worker(mib)
    assert worker.answer(256) == (b"done", Size(0.25, took))
    assert worker.retries[-1].endswith(f"The forecast is run again with {took} MiB.")


def test_two_sizes_up_is_the_end():
    worker = Worker(1200)
    with pytest.raises(OutOfMemory, match=r"1024 MiB asked for\. Choose memory 2048\.$"):
        worker.answer(256)
    assert len(worker.retries) == 2


def test_the_next_forecast_begins_with_what_the_last_one_took():
    asked, lines = Size(0.25, 256), []
    state = memory_facts(asked, Size(0.25, 512))
    assert initial_size(asked, [state], lines.append) == Size(0.25, 512)
    assert lines == [
        "256 MiB were asked for; the last forecast needed 512 MiB, so this one starts with that."
    ]


@pytest.mark.parametrize("state", [None, {}, memory_facts(Size(0.25, 256), Size(0.25, 256))])
def test_nothing_is_remembered_of_a_forecast_that_fit(state):
    assert initial_size(Size(0.25, 256), [state], print) == Size(0.25, 256)


def test_who_asks_for_more_gets_that():
    state = memory_facts(Size(0.25, 256), Size(0.25, 512))
    assert initial_size(Size(0.25, 1024), [state], print) == Size(0.25, 1024)
