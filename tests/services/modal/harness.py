"""The server as tests use it: started, spoken to with Modal's own client, looked into, stopped."""

import json
import os
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

ADDRESSES = "addresses.json"
TOKEN = ("ak-loopback", "as-loopback")
STOP_SECONDS = 20
REPOSITORY = Path(__file__).parents[3]


class CallStatus(StrEnum):
    PENDING = "pending"
    """No container has taken the input yet, or the next one is being started."""
    RUNNING = "running"
    SUCCESS = "success"
    FAILURE = "failure"
    """The function raised."""
    TIMEOUT = "timeout"
    CANCELLED = "cancelled"
    OOM = "oom"
    CRASHED = "crashed"
    """The container ended without an answer."""


@dataclass(frozen=True)
class CallReport:
    """One function call.

    Shapes: `cpu` in cores and `memory` in MiB, each (request, limit) with None for no limit; `timeout` in
    seconds.
    """

    call_id: str
    app: str
    cpu: tuple[float, float | None]
    memory: tuple[int, int | None]
    timeout: int
    regions: tuple[str, ...]
    status: CallStatus
    containers_started: int
    container_pid: int | None

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "CallReport":
        shapes = {name: tuple(values[name]) for name in ("cpu", "memory", "regions")}
        return cls(**{**values, **shapes, "status": CallStatus(values["status"])})


@dataclass(frozen=True)
class Server:
    """A running server.

    `variables` are what a client process needs in its environment, the accepted token included.
    """

    url: str
    http_url: str
    pid: int
    state_dir: Path
    variables: Mapping[str, str]

    def calls(self) -> list[CallReport]:
        """All calls, oldest first."""
        return [CallReport.from_json(values) for values in self._get("/calls")]

    def forecast_calls(self) -> list[str]:
        """The ids of the calls of the product's worker, oldest first."""
        return [call.call_id for call in self.calls() if call.app.startswith("serverless-forecast-")]

    def call(self, call_id: str) -> CallReport:
        return self.wait_for(call_id, timeout=0)

    def wait_for(
        self,
        call_id: str,
        *statuses: CallStatus | str,
        containers_started: int = 0,
        timeout: float = 30.0,
    ) -> CallReport:
        """The call once it has one of the statuses and so many containers were started for it.

        Raises:
            TimeoutError: with what it was after so many seconds.
            LookupError: no such call.
        """
        query = urllib.parse.urlencode(
            [
                *(("status", str(status)) for status in statuses),
                ("containers_started", containers_started),
                ("timeout", timeout),
            ]
        )
        try:
            return CallReport.from_json(self._get(f"/calls/{call_id}?{query}"))
        except urllib.error.HTTPError as error:
            text = error.read().decode()
            raise (TimeoutError if error.code == 408 else LookupError)(text) from None

    def wait_finished(self, call_id: str, timeout: float = 30.0) -> CallReport:
        finished = [s for s in CallStatus if s not in (CallStatus.PENDING, CallStatus.RUNNING)]
        return self.wait_for(call_id, *finished, timeout=timeout)

    @property
    def log(self) -> str:
        """What the server wrote to its stderr."""
        return (self.state_dir / "server.log").read_text()

    def _get(self, path: str) -> Any:
        # Not by way of a proxy that the environment may name.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(f"{self.http_url}{path}") as response:
            return json.load(response)


@contextmanager
def modal_server(
    state_dir: Path,
    *,
    environments: Sequence[str] = (),
    reschedule_oom: bool = False,
    port: int = 0,
) -> Iterator[Server]:
    """A server in a process of its own until the end of the context, and no container longer than it.

    Args:
        state_dir: where uploads, blobs and the server's log go; made if missing.
        environments: Modal environments there are, besides `main`.
        reschedule_oom: start a container that is out of memory again without end, as Modal does for a
            deployed app, instead of failing its call.
        port: 0 for a free one.
    """
    state_dir.mkdir(parents=True, exist_ok=True)
    command = [
        *(sys.executable, "-m", "tests.services.modal"),
        *("--port", str(port), "--state-dir", str(state_dir)),
        *(["--reschedule-oom"] if reschedule_oom else []),
        *(word for name in environments for word in ("--environment", name)),
    ]
    with (
        (state_dir / "server.log").open("ab") as log,
        subprocess.Popen(
            command, cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log
        ) as process,
    ):
        try:
            assert process.stdout is not None
            if not process.stdout.readline().startswith(b"listening on "):
                raise RuntimeError(f"The server did not start:\n{(state_dir / 'server.log').read_text()}")
            addresses = json.loads((state_dir / ADDRESSES).read_text())
            variables = {
                "MODAL_SERVER_URL": addresses["url"],
                "MODAL_TOKEN_ID": TOKEN[0],
                "MODAL_TOKEN_SECRET": TOKEN[1],
                "MODAL_DISABLE_API_PROXY": "1",
                # A profile of whoever runs the tests must not choose the environment.
                "MODAL_CONFIG_PATH": os.devnull,
            }
            yield Server(addresses["url"], addresses["http_url"], process.pid, state_dir, variables)
        finally:
            process.terminate()
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
