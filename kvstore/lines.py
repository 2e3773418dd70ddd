"""Lines: those who wait for the same thing, first come, first served."""

from __future__ import annotations

import asyncio
import threading
from collections import deque

__all__ = ["Line", "ThreadLine"]


class Line:
    """A line of tasks of one loop; at most one at a time is at its head."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()  # which is fair

    async def enter(self, timeout: float | None) -> bool:  # noqa: ASYNC109
        """Come to the head; whether that was so within so many seconds."""
        if timeout is None or not self._lock.locked():
            return await self._lock.acquire()
        try:
            async with asyncio.timeout(timeout):
                return await self._lock.acquire()
        except TimeoutError:
            return False

    def leave(self) -> None:
        """Let the next one come to the head."""
        self._lock.release()


class ThreadLine(Line):
    """A line of threads, which stand still meanwhile."""

    def __init__(self) -> None:
        self._lock_of_state = threading.Lock()
        self._is_taken = False
        self._waiting: deque[threading.Event] = deque()

    async def enter(self, timeout: float | None) -> bool:  # noqa: ASYNC109
        """Come to the head; whether that was so within so many seconds."""
        with self._lock_of_state:
            if not self._is_taken:
                self._is_taken = True
                return True
            turn = threading.Event()
            self._waiting.append(turn)
        try:
            if turn.wait(timeout):
                return True
        except BaseException:  # such as KeyboardInterrupt
            if not self._give_up(turn):
                self.leave()
            raise
        return not self._give_up(turn)

    def _give_up(self, turn: threading.Event) -> bool:
        """Step out of the line; whether the turn had not come meanwhile."""
        with self._lock_of_state:
            if turn in self._waiting:
                self._waiting.remove(turn)
                return True
            return False

    def leave(self) -> None:
        """Let the next one come to the head."""
        with self._lock_of_state:
            if self._waiting:
                self._waiting.popleft().set()
            else:
                self._is_taken = False
