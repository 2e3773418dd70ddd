"""`Watch`: the change feed as an async iterator; it holds no task, and so leaves none behind.

Writers record changes only while a lease says that somebody watches. A watch takes the lease,
reads what was recorded after its position, and waits: for a write in its own process, which wakes
it, and for those of other processes, for which it looks again after a moment.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator
from contextlib import suppress
from types import TracebackType
from typing import Self

from kvstore.backend import Backend, Host
from kvstore.errors import InvalidArgumentError, StoreBusyError, StoreError, WatchExpiredError
from kvstore.feed import ChangePage
from kvstore.operations import Lease, Operation, Sweep, Trim
from kvstore.patterns import Pattern
from kvstore.types import Change

__all__ = ["Watch", "trim_of"]

_SWEEP_SLICE = 500


def trim_of(backend: Backend, limit: int) -> Trim:
    """Return the upkeep of the feed and of the past, as a store's settings have it."""
    settings = backend.settings
    keeps = settings.history if settings.keeps else None
    return Trim(limit, settings.history, bool(backend.bell.watches), keeps)


class Watch(AsyncIterator[Change]):
    """The changes of a store, as `Store.watch` describes them.

    It may be left at any time and needs no closing; a cancelled `anext` loses nothing. With
    `async with store.watch(...) as changes:` the watch begins before the block does.
    """

    def __init__(
        self, store: Host, path: str, pattern: Pattern, subtree: bool, since: int | None
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
        self._store.backend.bell.watches.discard(self)
        self._store.backend.bell.ring()

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
            self._store.backend.bell.watches.discard(self)
            raise
        finally:
            self._is_running = False
        return self._ready.popleft()

    async def _fill(self) -> None:
        """Read what is new, or else wait a moment for it."""
        self._store.require_open()
        position = self._position if self._position is not None else await self._begin()
        listener = self._store.backend.bell.listen()
        try:
            page = await self._store.backend.read_changes(
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
            self._store.require_open()
            await self._maintain(page)
            if not is_moved and not self._is_done:
                await self._store.backend.bell.wait(listener)
        finally:
            self._store.backend.bell.forget(listener)

    async def _begin(self) -> int:
        """Take the lease and find the place to begin."""
        self._store.require_open()
        version, begin = (await self._store.apply((Lease(self._store.settings.history),)))[0]
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
        self._store.backend.bell.watches.add(self)
        return int(since)

    async def _maintain(self, page: ChangePage) -> None:
        """Renew the lease when half of it is over, and have expiries recorded in time."""
        ops: list[Operation] = []
        if page.lease - page.now < self._store.settings.history // 2:
            ops.append(Lease(self._store.settings.history))
        if page.has_expired:
            ops.append(Sweep(_SWEEP_SLICE))
        if ops:
            with suppress(StoreBusyError):  # if another process writes at length: at the next look
                await self._store.apply(ops)
