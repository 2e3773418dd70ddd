"""When stores are open: on one event loop at a time, and in one process."""

from __future__ import annotations

import asyncio
import os
import threading
import weakref
from typing import Any, Protocol

from kvstore.errors import WrongLoopError

__all__ = ["LoopLock", "remember"]


class LoopLock:
    """An `asyncio.Lock` that is not waited for across loops.

    An `asyncio.Lock` that two loops contend for wakes none of them, or raises a `RuntimeError` of
    its own. While tasks of one loop have this lock or wait for it, those of another are refused.
    """

    def __init__(self) -> None:
        self._guard = threading.RLock()  # taken again by a finalizer in the middle of it
        self._loop: asyncio.AbstractEventLoop | None = None
        self._lock = asyncio.Lock()
        self._users = 0

    def locked(self) -> bool:
        """Whether a task has the lock."""
        return self._lock.locked()

    async def __aenter__(self) -> None:
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            raise WrongLoopError(
                "a store runs on a loop of asyncio, and none is running here; under trio use "
                "kvstore.SyncStore, by trio.to_thread.run_sync"
            ) from None
        with self._guard:
            if self._loop is None or self._loop.is_closed():
                self._loop, self._lock, self._users = loop, asyncio.Lock(), 0
            elif self._loop is not loop:
                raise WrongLoopError(
                    "another event loop opens or closes this store just now; open one in each "
                    "loop, or use the sync facade kvstore.KeyValueStore, which works from any "
                    "thread"
                )
            self._users += 1
        try:
            await self._lock.acquire()
        except BaseException:
            self._leave()
            raise

    async def __aexit__(self, *_: object) -> None:
        self._lock.release()
        self._leave()

    def _leave(self) -> None:
        with self._guard:
            self._users -= 1
            if not self._users:
                self._loop = None


class _Open(Protocol):
    """What is open in one process."""

    def cross_fork(self) -> None:
        """Become unopened, in the child of a fork, without touching what was open."""


_open: weakref.WeakSet[_Open] = weakref.WeakSet()
_inherited: list[Any] = []  # by this process: kept, so that nothing finalises it here


def remember(store: _Open) -> None:
    """Take note of something that has opened, and is another in the child of a fork."""
    _open.add(store)


def _in_child() -> None:
    for store in list(_open):
        _inherited.append(vars(store).copy())
        store.cross_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
