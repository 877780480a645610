"""What a container prints, on its way to the logs."""

import asyncio
import os
from collections.abc import Callable


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
