"""One container: Modal's own entrypoint in a process whose memory, time and cores are limited."""

import asyncio
import ctypes
import math
import os
import re
import signal
import sys
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import psutil
from modal_proto import api_pb2

from tests.services.modal.outcomes import Outcome
from tests.services.modal.pipes import LinePump

MEMORY_INTERVAL = 0.01  # seconds
CHILDREN_EVERY = 25  # intervals
EXIT_GRACE = 5.0  # seconds
MIB = 1 << 20

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None)

# The project is installed in this interpreter in editable mode: a finder that would let a container import
# from the working tree what its deploy did not bring. It sits on sys.meta_path before this module runs.
_SITECUSTOMIZE = """import sys

sys.meta_path[:] = [f for f in sys.meta_path if not getattr(f, "__module__", "").startswith("__editable__")]
"""


@dataclass(frozen=True)
class Limits:
    """Seconds for start and run, MiB of memory and cores; None where there is no limit."""

    startup: float
    timeout: float
    memory: int | None
    cores: float | None


class Container:
    """A cold start for one input. Use it as a context: at its end no process of it is left."""

    def __init__(
        self,
        arguments: api_pb2.ContainerArguments,
        limits: Limits,
        directory: Path,
        source_tree: Path,
        variables: dict[str, str],
        on_line: Callable[[str, "api_pb2.FileDescriptor.ValueType"], None],
    ) -> None:
        self.task_id = arguments.task_id
        self.pid: int | None = None
        self.peak_memory_mib = 0.0
        self.input_taken = asyncio.Event()
        self.cancel_requested = asyncio.Event()
        self._arguments = arguments
        self._limits = limits
        self._directory = directory
        self._source_tree = source_tree
        self._variables = variables
        self._on_line = on_line
        self._settled: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self._answered = False
        self._pumps: list[LinePump] = []
        self._watchers: list[asyncio.Task[None]] = []
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
        if self._over_memory():
            return
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
        self._pumps = [
            LinePump(lambda line: self._on_line(line, api_pb2.FILE_DESCRIPTOR_STDOUT)),
            LinePump(lambda line: self._on_line(line, api_pb2.FILE_DESCRIPTOR_STDERR)),
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
                    "PYTHONPATH": f"{self._source_tree / 'root'}:{overlay}",
                    "MODAL_CONTAINER_ARGUMENTS_PATH": str(arguments),
                    **self._variables,
                },
                stdin=asyncio.subprocess.DEVNULL,
                stdout=self._pumps[0].write_end,
                stderr=self._pumps[1].write_end,
                start_new_session=True,
                preexec_fn=self._limit_process,
            )
        finally:
            for pump in self._pumps:
                os.close(pump.write_end)
        self.pid = self._process.pid
        self._watch(self._watch_exit())
        self._watch(self._watch_memory())
        self._watch(self._watch_clock())
        return self

    async def __aexit__(self, *_: object) -> None:
        for watcher in self._watchers:
            watcher.cancel()
        try:
            if self._answered:
                async with asyncio.timeout(EXIT_GRACE):
                    await self._process.wait()
        except TimeoutError:
            pass
        finally:
            self.kill()
            await asyncio.shield(self._process.wait())
            for pump in self._pumps:
                pump.close()

    def kill(self) -> None:
        """SIGKILL to all processes; also to those that have left the group."""
        for process in self._tree():
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except ProcessLookupError:
            return

    def _limit_process(self) -> None:
        """In the new process, before it becomes the container: it dies with the server, on its cores."""
        if sys.platform == "linux":
            _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            if self._limits.cores is not None:
                allowed = sorted(os.sched_getaffinity(0))
                os.sched_setaffinity(0, allowed[: math.ceil(self._limits.cores)])

    def _watch(self, watcher: Coroutine[None, None, None]) -> None:
        self._watchers.append(asyncio.create_task(watcher))

    async def _watch_exit(self) -> None:
        code = await self._process.wait()
        how = f"was killed by signal {-code}" if code < 0 else f"exited with code {code}"
        self._settle(Outcome.crashed(f"Container {self.task_id} {how} before the call was answered"))

    async def _watch_clock(self) -> None:
        """The time to start is apart from the time to run, which begins when the input is taken."""
        try:
            async with asyncio.timeout(self._limits.startup):
                await self.input_taken.wait()
            await asyncio.sleep(self._limits.timeout)
            message = f"Task's current input hit its timeout of {self._limits.timeout:g}s"
        except TimeoutError:
            message = f"Task {self.task_id} did not start within {self._limits.startup:g}s"
        self._settle(Outcome.timed_out(message))

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
        resident = max(_peak(self._process.pid), sum(map(_resident, self._members))) / MIB
        self.peak_memory_mib = max(self.peak_memory_mib, resident)
        limit = self._limits.memory
        if limit is None or self.peak_memory_mib <= limit:
            return False
        self._settle(Outcome.out_of_memory(limit))
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
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    return int(found[1]) << 10 if found else 0
