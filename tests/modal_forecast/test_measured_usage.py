import subprocess
import sys
import time

import pytest

from modal_forecast import resources
from modal_forecast.resources import measured

HOLDS_60_MIB = [sys.executable, "-S", "-c", "import time; held = b'x' * (60 << 20); time.sleep(0.2)"]
WORKS_300_MS = """
import time
end = time.process_time() + 0.3
while time.process_time() < end:
    pass
"""

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="macOS tells only the peak since the start")


def test_seconds_are_those_of_the_block():
    with measured() as usage:
        time.sleep(0.1)
    assert 0.1 <= usage.seconds < 1


def test_cpu_seconds_are_those_on_a_core_of_this_process_and_its_children():
    with measured() as asleep:
        time.sleep(0.3)
    assert asleep.cpu_seconds < 0.2
    with measured() as of_child:
        subprocess.run([sys.executable, "-S", "-c", WORKS_300_MS], check=True)
    assert 0.3 <= of_child.cpu_seconds < 2
    with measured() as own:
        exec(WORKS_300_MS)
    # What the child took before belongs to the block before.
    assert 0.3 <= own.cpu_seconds < of_child.cpu_seconds + 0.3


def test_the_peak_of_this_process_covers_what_it_held_and_let_go():
    with measured() as before:
        pass
    held = b"x" * int((before.peak_memory_mib + 50) * 1024**2)
    del held
    with measured() as after:
        pass
    assert after.peak_memory_mib > before.peak_memory_mib + 50


@linux_only
def test_the_peak_of_a_child_is_its_own_and_part_of_the_total():
    ballast = b"x" * (200 << 20)
    with measured() as usage:
        # Before it becomes another program a child is a copy of this process, which must not count.
        subprocess.run(HOLDS_60_MIB, check=True, preexec_fn=lambda: time.sleep(0.1))
    del ballast
    assert 60 < usage.peak_memory_children_mib < 100
    assert usage.peak_memory_mib > usage.peak_memory_children_mib + 200


@linux_only
def test_a_child_that_was_there_before_the_block_is_not_counted():
    with subprocess.Popen(HOLDS_60_MIB) as earlier, measured() as usage:
        earlier.wait()
    assert usage.peak_memory_children_mib == 0


@linux_only
def test_a_block_without_children_reports_none():
    with measured() as usage:
        pass
    assert usage.peak_memory_children_mib == 0


def test_without_proc_the_peaks_come_from_getrusage(monkeypatch, tmp_path):
    monkeypatch.setattr(resources, "SELF", tmp_path)
    with measured() as usage:
        subprocess.run(HOLDS_60_MIB, check=True)
    assert usage.peak_memory_children_mib > 60
    assert usage.peak_memory_mib > usage.peak_memory_children_mib


def test_an_error_in_the_block_gets_through():
    with pytest.raises(ZeroDivisionError), measured():
        _ = 1 / 0
