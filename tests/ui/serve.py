"""`serverless ui` in a process of its own, with its daemon, on a free port of 127.0.0.1."""

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import psutil
import requests
from requests.adapters import HTTPAdapter
from urllib3.util.retry import Retry

from tests.conftest import SAMPLE_END
from tests.ui.client import Ui

STOP_SECONDS = 20


@contextmanager
def serve(home: Path, variables: Mapping[str, str]) -> Iterator[Ui]:
    """Serve the UI for this home until the end of the context; nothing that it started is left then."""
    port = _free_port()
    outside = {
        name: value for name, value in os.environ.items() if not name.startswith(("SERVERLESS_", "DBT_"))
    }
    own = {"SERVERLESS_HOME": str(home), "SERVERLESS_SAMPLE_END": SAMPLE_END, **variables}
    process = subprocess.Popen(
        [Path(sys.executable).with_name("serverless"), "ui", "--port", str(port)],
        env={**outside, **own},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
    )  # fmt: skip
    try:
        printed: list[str] = []
        yield Ui(_ready(process, port, printed), home, process.pid, printed)
    finally:
        _stop(process)


def _ready(process: subprocess.Popen[str], port: int, printed: list[str]) -> str:
    """Return the address once the UI answers; `printed` gets each line that it prints, until it ends."""
    assert process.stdout is not None
    for line in process.stdout:
        printed.append(line)
        if "Serving dagster-webserver" in line:
            break
    else:
        raise AssertionError("the UI did not start:\n" + "".join(printed))
    threading.Thread(target=printed.extend, args=[process.stdout], daemon=True).start()
    url = f"http://127.0.0.1:{port}"
    # The line is printed a moment before the socket takes connections.
    with requests.Session() as session:
        session.mount("http://", HTTPAdapter(max_retries=Retry(connect=20, backoff_factor=0.1)))
        session.get(f"{url}/server_info", timeout=60).raise_for_status()
    return url


def _stop(process: subprocess.Popen[str]) -> None:
    """Ctrl-C for Dagster's processes, too; what does not end by that is ended."""
    if process.poll() is not None:
        return
    below = psutil.Process(process.pid).children(recursive=True)
    os.killpg(process.pid, signal.SIGTERM)
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    _, left = psutil.wait_procs(below, timeout=STOP_SECONDS)
    for child in left:
        child.kill()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
