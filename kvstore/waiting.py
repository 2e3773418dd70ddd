"""Those who wait: for room to write, for their turn, for news, or for what a thread does.

Who writes faster than the disk waits, and does not fill the memory. Those who wait for the same
thing are served first come, first served. Those who watch are woken by a bell.
"""

from __future__ import annotations

import asyncio
import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from contextvars import copy_context
from functools import partial
from itertools import count
from typing import Any, ParamSpec, TypeVar
from weakref import WeakSet, WeakValueDictionary

__all__ = ["POLL_S", "Backlog", "Bell", "Line", "ThreadBell", "ThreadLine", "on_own_thread"]

P = ParamSpec("P")
T = TypeVar("T")

MOST_UNITS = 20_000  # of work; beyond these ...
MOST_BYTES = 64 * 2**20  # ... or these, callers wait before they queue
POLL_S = 0.05  # how often a watch looks for what other processes wrote


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


class Bell:
    """Wakes the watches of one store in its own process.

    Attributes:
        watches: those that are there.
        patience_s: how long they wait for it before they look by themselves.
    """

    def __init__(self) -> None:
        self.patience_s = POLL_S
        self._listeners: set[asyncio.Future[None]] = set()
        self.watches: WeakSet[Any] = WeakSet()
        self._lines: WeakValueDictionary[str, Line] = WeakValueDictionary()

    def line(self, name: str) -> Line:
        """Return the line of those who wait for the same thing."""
        line = self._lines.get(name)
        if line is None:
            line = self._lines.setdefault(name, self._new_line())
        return line

    _new_line: Callable[[], Line] = Line

    def listen(self) -> Any:
        """Return what to `wait` for: the next `ring`."""
        listener: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._listeners.add(listener)
        return listener

    def forget(self, listener: Any) -> None:
        """Take a listener back."""
        self._listeners.discard(listener)

    async def wait(self, listener: Any, most: float | None = None) -> None:
        """Wait for a listener to be rung, but not longer than `patience_s`, or `most` seconds."""
        with suppress(TimeoutError):
            async with asyncio.timeout(self._patience(most)):
                await listener

    def _patience(self, most: float | None) -> float:
        return self.patience_s if most is None else min(self.patience_s, most)

    def ring(self) -> None:
        """Wake all who listen."""
        listeners, self._listeners = self._listeners, set()
        for listener in listeners:
            if not listener.done():
                listener.set_result(None)


class ThreadBell(Bell):
    """Wakes the watches of a store that any thread may use, and that needs no loop."""

    def __init__(self) -> None:
        super().__init__()
        self._times = 0  # that it was rung
        self._is_rung = threading.Condition()

    def listen(self) -> int:
        """Return how often it was rung so far."""
        return self._times

    def forget(self, listener: int) -> None:
        """Nothing to forget."""

    async def wait(self, listener: int, most: float | None = None) -> None:
        """Wait, on this thread, until it is rung once more, but not longer than `patience_s`."""
        with self._is_rung:
            self._is_rung.wait_for(lambda: self._times != listener, self._patience(most))

    _new_line = ThreadLine

    def ring(self) -> None:
        """Wake all who listen."""
        with self._is_rung:
            self._times += 1
            self._is_rung.notify_all()


async def on_own_thread(fn: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """As `asyncio.to_thread`, which waits for as long as others keep all threads of the loop.

    For what is done under a lock that others want, perhaps those others.
    """
    thread = ThreadPoolExecutor(1, "kvstore-aside")
    try:
        work = partial(copy_context().run, fn, *args, **kwargs)
        return await asyncio.get_running_loop().run_in_executor(thread, work)
    finally:
        thread.shutdown(wait=False)
