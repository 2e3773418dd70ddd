"""How sync code runs the coroutines of a store: the three ways, and which is taken when.

- `Direct`: a SQLite store runs on the calling thread, without any loop (`kvstore.sqlite.direct`).
- `LoopThread`: another store that is not open gets an event loop on a thread of its own.
- `Guest`: a store that is open runs on the loop that opened it, called from other threads.

None of them deadlocks: a call that would wait for itself raises.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import threading
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

from kvstore.errors import StoreClosedError, WrongLoopError
from kvstore.sqlite import SQLiteStore
from kvstore.sqlite.direct import DirectSQLiteStore, run_directly
from kvstore.store import Store

__all__ = ["Driver", "driver_for"]

T = TypeVar("T")

_LOOK_S = 0.2  # how often a waiting guest looks whether the loop that it waits for still runs


def driver_for(store: Store) -> Driver:
    """Return the driver for a store, and open the store if it is not open."""
    if store._loop is not None:
        return Guest(store)
    if type(store) is SQLiteStore and store.index is None:
        return Direct(store)
    return LoopThread(store)


class Driver(ABC):
    """Runs coroutines of a store to their end, for any thread.

    Attributes:
        store: the store to be used, which may be a twin of the one that was given.
    """

    store: Store

    @abstractmethod
    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine, and return what it returns.

        Raises:
            StoreClosedError: after `close`, and in a forked child.
            WrongLoopError: it would wait for the very thread that it is called on.
        """

    @abstractmethod
    def close(self) -> None:
        """Close the store if the driver opened it, once what has begun is done."""

    def guarded(self, fn: Callable[[Any], Any]) -> Callable[[Any], Any]:
        """Return a callback of the user's so that it may take its time, and call this again."""

        async def on_a_thread(value: Any) -> Any:
            result = await asyncio.to_thread(fn, value)
            return await result if inspect.isawaitable(result) else result

        return on_a_thread


class Direct(Driver):
    """Runs everything on the calling thread."""

    def __init__(self, store: SQLiteStore) -> None:
        self.store = twin = DirectSQLiteStore.like(store)
        twin.open_now()
        self._close = weakref.finalize(self, twin.close_now)  # at exit, too

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return run_directly(coroutine)

    def close(self) -> None:
        self._close()

    def guarded(self, fn: Callable[[Any], Any]) -> Callable[[Any], Any]:
        return fn


class LoopThread(Driver):
    """Runs everything on an event loop of its own, on a daemon thread."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._host = _Host(store)
        self._close = weakref.finalize(self, self._host.close)  # at exit, too
        try:
            self.run(_opened(store))
        except BaseException:
            self._close()
            raise

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return self._host.run(coroutine)

    def close(self) -> None:
        self._close()


async def _opened(store: Store) -> None:
    await store.open()


class _Host:
    """A loop on a daemon thread, and the store that lives there."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._is_closed = False
        self._tasks: set[asyncio.Task[Any]] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._serve, name="kvstore", daemon=True)
        self._thread.start()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        try:
            future = self._submit(coroutine)
        except BaseException:
            coroutine.close()
            raise
        try:
            return future.result()
        except BaseException:  # such as KeyboardInterrupt
            future.cancel()
            raise

    def _submit(self, coroutine: Coroutine[Any, Any, T]) -> Future[T]:
        if threading.current_thread() is self._thread:
            raise WrongLoopError(
                "this KeyValueStore is called on the thread that does its work, which would wait "
                "for itself; use AsyncKeyValueStore there"
            )
        _check_process(self._pid)
        with self._lock:
            if self._is_closed:
                raise StoreClosedError("this KeyValueStore is closed; make another one")
            return asyncio.run_coroutine_threadsafe(self._tracked(coroutine), self._loop)

    async def _tracked(self, coroutine: Coroutine[Any, Any, T]) -> T:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return await coroutine

    def close(self) -> None:
        """Finish what has been submitted, close the store, and end the thread."""
        if os.getpid() != self._pid:
            return
        with self._lock:
            if self._is_closed:
                return
            self._is_closed = True
        closing = asyncio.run_coroutine_threadsafe(self._finish(), self._loop)
        closing.add_done_callback(lambda _: self._loop.call_soon_threadsafe(self._loop.stop))
        if threading.current_thread() is not self._thread:  # else the collector called, there
            self._thread.join()
            closing.result()

    async def _finish(self) -> None:
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._store._loop is not None:
            await self._store.close()

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
        finally:
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
            self._loop.run_until_complete(self._loop.shutdown_default_executor())
            self._loop.close()


class Guest(Driver):
    """Runs everything on the loop that a store is open on; the store stays its owner's."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._pid = os.getpid()
        self._is_closed = False

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        try:
            loop = self._usable_loop()
        except BaseException:
            coroutine.close()
            raise
        future = asyncio.run_coroutine_threadsafe(coroutine, loop)
        try:
            while True:
                try:
                    return future.result(_LOOK_S)
                except TimeoutError:
                    if future.done():  # the coroutine's own
                        raise
                    if not loop.is_running():
                        raise WrongLoopError(
                            "the event loop of this store ended before it had answered"
                        ) from None
        except BaseException:
            future.cancel()
            raise

    def _usable_loop(self) -> asyncio.AbstractEventLoop:
        _check_process(self._pid)
        loop = self.store._loop
        if self._is_closed or loop is None:
            raise StoreClosedError("the store of this KeyValueStore is closed")
        if _running_loop() is loop:
            raise WrongLoopError(
                "this KeyValueStore uses a store that is open on the very event loop that it is "
                "called on, and would block it for ever: use AsyncKeyValueStore(store) there, or "
                "give KeyValueStore a path"
            )
        if not loop.is_running():
            raise WrongLoopError(
                "this KeyValueStore uses a store that is open on an event loop, and that loop does "
                "not run now: give KeyValueStore a path, or a store that is not open"
            )
        return loop

    def close(self) -> None:
        self._is_closed = True


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def _check_process(pid: int) -> None:
    if os.getpid() != pid:
        raise StoreClosedError(
            "this KeyValueStore was made before this process was forked: make one in each process"
        )
