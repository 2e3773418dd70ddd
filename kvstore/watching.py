"""`Watch`: the change feed as an async iterator; it holds no task, and so leaves none behind.

Writers record changes only while a lease says that somebody watches. A watch takes the lease,
reads what was recorded after its position, and waits: for a write in its own process, which wakes
it, and for those of other processes, for which it looks again after a moment.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Protocol, Self
from weakref import WeakSet

from kvstore.errors import InvalidArgumentError, StoreBusyError, StoreError, WatchExpiredError
from kvstore.operations import Lease, Operation, Sweep, Trim
from kvstore.patterns import Pattern
from kvstore.types import Change

__all__ = [
    "GRACE",
    "MOST_CHANGES",
    "POLL_S",
    "Bell",
    "ChangePage",
    "Watch",
    "Watched",
    "lease_after",
]

POLL_S = 0.05  # how often a watch looks for what other processes wrote
MOST_CHANGES = 1_000_000  # that are kept, however young: some 100 MB
GRACE = 10_000_000  # microseconds from the end of the lease to that of the recording
_SWEEP_SLICE = 500


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
    position: int
    begin: int
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
        self.watches: WeakSet[Watch] = WeakSet()

    def listen(self) -> asyncio.Future[None]:
        """Return a future that the next `ring` completes."""
        listener: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._listeners.add(listener)
        return listener

    def forget(self, listener: asyncio.Future[None]) -> None:
        """Take a listener back."""
        self._listeners.discard(listener)

    def ring(self) -> None:
        """Wake all who listen."""
        listeners, self._listeners = self._listeners, set()
        for listener in listeners:
            if not listener.done():
                listener.set_result(None)


class Watched(Protocol):
    """What a watch needs of a store."""

    _bell: Bell
    _history: int

    def _require_open(self) -> None: ...

    def _apply(self, ops: Sequence[Operation]) -> Awaitable[list[Any]]: ...

    async def _read_changes(
        self, after: int, path: str, pattern: Pattern, subtree: bool
    ) -> ChangePage: ...


class Watch(AsyncIterator[Change]):
    """The changes of a store, as `Store.watch` describes them.

    It may be left at any time and needs no closing; a cancelled `anext` loses nothing. With
    `async with store.watch(...) as changes:` the watch begins before the block does.
    """

    def __init__(
        self, store: Watched, path: str, pattern: Pattern, subtree: bool, since: int | None
    ) -> None:
        self._store = store
        self._path = path
        self._pattern = pattern
        self._subtree = subtree
        self._since = since
        self._position: int | None = None
        self._ready: deque[Change] = deque()
        self._is_running = False
        self._is_done = False

    @property
    def version(self) -> int | None:
        """Where to resume by `since`: all before is delivered; `None` before it begins."""
        if self._position is None:
            return self._since
        return self._ready[0].version - 1 if self._ready else self._position

    def __aiter__(self) -> Self:
        return self

    async def __aenter__(self) -> Self:
        if self._position is None:
            await self._begin()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """End the watch."""
        self._is_done = True
        self._position = self.version
        self._ready.clear()
        self._store._bell.watches.discard(self)
        self._store._bell.ring()

    async def __anext__(self) -> Change:
        if self._is_running:
            raise RuntimeError("this watch is waited for already; make one for each task")
        self._is_running = True
        try:
            while not self._ready:
                if self._is_done:
                    raise StopAsyncIteration
                await self._fill()
        except StoreError:
            self._is_done = True
            self._store._bell.watches.discard(self)
            raise
        finally:
            self._is_running = False
        return self._ready.popleft()

    async def _fill(self) -> None:
        """Read what is new, or else wait a moment for it."""
        self._store._require_open()
        position = self._position if self._position is not None else await self._begin()
        listener = self._store._bell.listen()
        try:
            page = await self._store._read_changes(
                position, self._path, self._pattern, self._subtree
            )
            if page.begin > position:
                raise WatchExpiredError(
                    f"the changes after version {position} are no longer kept (the history begins "
                    f"after {page.begin}): read the items anew, and watch from now on"
                )
            is_moved = page.position > position
            self._position = page.position
            self._ready.extend(page.changes)
            self._store._require_open()
            await self._maintain(page)
            if not is_moved and not self._is_done:
                await _wait(listener, self._store._bell.patience_s)
        finally:
            self._store._bell.forget(listener)

    async def _begin(self) -> int:
        """Take the lease and find the place to begin."""
        self._store._require_open()
        version, begin = (await self._store._apply((Lease(self._store._history),)))[0]
        since = version if self._since is None else self._since
        if since > version:
            raise InvalidArgumentError(
                f"since={since} is ahead of the store, which is at version {version}; was it "
                "restored from a backup? Read the items anew, and watch from now on"
            )
        if since < begin:
            raise WatchExpiredError(
                f"the changes after version {since} are not kept (the history begins after "
                f"{begin}): read the items anew, and watch from now on"
            )
        self._position = since
        self._store._bell.watches.add(self)
        return int(since)

    async def _maintain(self, page: ChangePage) -> None:
        """Renew the lease when half of it is over, and have expiries recorded in time."""
        ops: list[Operation] = []
        if page.lease - page.now < self._store._history // 2:
            ops.append(Lease(self._store._history))
        if page.has_expired:
            ops.append(Sweep(_SWEEP_SLICE))
        if ops:
            with suppress(StoreBusyError):  # if another process writes at length: at the next look
                await self._store._apply(ops)


async def _wait(listener: asyncio.Future[None], patience_s: float) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(patience_s):
            await listener


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
