"""A forecast that runs out of memory gets more, within reason, and the next one begins with that."""

import sys
from dataclasses import dataclass, field

import pytest

from serverless_assets.forecasting.compute import OutOfMemory, Size
from serverless_assets.forecasting.growing import answer, facts_of, size_to_begin_with
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
        answered, size = answer(compute, b"", Size(0.25, memory), self.lines.append, CallsInMemory())
        return answered.content, size

    @property
    def told(self) -> list[str]:
        return [line for line in self.lines if "again" in line]


def test_what_fits_is_made_once():
    worker = Worker(10)
    assert worker.answer(256) == (b"done", Size(0.25, 256))
    assert worker.told == []


@pytest.mark.parametrize(("mib", "took"), [(300, 512), (600, 1024)])
def test_out_of_memory_gets_the_next_size_up_and_says_so(mib, took):
    worker = Worker(mib)
    assert worker.answer(256) == (b"done", Size(0.25, took))
    assert worker.told[-1].endswith(f"It is made again with {took} MiB.")


def test_two_sizes_up_is_the_end():
    worker = Worker(1200)
    with pytest.raises(OutOfMemory, match=r"1024 MiB asked for\. Choose memory 2048\.$"):
        worker.answer(256)
    assert len(worker.told) == 2


def test_the_next_forecast_begins_with_what_the_last_one_took():
    asked, lines = Size(0.25, 256), []
    held = facts_of(asked, Size(0.25, 512))
    assert size_to_begin_with(asked, held, lines.append) == Size(0.25, 512)
    assert lines == ["256 MiB were asked for; the last forecast took 512 MiB, so this one begins there."]


@pytest.mark.parametrize("held", [None, {}, facts_of(Size(0.25, 256), Size(0.25, 256))])
def test_nothing_is_remembered_of_a_forecast_that_fit(held):
    assert size_to_begin_with(Size(0.25, 256), held, print) == Size(0.25, 256)


def test_who_asks_for_more_gets_that():
    held = facts_of(Size(0.25, 256), Size(0.25, 512))
    assert size_to_begin_with(Size(0.25, 1024), held, print) == Size(0.25, 1024)
