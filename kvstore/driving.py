"""How sync code runs the coroutines of a store: the three ways, and which is taken when.

- `Direct`: a SQLite store runs on the calling thread, without any loop (`kvstore.sqlite.direct`).
- `LoopThread`: another store that is not open gets an event loop on a thread of its own.
- `Guest`: a store that is open runs on the loop that opened it, called from other threads.

None of them deadlocks: a call that would wait for itself raises. In the child of a fork the first
two open the store anew, with the first call.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import threading
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine
from queue import Empty, SimpleQueue
from typing import Any, Generic, Self, TypeVar

from kvstore.errors import StoreClosedError, WrongLoopError
from kvstore.lifecycle import remember
from kvstore.sqlite.connection import served_loop
from kvstore.sqlite.direct import run_directly
from kvstore.store import Store

__all__ = ["Runner", "runner_for", "running_loop"]

T = TypeVar("T")
Function = Callable[[Any], Any]

_LOOK_S = 0.2  # how often a waiting guest looks whether the loop that it waits for still runs


def runner_for(store: Store, *, is_lazy: bool = False) -> Runner:
    """Return the runner for a store, and open the store if it is not open.

    Args:
        store: which.
        is_lazy: whether a store that is not open is opened by the first call only.
    """
    if store.is_open:
        return Guest(store)
    twin = store.blocking()
    if twin is None:
        return LoopThread(store, is_lazy)
    runner = Direct(twin, is_lazy)
    runner.origin = store
    return runner


class Runner(ABC):
    """Runs coroutines of a store to their end, for any thread.

    Attributes:
        store: the store to be used, which may be a twin of the one that was given.
        origin: the one that was given.
    """

    store: Store
    origin: Store

    @abstractmethod
    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine, and return what it returns.

        Raises:
            StoreClosedError: after `close`.
            WrongLoopError: it would wait for the very thread that it is called on.
        """

    def run_waiting(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine that may wait for ever; `close` ends it by `StoreClosedError`."""
        return self.run(coroutine)

    @abstractmethod
    def run_with(self, fn: Function, start: Callable[[Function], Coroutine[Any, Any, T]]) -> T:
        """Run the coroutine that `start` makes with a function of the user's.

        The function is called on this very thread, which may take its time there, and call this
        again.
        """

    @abstractmethod
    def close(self) -> None:
        """Close the store if the runner opened it, once what has begun is done."""


class Direct(Runner):
    """Runs everything on the calling thread."""

    def __init__(self, store: Store, is_lazy: bool) -> None:
        self.origin = self.store = store
        self._lock = threading.RLock()
        self._close = weakref.finalize(self, _close_directly, store)  # at exit, too
        remember(self)
        if not is_lazy:
            self._open()

    def cross_fork(self) -> None:
        """Forget who had the lock in the parent."""
        self._lock = threading.RLock()

    def _open(self) -> None:
        with self._lock:
            if not self._close.alive:
                raise StoreClosedError("this KeyValueStore is closed; make another one")
            run_directly(self.store.open())

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        if not self.store.is_open:
            try:
                self._open()
            except BaseException:
                coroutine.close()
                raise
        return run_directly(coroutine)

    def run_with(self, fn: Function, start: Callable[[Function], Coroutine[Any, Any, T]]) -> T:
        return self.run(start(fn))

    def close(self) -> None:
        self._close()


def _close_directly(store: Store) -> None:
    run_directly(store.close())


class _Call(Generic[T]):
    """A coroutine on the loop, and the thread that waits for it.

    Each side leaves the other word in a queue and waits for no lock that the other may have: a
    signal handler or a finalizer may call again in the middle of anything that the thread does,
    while the loop has to go on. `concurrent.futures.Future` has such a lock.

    The user's functions are called on the thread that waits. Those of a pool would do so, too,
    until each of them waits for another.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._word: SimpleQueue[Callable[[], None] | None] = SimpleQueue()  # None: it is done
        self._coroutine: Coroutine[Any, Any, T] | None = None
        self._task: asyncio.Task[T] | None = None

    def here(self, fn: Function) -> Function:
        """Return a function for the loop that has `fn` called on the thread that waits."""

        async def on_the_loop(value: Any) -> Any:
            answer: asyncio.Future[Any] = self._loop.create_future()
            self._word.put(lambda: self._answer(answer, fn, value))
            result = await answer
            return await result if inspect.isawaitable(result) else result

        return on_the_loop

    def _answer(self, answer: asyncio.Future[Any], fn: Function, value: Any) -> None:
        try:
            result = fn(value)
        except Exception as exc:  # noqa: BLE001 - the user's, passed on
            self._loop.call_soon_threadsafe(_settle, answer, None, exc)
        else:
            self._loop.call_soon_threadsafe(_settle, answer, result, None)

    def post(self, coroutine: Coroutine[Any, Any, T]) -> Self:
        """Have the loop begin, in the present context."""
        self._coroutine = coroutine
        self._loop.call_soon_threadsafe(self._begin)
        return self

    def _begin(self) -> None:
        if self._coroutine is not None:
            self._task = self._loop.create_task(self._coroutine)
            self._task.add_done_callback(lambda _: self._word.put(None))

    def wait(self, look: Callable[[], None] | None = None) -> T:
        """Return what the coroutine returns, and do what is asked meanwhile.

        Args:
            look: called every now and then; it raises if nothing will come any more.
        """
        try:
            while True:
                try:
                    word = self._word.get(timeout=None if look is None else _LOOK_S)
                except Empty:
                    assert look is not None
                    look()
                    continue
                if word is None:
                    return self._result()
                word()
        except BaseException:  # such as KeyboardInterrupt
            self._drop()
            raise

    def _result(self) -> T:
        assert self._task is not None
        if self._task.cancelled():
            raise WrongLoopError("the event loop of this store ended before it had answered")
        return self._task.result()

    def _drop(self) -> None:
        """Want no answer any more."""
        if self._loop.is_running():
            self._loop.call_soon_threadsafe(self._cancel)
        else:
            self._cancel()

    def _cancel(self) -> None:
        coroutine, self._coroutine = self._coroutine, None
        if self._task is not None:
            self._task.cancel()
        elif coroutine is not None:
            coroutine.close()


def _settle(answer: asyncio.Future[Any], result: Any, error: Exception | None) -> None:
    if answer.done():  # given up
        return
    if error is None:
        answer.set_result(result)
    else:
        answer.set_exception(error)


class LoopThread(Runner):
    """Runs everything on an event loop of its own, on a daemon thread."""

    def __init__(self, store: Store, is_lazy: bool) -> None:
        self.origin = self.store = store
        self._host = _Host(store)
        self._close = weakref.finalize(self, self._host.close)  # at exit, too
        if not is_lazy:
            try:
                self._host.start()
            except BaseException:
                self._close()
                raise

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return self._run(coroutine, is_waiting=False)

    def run_waiting(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return self._run(coroutine, is_waiting=True)

    def _run(self, coroutine: Coroutine[Any, Any, T], *, is_waiting: bool) -> T:
        try:
            call = self._host.submit(lambda _: coroutine, is_waiting=is_waiting)
        except BaseException:
            coroutine.close()
            raise
        return call.wait()

    def run_with(self, fn: Function, start: Callable[[Function], Coroutine[Any, Any, T]]) -> T:
        call: _Call[T] = self._host.submit(lambda call: start(call.here(fn)))
        return call.wait()

    def close(self) -> None:
        self._close()


class _Host:
    """A loop on a daemon thread, and the store that lives there."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._is_closed = False
        self._begin()
        remember(self)

    def _begin(self) -> None:
        self._lock = threading.RLock()  # a finalizer may come in the middle of it
        self._tasks: set[asyncio.Task[Any]] = set()
        self._waiting: set[asyncio.Task[Any]] = set()  # of those that end when the store closes
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def cross_fork(self) -> None:
        self._begin()

    def start(self) -> asyncio.AbstractEventLoop:
        """Open the store on a loop of its own, unless it is; return the loop."""
        with self._lock:
            if self._is_closed:
                raise StoreClosedError("this KeyValueStore is closed; make another one")
            if self._loop is None:
                self._loop = loop = asyncio.new_event_loop()
                self._thread = threading.Thread(
                    target=_serve, args=(loop,), name="kvstore", daemon=True
                )
                self._thread.start()
                try:
                    opening = self._tracked(_opened(self._store), self._tasks)
                    _Call[None](loop).post(opening).wait()
                except BaseException:
                    self._stop(loop, self._thread)
                    self._loop = self._thread = None
                    raise
            return self._loop

    def submit(
        self, start: Callable[[_Call[T]], Coroutine[Any, Any, T]], *, is_waiting: bool = False
    ) -> _Call[T]:
        """Begin a coroutine on the loop.

        Args:
            start: makes the coroutine.
            is_waiting: whether it may wait for ever, and closing is not to wait for it.

        Raises:
            WrongLoopError: this is the loop's thread, or one that works for the loop.
        """
        if self._is_called_from_within():
            raise WrongLoopError(
                "this KeyValueStore is called on the thread that does its work, which would wait "
                "for itself; use AsyncKeyValueStore there, and in a finalizer take a note"
            )
        with self._lock:
            call: _Call[T] = _Call(self.start())
            tasks = self._waiting if is_waiting else self._tasks
            return call.post(self._tracked(start(call), tasks))

    def _is_called_from_within(self) -> bool:
        if self._thread is None:
            return False
        # Not by its number, which another thread may have once this one has ended
        return threading.current_thread() is self._thread or served_loop() is self._loop

    async def _tracked(self, coroutine: Coroutine[Any, Any, T], tasks: set[asyncio.Task[Any]]) -> T:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        return await coroutine

    def close(self) -> None:
        """Finish what has been submitted, close the store, and end the thread."""
        with self._lock:
            if self._is_closed:
                return
            self._is_closed = True
            loop, thread = self._loop, self._thread
        if loop is not None and thread is not None:
            self._stop(loop, thread)

    def _stop(self, loop: asyncio.AbstractEventLoop, thread: threading.Thread) -> None:
        is_within = self._is_called_from_within()  # by the collector
        closing = _Call[None](loop).post(self._finish(loop))
        if not is_within:
            closing.wait()
            thread.join()

    async def _finish(self, loop: asyncio.AbstractEventLoop) -> None:
        try:
            await asyncio.gather(*self._tasks, return_exceptions=True)
            if self._store.is_open:
                await self._store.close()
            await asyncio.gather(*self._waiting, return_exceptions=True)
        finally:
            loop.call_soon(loop.call_soon, loop.stop)  # once the answer is given


async def _opened(store: Store) -> None:
    await store.open()


def _serve(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
    finally:
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()


class Guest(Runner):
    """Runs everything on the loop that a store is open on; the store stays its owner's."""

    def __init__(self, store: Store) -> None:
        self.origin = self.store = store
        self._pid = os.getpid()
        self._is_closed = False

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        try:
            loop = self._usable_loop()
        except BaseException:
            coroutine.close()
            raise
        return self._run(_Call(loop), coroutine, loop)

    def run_with(self, fn: Function, start: Callable[[Function], Coroutine[Any, Any, T]]) -> T:
        loop = self._usable_loop()
        call: _Call[T] = _Call(loop)
        return self._run(call, start(call.here(fn)), loop)

    def _run(
        self, call: _Call[T], coroutine: Coroutine[Any, Any, T], loop: asyncio.AbstractEventLoop
    ) -> T:
        def look() -> None:
            if not loop.is_running():
                raise WrongLoopError("the event loop of this store ended before it had answered")

        return call.post(coroutine).wait(look)

    def _usable_loop(self) -> asyncio.AbstractEventLoop:
        if os.getpid() != self._pid:
            raise StoreClosedError(
                "this KeyValueStore uses a store that is open in the process that this one was "
                "forked from: make one in each process"
            )
        loop = self.store.loop
        if self._is_closed or loop is None:
            raise StoreClosedError("the store of this KeyValueStore is closed")
        if loop in (running_loop(), served_loop()):
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


def running_loop() -> asyncio.AbstractEventLoop | None:
    """Return the loop that runs on this thread, if one does."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
