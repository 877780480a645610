"""What ends a process whose main thread does not."""

import signal
import subprocess
import sys

STUCK = """
import sys, time
from serverless_assets import stopping

stopping.SECONDS_TO_END = 0.1

def record(reason):
    print("recorded:", reason, flush=True)

with stopping.Stopping(float(sys.argv[1]), record):
    text = "at work\\n"
    while True:
        # The first interrupt may come as soon as the text is out.
        try:
            print(text, end="", flush=True)
            time.sleep(3600)
        except KeyboardInterrupt:
            text = ""
"""
ENDS = """
import sys, time
from serverless_assets import stopping

with stopping.Stopping(float(sys.argv[1]), print) as stop:
    try:
        print("at work", flush=True)
        time.sleep(3600)
    except KeyboardInterrupt:
        stop.wait_for_reason()
        print(stop.reason)
        sys.exit(stop.exit_code)
"""


INSIDE_LIBRARIES = """
import logging, os, signal, sys, threading
from serverless_assets import stopping

def interrupt():
    os.kill(os.getpid(), signal.SIGINT)

class Deleted:
    def __del__(self):
        interrupt()

with stopping.Stopping(float(sys.argv[1]), print) as stop:
    print("at work", flush=True)
    logging.getLogger("library").warning("printed")
    Deleted()
    try:
        interrupt()
    except KeyboardInterrupt:
        logging.getLogger("library").error("swallowed", exc_info=True)
    stop.wait_for_reason()
    logging.getLogger("library").error("what came of it")
    of_the_stop = threading.Thread(target=lambda: 1 / 0)
    of_the_stop.start()
    of_the_stop.join()
logging.getLogger("library").error("printed again")
"""


def process(program: str, deadline: float) -> subprocess.Popen[str]:
    started = subprocess.Popen(
        [sys.executable, "-c", program, str(deadline)], stdout=subprocess.PIPE, text=True
    )
    assert started.stdout and started.stdout.readline() == "at work\n"
    return started


def test_a_process_that_does_not_end_by_itself_is_ended_after_a_record_of_it():
    stuck = process(STUCK, 3600)
    stuck.send_signal(signal.SIGTERM)
    output, _ = stuck.communicate()
    assert (output, stuck.returncode) == ("recorded: by SIGTERM\n", 128 + signal.SIGTERM)


def test_a_deadline_interrupts_as_a_person_would():
    ends = process(ENDS, 0.1)
    output, _ = ends.communicate()
    assert (output, ends.returncode) == (
        "because it took longer than SERVERLESS_RUN_DEADLINE, 0 s\n", 1,
    )  # fmt: skip


def test_ctrl_c_interrupts_the_run_and_is_its_exit_code():
    ends = process(ENDS, 3600)
    ends.send_signal(signal.SIGINT)
    output, _ = ends.communicate()
    assert (output, ends.returncode) == ("by Ctrl-C\n", 128 + signal.SIGINT)


def test_a_library_that_was_interrupted_prints_nothing_of_it():
    command = [sys.executable, "-c", INSIDE_LIBRARIES, "3600"]
    ended = subprocess.run(command, capture_output=True, text=True, check=True)
    assert ended.stderr == "printed\nprinted again\n"


# As the process in which Dagster executes a run of the UI. Python waits for the threads of a pool.
OF_DAGSTER = """
import sys, time
from concurrent.futures import ThreadPoolExecutor
from dagster._utils.interrupts import raise_interrupts_as
from serverless_assets import stopping

stopping.SECONDS_TO_END = 0.1

class Interrupted(BaseException):
    pass

with stopping.bounded_stop(print), raise_interrupts_as(Interrupted), ThreadPoolExecutor() as pool:
    waiting = pool.submit(time.sleep, 3600)
    print("at work", flush=True)
    waiting.result()
"""


def test_a_run_that_dagster_executes_ends_while_its_threads_wait_for_a_silent_server():
    stuck = process(OF_DAGSTER, 0)
    stuck.send_signal(signal.SIGINT)
    try:
        stuck.communicate(timeout=60)
    finally:
        stuck.kill()
    assert stuck.returncode == 128 + signal.SIGINT
