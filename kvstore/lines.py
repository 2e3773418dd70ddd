"""Lines: those who wait for the same thing, first come, first served."""

from __future__ import annotations

import asyncio
import threading
from collections import OrderedDict
from itertools import count
from typing import Any

__all__ = ["Line", "ThreadLine"]


class Line:
    """A line of tasks of one loop; one at a time is at its head.

    Whoever joins has a place, and may look for himself before he waits: he is not overtaken by
    those who came later, however long it takes him to learn that there was nothing.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._next = count()
        self._places: OrderedDict[int, Any] = OrderedDict()  # of those who wait, with their turns
        self._waiting = 0

    @property
    def is_waiting(self) -> bool:
        """Whether anybody waits, at the head or behind."""
        return self._waiting > 0

    def join(self) -> int:
        """Take the last place, and return it; `leave` gives it back."""
        with self._lock:
            place = next(self._next)
            self._places[place] = None
        return place

    async def wait(self, place: int, timeout: float | None) -> bool:  # noqa: ASYNC109
        """Come to the head; whether that was so within so many seconds."""
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if self._is_first(place, turn):
            return True
        try:
            async with asyncio.timeout(timeout):
                await turn
        except TimeoutError:
            return False
        return True

    def leave(self, place: int) -> None:
        """Give a place back; behind the head, the next one comes there."""
        with self._lock:
            was_first = next(iter(self._places)) == place
            if self._places.pop(place) is not None:
                self._waiting -= 1
            turn = next(iter(self._places.values()), None) if was_first else None
        if turn is not None:
            self._call(turn)

    def _is_first(self, place: int, turn: Any) -> bool:
        with self._lock:
            self._places[place] = turn
            self._waiting += 1
            first: int = next(iter(self._places))
        return first == place

    def _call(self, turn: Any) -> None:
        if not turn.done():
            turn.set_result(None)


class ThreadLine(Line):
    """A line of threads, which stand still meanwhile."""

    async def wait(self, place: int, timeout: float | None) -> bool:  # noqa: ASYNC109
        """Come to the head; whether that was so within so many seconds."""
        turn = threading.Event()
        return self._is_first(place, turn) or turn.wait(timeout)

    def _call(self, turn: Any) -> None:
        turn.set()
