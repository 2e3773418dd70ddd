"""`Watch`: the change feed as an async iterator; it holds no task, and so leaves none behind.

Writers record changes only while a lease says that somebody watches. A watch takes the lease,
reads what was recorded after its position, and waits: for a write in its own process, which wakes
it, and for those of other processes, for which it looks again after a moment.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Self

from kvstore.backend import Backend, Host
from kvstore.errors import InvalidArgumentError, StoreBusyError, StoreError, WatchExpiredError
from kvstore.feed import ChangePage
from kvstore.namespace import root_of
from kvstore.operations import Lease, Operation, Sweep, Trim
from kvstore.patterns import Pattern
from kvstore.positions import Position, Positions, is_ahead, is_behind
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
        self,
        store: Host,
        path: str,
        pattern: Pattern,
        subtree: bool,
        since: int | Change | None,
    ) -> None:
        self.path = path
        self.subtree = subtree
        self._store = store
        self._pattern = pattern
        self._since = since
        self._position: Position | None = None
        self._ready: deque[Change] = deque()
        self._is_running = False
        self._is_done = False

    @property
    def version(self) -> int | None:
        """Where to resume by `since`: all before is delivered; `None` before it begins.

        `None`, too, over several roots of a shared server: there one resumes by the last `Change`.
        """
        if self._position is None:
            return self._since.version if isinstance(self._since, Change) else self._since
        if self._ready and _version_of(self._position) is not None:
            return self._ready[0].version - 1
        return _version_of(self._position)

    def __aiter__(self) -> Self:
        return self

    async def __aenter__(self) -> Self:
        if self._position is None:
            await self._begin()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """End the watch."""
        self._is_done = True
        if self.version is not None:
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
                position, self.path, self._pattern, self.subtree
            )
            if is_behind(position, page.begin):
                raise WatchExpiredError(
                    f"the changes after {_said(position)} are no longer kept{_kept(page.begin)}: "
                    "read the items anew, and watch from now on"
                )
            is_moved = page.position != position
            self._position = page.position
            self._ready.extend(page.changes)
            self._store.require_open()
            await self._maintain(page)
            if not is_moved and not self._is_done:
                await self._store.backend.bell.wait(listener)
        finally:
            self._store.backend.bell.forget(listener)

    async def _begin(self) -> Position:
        """Take the lease and find the place to begin."""
        self._store.require_open()
        newest, begin = (await self._store.apply((self._lease(),)))[0]
        since = newest if self._since is None else self._resumed(self._since, newest)
        if is_ahead(since, newest):
            raise InvalidArgumentError(
                f"since={_said(since)} is ahead of the store, which is at {_said(newest)}; was it "
                "restored from a backup? Read the items anew, and watch from now on"
            )
        if is_behind(since, begin):
            raise WatchExpiredError(
                f"the changes after {_said(since)} are not kept{_kept(begin)}: read the items "
                "anew, and watch from now on"
            )
        self._position = since
        self._store.backend.bell.watches.add(self)
        return since

    def _lease(self) -> Lease:
        return Lease(self._store.settings.history, self.path, self.subtree)

    def _resumed(self, since: int | Change, newest: Position) -> Position:
        """Return the place of a version or a change, of which there may be one for each root."""
        if isinstance(newest, int):
            if isinstance(since, Change) and since.position is not None:
                return since.position.under(root_of(self.path))
            return since.version if isinstance(since, Change) else since
        if isinstance(since, Change) and since.position is not None:
            return since.position
        version = since.version if isinstance(since, Change) else since
        if version and len(newest.roots) > 1:
            raise InvalidArgumentError(
                f"since={version} is a version, and each of the roots that are watched counts "
                "versions of its own: give the last Change of such a watch, or watch one root"
            )
        least = newest.least if newest.roots else max(version, newest.least)
        return Positions(dict.fromkeys(newest.roots, version), least)

    async def _maintain(self, page: ChangePage) -> None:
        """Renew the lease when half of it is over, and have expiries recorded in time."""
        ops: list[Operation] = []
        if page.lease - page.now < self._store.settings.history // 2:
            ops.append(self._lease())
        if page.has_expired:
            ops.append(Sweep(_SWEEP_SLICE))
        if ops:
            with suppress(StoreBusyError):  # if another process writes at length: at the next look
                await self._store.apply(ops)


def _version_of(position: Position) -> int | None:
    """Return the version that a position is, unless it is one for each of several roots."""
    if isinstance(position, int):
        return position
    roots = position.roots
    return next(iter(roots.values())) if len(roots) == 1 else None


def _said(position: Position) -> str:
    version = _version_of(position)
    return "what was seen" if version is None else f"version {version}"


def _kept(begin: Position) -> str:
    version = _version_of(begin)
    return "" if version is None else f" (the history begins after {version})"
