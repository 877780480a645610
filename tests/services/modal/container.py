"""One container: Modal's own entrypoint in a process whose memory and time are limited."""

import asyncio
import ctypes
import os
import re
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Self

import psutil
from modal_proto import api_pb2

from serverless_assets.forecasting.local_compute import resident_mib
from tests.services.modal.harness import CallStatus

MEMORY_INTERVAL = 0.01  # seconds
CHILDREN_EVERY = 25  # intervals
EXIT_GRACE = 5.0  # seconds
MIB = 1 << 20

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None)
_Status = api_pb2.GenericResult.GenericStatus
Source = "api_pb2.FileDescriptor.ValueType"

# The project is installed in this interpreter in editable mode: a finder that would let a container import
# from the working tree what its deploy did not bring. It sits on sys.meta_path before this module runs.
_SITECUSTOMIZE = """import sys

sys.meta_path[:] = [f for f in sys.meta_path if not getattr(f, "__module__", "").startswith("__editable__")]
"""

# How a call ended: for a test a word, for the client a result.
Outcome = tuple[CallStatus, api_pb2.GenericResult, int]


def killed(status: CallStatus, generic: int, message: str) -> Outcome:
    return status, api_pb2.GenericResult(status=generic, exception=message), api_pb2.DATA_FORMAT_UNSPECIFIED


def crashed(message: str) -> Outcome:
    return killed(CallStatus.CRASHED, _Status.GENERIC_STATUS_INTERNAL_FAILURE, message)


class Container:
    """A cold start for one input. Use it as a context: at its end no process of it is left."""

    def __init__(
        self,
        arguments: api_pb2.ContainerArguments,
        directory: Path,
        files: Path,
        server_url: str,
        on_line: Callable[[str, Source], None],
    ) -> None:
        self.task_id = arguments.task_id
        self.pid = 0
        self.input_taken = asyncio.Event()
        self._arguments = arguments
        self._directory = directory
        self._files = files
        self._server_url = server_url
        self._on_line = on_line
        self._settled: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self._answered = False
        self._members: list[psutil.Process] = []

    async def outcome(self) -> Outcome:
        """How it ended. Everything that was printed until then is in the logs."""
        outcome = await self._settled
        if not self._answered:
            self.kill()
            await self._process.wait()
        for pump in self._pumps:
            pump.drain()
        return outcome

    def answer(self, outcome: Outcome) -> None:
        """The container itself says how the call ended; it exits by itself then."""
        if not self._over_memory():
            self._answered = True
            self._settle(outcome)

    def _settle(self, outcome: Outcome) -> None:
        if not self._settled.done():
            self._settled.set_result(outcome)

    async def __aenter__(self) -> Self:
        working, overlay = self._directory / "home", self._directory / "site"
        working.mkdir(parents=True)
        overlay.mkdir()
        (overlay / "sitecustomize.py").write_text(_SITECUSTOMIZE)
        arguments = self._directory / "arguments"
        arguments.write_bytes(self._arguments.SerializeToString())
        out, err = api_pb2.FILE_DESCRIPTOR_STDOUT, api_pb2.FILE_DESCRIPTOR_STDERR
        self._pumps = [
            LinePump(lambda line: self._on_line(line, out)),
            LinePump(lambda line: self._on_line(line, err)),
        ]
        try:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                *("-m", "modal._container_entrypoint"),
                cwd=working,
                env={
                    "PATH": "/usr/local/bin:/usr/bin:/bin",
                    "HOME": str(working),
                    "LANG": "C.UTF-8",
                    "PYTHONUNBUFFERED": "1",
                    "PYTHONPATH": f"{self._files}:{overlay}",
                    "MODAL_CONTAINER_ARGUMENTS_PATH": str(arguments),
                    "MODAL_IS_REMOTE": "1",
                    "MODAL_SERVER_URL": self._server_url,
                    "MODAL_TASK_ID": self.task_id,
                    "MODAL_IMAGE_ID": self._arguments.function_def.image_id,
                    "MODAL_ENVIRONMENT": self._arguments.environment_name,
                    # Modal's worker knows a container by its socket. Here it says who it is.
                    "MODAL_OVERRIDE_HEADERS": f"x-modal-task-id:{self.task_id}",
                },
                stdin=asyncio.subprocess.DEVNULL,
                stdout=self._pumps[0].write_end,
                stderr=self._pumps[1].write_end,
                start_new_session=True,
                # It dies with the server.
                preexec_fn=lambda: _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL),
            )
        finally:
            for pump in self._pumps:
                os.close(pump.write_end)
        self.pid = self._process.pid
        watchers = (self._watch_exit(), self._watch_memory(), self._watch_clock())
        self._watchers = [asyncio.create_task(watcher) for watcher in watchers]
        return self

    async def __aexit__(self, *_: object) -> None:
        for watcher in self._watchers:
            watcher.cancel()
        try:
            if self._answered:
                with suppress(TimeoutError):
                    async with asyncio.timeout(EXIT_GRACE):
                        await self._process.wait()
        finally:
            self.kill()
            await asyncio.shield(self._process.wait())
            for pump in self._pumps:
                pump.close()

    def kill(self) -> None:
        """SIGKILL to all processes; also to those that have left the group."""
        for process in self._tree():
            with suppress(psutil.NoSuchProcess):
                process.kill()
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)

    async def _watch_exit(self) -> None:
        code = await self._process.wait()
        how = f"was killed by signal {-code}" if code < 0 else f"exited with code {code}"
        self._settle(crashed(f"Container {self.task_id} {how} before the call was answered"))

    async def _watch_clock(self) -> None:
        """The time to start is apart from the time to run, which begins when the input is taken."""
        definition = self._arguments.function_def
        limit = definition.timeout_secs
        startup = definition.startup_timeout_secs or limit
        try:
            async with asyncio.timeout(startup):
                await self.input_taken.wait()
            await asyncio.sleep(limit)
            message = f"Task's current input hit its timeout of {limit:g}s"
        except TimeoutError:
            message = f"Task {self.task_id} did not start within {startup:g}s"
        self._settle(killed(CallStatus.TIMEOUT, _Status.GENERIC_STATUS_TIMEOUT, message))

    async def _watch_memory(self) -> None:
        """The tree is listed less often than it is measured, as that reads all of /proc."""
        tick = 0
        while True:
            if tick % CHILDREN_EVERY == 0:
                self._members = self._tree()
            if self._over_memory():
                self.kill()
                return
            tick += 1
            await asyncio.sleep(MEMORY_INTERVAL)

    def _over_memory(self) -> bool:
        limit = self._arguments.function_def.resources.memory_mb_max
        resident = max(_peak(self._process.pid), sum(map(_resident, self._members))) / MIB
        if not limit or resident <= limit:
            return False
        # A sum of all counts what children share with their parent again and again.
        if max(_peak(self._process.pid) / MIB, resident_mib(self._process.pid)) <= limit:
            return False
        message = f"Container was terminated: out of memory (limit {limit} MiB)"
        self._settle(killed(CallStatus.OOM, _Status.GENERIC_STATUS_KERNEL_OOM_KILL, message))
        return True

    def _tree(self) -> list[psutil.Process]:
        try:
            root = psutil.Process(self._process.pid)
            return [root, *root.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []


def _resident(process: psutil.Process) -> int:
    try:
        return process.memory_info().rss
    except psutil.Error:
        return 0


def _peak(pid: int) -> int:
    """The most bytes the process ever had resident: what it has between two looks must not be missed.

    0 where there is no /proc.
    """
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    peak = re.search(r"VmHWM:\s+(\d+) kB", status)
    return int(peak[1]) << 10 if peak else 0


class LinePump:
    """One output pipe of a container, read without blocking.

    The server also empties it on demand, so that all that a function printed is in the logs before its result
    is known.
    """

    def __init__(self, on_line: Callable[[str], None]) -> None:
        self._on_line = on_line
        self._rest = b""
        self._read_end, self.write_end = os.pipe()
        os.set_blocking(self._read_end, False)
        asyncio.get_running_loop().add_reader(self._read_end, self.drain)

    def drain(self) -> None:
        # At most 1 MiB at a time: a container that prints without end must not hold up the others.
        for _ in range(16):
            try:
                chunk = os.read(self._read_end, 1 << 16)
            except BlockingIOError:
                return
            if not chunk:
                asyncio.get_running_loop().remove_reader(self._read_end)
                return
            *lines, self._rest = (self._rest + chunk).split(b"\n")
            for line in lines:
                self._on_line(line.decode(errors="replace") + "\n")

    def close(self) -> None:
        self.drain()
        if self._rest:
            self._on_line(self._rest.decode(errors="replace"))
        asyncio.get_running_loop().remove_reader(self._read_end)
        os.close(self._read_end)
