"""The change feed, as backends keep it: its pieces, its lease, and the bell that tells of news.

Writers record changes only while a lease says that somebody watches; see `kvstore.watching`.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from weakref import WeakSet, WeakValueDictionary

from kvstore.lines import Line, ThreadLine
from kvstore.operations import Trim
from kvstore.positions import Position
from kvstore.types import Change

__all__ = ["GRACE", "MOST_CHANGES", "POLL_S", "Bell", "ChangePage", "lease_after"]

POLL_S = 0.05  # how often a watch looks for what other processes wrote
MOST_CHANGES = 1_000_000  # that are kept, however young: some 100 MB
GRACE = 10_000_000  # microseconds from the end of the lease to that of the recording


@dataclass(frozen=True, slots=True)
class ChangePage:
    """A piece of the feed.

    Attributes:
        changes: those that pass, in order; not too many.
        position: the version up to which this is everything.
        begin: the kept history holds every change after this version.
        lease: when the lease ends, in microseconds; 0 or less: nothing is recorded any more, or
            soon will not be.
        has_expired: whether there are rows whose time is over.
        now: the instant of all this, by the store's clock.
    """

    changes: list[Change]
    position: Position
    begin: Position
    lease: int
    has_expired: bool
    now: int


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


def lease_after(until: int, op: Trim, now: int) -> int:
    """Return the lease as a look at the clock leaves it.

    One that is over is marked first, and ends some time later: watchers that the machine's sleep
    or a set clock has surprised get the time to renew it. One that a clock took which was ahead is
    cut to what it could be now.
    """
    if op.is_watched:
        return max(until, now + op.history // 2)
    if until > 0:
        return -now if until <= now else min(until, now + op.history)
    if -until > now:
        return -now
    return 0 if now >= GRACE - until else until
