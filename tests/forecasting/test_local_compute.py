import json
import os
import re
import sys
from collections.abc import Iterator

import psutil
import pytest

from serverless_assets.forecasting.compute import ComputeError, OutOfMemory, Size
from serverless_assets.forecasting.local_compute import LocalCompute, available_cores
from tests.forecasting.calls_in_memory import CallsInMemory

SMALL = Size(cpu=0.25, memory=256)


def compute(code: str, *arguments: object, deadline_seconds: float = 60.0) -> LocalCompute:
    """A compute whose worker is this Python code."""
    return LocalCompute((sys.executable, "-c", code, *map(str, arguments)), deadline_seconds)


@pytest.fixture
def lines() -> list[str]:
    return []


@pytest.fixture(autouse=True)
def no_worker_is_left() -> Iterator[None]:
    before = set(psutil.Process().children())
    yield
    assert set(psutil.Process().children()) <= before


def test_the_worker_gets_the_request_and_its_answer_comes_back(lines):
    code = "import sys; sys.stdout.buffer.write(sys.stdin.buffer.read()[::-1])"
    request = bytes(range(256)) * 4096
    answered = compute(code).run(request, SMALL, lines.append, CallsInMemory())
    assert answered.content == request[::-1]
    assert 0 < answered.peak_memory < SMALL.memory


def test_a_worker_that_talks_more_than_a_pipe_holds_before_it_reads_is_not_stuck(lines):
    code = """
import sys
sys.stderr.write("x" * 99 + "\\n")
for _ in range(5_000):
    sys.stderr.write("y" * 99 + "\\n")
sys.stdout.write("z" * 1_000_000)
sys.stdout.write(str(len(sys.stdin.read())))
"""
    answered = compute(code).run(b"r" * 1_000_000, SMALL, lines.append, CallsInMemory())
    assert answered.content == b"z" * 1_000_000 + b"1000000"
    assert len([line for line in lines if line == "y" * 99]) == 5_000


@pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_worker_that_does_not_read_its_request_may_still_answer(lines):
    answered = compute("print('no need')").run(b"r" * 1_000_000, SMALL, lines.append, CallsInMemory())
    assert answered.content == b"no need\n"


def test_a_line_of_log_arrives_while_the_worker_is_still_at_work(tmp_path):
    # The worker goes on only once somebody heard its first line.
    heard = tmp_path / "heard"
    os.mkfifo(heard)
    code = """
import sys
print("first", file=sys.stderr, flush=True)
open(sys.argv[1]).read()
sys.stderr.buffer.write(b"second \\xff\\n")
"""
    lines: list[str] = []

    def log(line: str) -> None:
        lines.append(line)
        if line == "first":
            heard.write_text("go on")

    compute(code, heard).run(b"", SMALL, log, CallsInMemory())
    assert lines == ["Starting a worker on 1 core (0.25 asked for) with 256 MiB.", "first", "second \ufffd"]


def test_a_worker_that_needs_too_much_memory_is_ended_and_told_the_next_size(lines):
    code = "import signal; held = b'x' * (400 << 20); signal.pause()"
    with pytest.raises(OutOfMemory) as raised:
        compute(code).run(b"", SMALL, lines.append, CallsInMemory())
    found = re.fullmatch(
        r"The forecast was stopped: it reached (\d+) MiB of the 256 MiB asked for\. Choose memory 512\.",
        str(raised.value),
    )
    assert found
    assert int(found[1]) > 256


def test_the_memory_of_the_workers_own_children_counts(lines):
    code = """
import subprocess, sys
subprocess.run([sys.executable, "-c", "import signal; held = b'x' * (400 << 20); signal.pause()"])
"""
    with pytest.raises(OutOfMemory):
        compute(code).run(b"", SMALL, lines.append, CallsInMemory())


def test_at_the_largest_size_no_larger_one_is_named():
    assert str(OutOfMemory(Size(1.0, 32768), 40_000.0)).endswith("There is no larger size.")
    assert "Choose memory 32768." in str(OutOfMemory(Size(1.0, 16384), 20_000.0))


def test_a_crash_is_told_with_its_exit_code_and_last_words(lines):
    code = """
import sys
for n in range(20):
    print("line", n, file=sys.stderr)
print("half an answer", flush=True)
sys.exit("no more milk")
"""
    with pytest.raises(ComputeError) as raised:
        compute(code).run(b"", SMALL, lines.append, CallsInMemory())
    assert str(raised.value) == (
        "The forecast's worker ended with exit code 1 without an answer. "
        "Its last log lines: line 16 / line 17 / line 18 / line 19 / no more milk"
    )


def test_a_silent_crash_is_told_with_its_exit_code(lines):
    with pytest.raises(ComputeError, match=r"exit code 7 without an answer\.$"):
        compute("import os; os._exit(7)").run(b"r" * 1_000_000, SMALL, lines.append, CallsInMemory())


def test_a_worker_that_was_killed_is_told_with_the_signal(lines):
    with pytest.raises(ComputeError, match="killed by signal 9"):
        compute("import os; os.kill(os.getpid(), 9)").run(b"", SMALL, lines.append, CallsInMemory())


def test_a_worker_that_hangs_is_ended_at_the_deadline(lines):
    hangs = compute("import signal; signal.pause()", deadline_seconds=0.5)
    with pytest.raises(ComputeError, match="no answer within 0"):
        hangs.run(b"", SMALL, lines.append, CallsInMemory())


ABANDONS_A_CHILD = """
import subprocess, sys
child = "import signal as s; s.signal(14, print); s.alarm(15); s.pause(); raise SystemExit('left alone')"
subprocess.Popen([sys.executable, "-c", child])
sys.exit(int(sys.argv[1]))
"""


def test_a_child_that_outlives_the_worker_does_not_keep_the_run_waiting(lines):
    # It holds on to the worker's pipes: nobody would see their end.
    answered = compute(ABANDONS_A_CHILD, 0).run(b"", SMALL, lines.append, CallsInMemory())
    assert answered.content == b""
    assert "left alone" not in lines


def test_a_crash_is_told_at_once_even_if_a_child_is_left(lines):
    with pytest.raises(ComputeError, match="exit code 3"):
        compute(ABANDONS_A_CHILD, 3).run(b"", SMALL, lines.append, CallsInMemory())
    assert "left alone" not in lines


def test_the_worker_sees_no_secret_of_the_run(lines, monkeypatch):
    for name in ("MODAL_TOKEN_SECRET", "SERVERLESS_DATASET_URL", "GOOGLE_APPLICATION_CREDENTIALS"):
        monkeypatch.setenv(name, "s3cret")
    code = "import json, os; print(json.dumps(dict(os.environ)))"
    seen = json.loads(compute(code).run(b"", Size(1.5, 512), lines.append, CallsInMemory()).content)
    assert "s3cret" not in seen.values()
    assert seen["PATH"] == os.environ["PATH"]
    allowed = {"PATH", "HOME", "LANG", "LC_ALL", "LC_CTYPE", "TMPDIR", "TZ", "LD_LIBRARY_PATH", "VIRTUAL_ENV"}
    assert {name for name in seen if not name.endswith("_NUM_THREADS")} <= allowed


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="this system does not pin to cores")
@pytest.mark.parametrize("cpu", [0.25, 1.0, 1.5, 32.0])
def test_the_worker_has_the_cores_that_were_asked_for_as_far_as_there_are_any_and_a_thread_a_process(
    lines, cpu
):
    # Pinned from outside once it has started: the worker looks when its request has come.
    code = """
import json, os, sys
sys.stdin.read()
threads = [os.environ[name] for name in ("OPENBLAS_NUM_THREADS", "STAN_NUM_THREADS")]
print(json.dumps([len(os.sched_getaffinity(0)), *threads]))
"""
    cores = min(-int(-cpu // 1), len(os.sched_getaffinity(0)))
    assert len(available_cores(cpu)) == cores
    answered = compute(code).run(b"", Size(cpu, 256), lines.append, CallsInMemory())
    assert json.loads(answered.content) == [cores, "1", "1"]


@pytest.mark.skipif(sys.platform != "linux", reason="shared memory is told apart on Linux alone")
def test_memory_that_forked_processes_share_counts_once(lines):
    code = """
import os, time
held = b"x" * (100 << 20)
forked = [os.fork() for _ in range(2)]
time.sleep(1)
print(end="")
"""
    answered = compute(code).run(b"", SMALL, lines.append, CallsInMemory())
    assert 100 < answered.peak_memory < 150


@pytest.mark.skipif(sys.platform != "linux", reason="a process is cloned by Linux's own call")
def test_memory_of_a_process_that_is_about_to_begin_another_program_counts_once(lines):
    """The state between vfork and exec, which lasts under a millisecond, is held for a second here."""
    code = """
import ctypes, os, signal, time
held, stack = b"x" * (100 << 20), ctypes.create_string_buffer(1 << 16)
libc, clone_vm = ctypes.CDLL(None), 0x100
top = ctypes.c_void_p((ctypes.addressof(stack) + (1 << 16)) & ~15)
child = libc.clone(ctypes.cast(libc.pause, ctypes.c_void_p), top, clone_vm | signal.SIGCHLD, None)
time.sleep(1)
os.kill(child, signal.SIGKILL)
print(end="")
"""
    answered = compute(code).run(b"", SMALL, lines.append, CallsInMemory())
    assert 100 < answered.peak_memory < 150


def test_memory_that_a_process_of_its_own_holds_counts(lines):
    code = """
import subprocess, sys
held = b"x" * (100 << 20)
subprocess.run([sys.executable, "-S", "-c", "import time; held = b'x' * (200 << 20); time.sleep(2)"])
"""
    with pytest.raises(OutOfMemory):
        compute(code).run(b"", SMALL, lines.append, CallsInMemory())
