"""Back-pressure: who writes faster than the disk waits, and does not fill the memory."""

from __future__ import annotations

import asyncio

__all__ = ["Backlog"]

MOST_UNITS = 20_000  # of work; beyond these ...
MOST_BYTES = 64 * 2**20  # ... or these, callers wait before they queue


class Backlog:
    """How much is accepted and not yet done, and those who wait for it to shrink.

    Attributes:
        units: of work, such as a put.
        size: what they hold in memory, in bytes, roughly.
    """

    __slots__ = ("_waiting", "size", "units")

    def __init__(self) -> None:
        self.units = 0
        self.size = 0
        self._waiting: list[asyncio.Future[None]] = []

    @property
    def is_full(self) -> bool:
        """Whether a caller should wait before it adds to it."""
        return self.units >= MOST_UNITS or self.size >= MOST_BYTES

    def add(self, size: int) -> None:
        """Accept a unit."""
        self.units += 1
        self.size += size

    def subtract(self, units: int, size: int) -> None:
        """Take note of units that are done, and let those go on who wait."""
        self.units -= units
        self.size -= size
        waiting, self._waiting = self._waiting, []
        for future in waiting:
            if not future.done():  # its caller was not cancelled
                future.set_result(None)

    async def room(self) -> None:
        """Wait until it is not full."""
        while self.is_full:
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append(future)
            await future
