"""Waiting for something to change, in place of asking again and again."""

import asyncio
from collections.abc import Callable


class Watched:
    """Something whose changes can be awaited; the changer calls touch()."""

    def __init__(self) -> None:
        self._changed = asyncio.Event()

    def touch(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def wait_until(self, condition: Callable[[], bool], timeout: float | None = None) -> bool:
        """Whether the condition came true within so many seconds."""
        try:
            async with asyncio.timeout(timeout):
                while not condition():
                    await self._changed.wait()
        except TimeoutError:
            return condition()
        return True
