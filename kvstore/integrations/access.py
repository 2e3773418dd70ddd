"""How an adapter reaches its store: awaited on any event loop, or called from any thread.

An adapter writes each of its methods once, as a coroutine function of the open store, of which
`halves` makes the blocking method and the awaited one. Both hand it to an `Access`, which opens the
store at the first call, there:

- for an awaited call, on the caller's loop;
- for a sync call, as `kvstore.driving` does it for code without a loop.

Later calls run where the store is, wherever they come from. Copies of an adapter share its
`Access`, and with it the open store.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import threading
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Concatenate, Final, ParamSpec, TypeVar

from kvstore.driving import Runner, runner_for, running_loop
from kvstore.errors import IndexMismatchError, StoreClosedError
from kvstore.lifecycle import remember
from kvstore.memory import InMemoryStore
from kvstore.opening import open_store
from kvstore.store import Store
from kvstore.types import IndexConfig

__all__ = ["Access", "Adapter", "Setup", "Target", "Work", "halves", "indexed"]

P = ParamSpec("P")
T = TypeVar("T")

Target = str | os.PathLike[str] | Store
Work = Callable[[Store], Coroutine[Any, Any, T]]


class Access:
    """A store for an adapter, opened when it is first used.

    Args:
        target: a path or URL, as for `kvstore.open`, or a store. A store that is open stays its
            owner's; one that is not is opened at the first call, and closed by `close`.
        name: of the adapter, for messages.
        index: what is searched, for a path or URL; a store has its own.
        is_forgiving: whether a call on another loop goes to the store's, and one after the store
            was closed opens it again; else both are refused, as the store itself refuses them.

    Attributes:
        ready: the store, where it was open once and awaited calls go straight to it.
    """

    def __init__(
        self,
        target: Target,
        name: str,
        *,
        index: IndexConfig | None = None,
        is_forgiving: bool = True,
    ) -> None:
        self._recipe: Final = None if isinstance(target, Store) else (target, index)
        self._store = target if isinstance(target, Store) else open_store(target, index=index)
        self._name = name
        self._is_forgiving = is_forgiving
        self.ready: Store | None = None
        if self._store.is_open:
            self._note_open()
        self._lock = threading.Lock()
        self._home: asyncio.AbstractEventLoop | None = None  # the loop that the store is ours on
        self._runner: Runner | None = None  # what drives the store, where a sync call opened it
        self._guest: Runner | None = None  # for sync calls, where the store is open on a loop
        remember(self)

    def cross_fork(self) -> None:
        """Forget, in a forked child, which loop the store was open on in the parent."""
        self._lock = threading.Lock()
        self._home = self._guest = self.ready = None

    def _note_open(self) -> None:
        if not self._is_forgiving:
            self.ready = self._store

    @property
    def runner(self) -> Runner | None:
        """What drives the store, where a sync call opened it."""
        return self._runner

    # Awaited

    async def run(self, work: Work[T]) -> T:
        """Do what is to be done with the store, and return what that returns."""
        here = asyncio.get_running_loop()
        if self._store.loop is here and self._runner is None:
            self._note_open()
            return await work(self._store)
        home = self._settle(here)
        if home is None:
            runner = self._runner
            assert runner is not None
            return await asyncio.to_thread(runner.run, work(runner.store))
        if home is here or not self._is_forgiving:
            return await self._opened(work)
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(self._opened(work), home))

    async def _opened(self, work: Work[T]) -> T:
        if self._store.loop is None and self.ready is None:
            await self._store.open()
            self._note_open()
        return await work(self._store)

    def _settle(self, here: asyncio.AbstractEventLoop) -> asyncio.AbstractEventLoop | None:
        """Return the loop that the store lives on, from now on; `None`: it lives on none."""
        with self._lock:
            if self._runner is not None:
                return None
            open_on = self._store.loop
            if open_on is not None and open_on is not self._home:
                return open_on  # its owner's
            if self._home is None or (self._home.is_closed() and self._renewed(open_on)):
                self._home = here
            return self._home

    def _renewed(self, open_on: asyncio.AbstractEventLoop | None) -> bool:
        """Whether the store can be opened anew, after its loop is gone."""
        if open_on is None:
            return True  # it had been closed before
        if self._recipe is None or isinstance(self._store, InMemoryStore):
            return False
        target, index = self._recipe
        self._store = open_store(target, index=index)
        return True

    async def open(self) -> None:
        """Open the store, unless it is open; the first call does so by itself."""
        await self.run(_nothing)

    async def close(self) -> None:
        """Close the store if it was opened here; the next call opens it again."""
        runner, home = self._left()
        if runner is not None:
            await asyncio.to_thread(runner.close)
        elif home is asyncio.get_running_loop():
            await self._store.close()

    # From sync code

    def run_sync(self, method: str, awaited: str, work: Work[T]) -> T:
        """Do what is to be done with the store, from a thread whose loop is not the store's.

        Args:
            method: the adapter's that is called, for messages.
            awaited: the one that is for the store's own loop.
            work: what is to be done.

        Raises:
            asyncio.InvalidStateError: this is the loop's own thread, which would wait for itself.
        """
        runner = self._runner
        if runner is None:
            loop = self._store.loop
            if loop is not None and loop is running_loop():
                raise asyncio.InvalidStateError(
                    f"{method} would block the event loop that its store is open on: await "
                    f"{self._name}'s async methods there, such as {awaited}"
                )
            runner = self._sync_runner()
        return runner.run(work(runner.store))

    def _sync_runner(self) -> Runner:
        with self._lock:
            if self._runner is not None:
                return self._runner
            loop = self._store.loop
            if loop is not None and loop is self._home and loop.is_closed() and self._renewed(loop):
                self._home = loop = None
            if loop is None and self._home is not None and not self._home.is_closed():
                raise StoreClosedError(
                    f"the store of this {self._name} is just being opened or closed"
                )
            if loop is None and self.ready is not None:
                raise StoreClosedError(f"the store of this {self._name} is closed")
            if loop is None:
                self._home = self._guest = None
                self._runner = runner_for(self._store)
                return self._runner
            self._note_open()
            if self._guest is None or self._guest.store is not self._store:
                self._guest = runner_for(self._store)
            return self._guest

    def close_sync(self) -> None:
        """Close the store if a sync call opened it here; at exit it closes by itself."""
        runner, _ = self._left()
        if runner is not None:
            runner.close()

    def _left(self) -> tuple[Runner | None, asyncio.AbstractEventLoop | None]:
        """Forget where the store is; return where it was."""
        with self._lock:
            runner, home = self._runner, self._home
            if self._is_forgiving:
                self._runner = self._home = self._guest = None
            return runner, home


async def _nothing(store: Store) -> None:
    return None


class Adapter:
    """An adapter of two halves; a call of either opens the store, if it is not open."""

    _access: Access

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Call the halves of its methods as the class does, for messages and whoever looks."""
        super().__init_subclass__(**kwargs)
        for name, member in vars(cls).items():
            method: Any = member.fget if isinstance(member, property) else member
            if getattr(method, "is_half", False):
                method.__name__, method.__qualname__ = name, f"{cls.__qualname__}.{name}"

    def close(self) -> None:
        """Close the store if a sync call opened it."""
        self._access.close_sync()

    async def aclose(self) -> None:
        """Close the store if this object opened it."""
        await self._access.close()


def _on_store(adapter: Adapter, work: Callable[..., Any], *args: Any, **kwargs: Any) -> Work[Any]:
    return lambda store: work(adapter, store, *args, **kwargs)


def halves(
    work: Callable[Concatenate[Any, Any, P], Coroutine[Any, Any, T]],
    begin: Callable[..., Work[Any]] = _on_store,
) -> tuple[Callable[Concatenate[Any, P], T], Callable[Concatenate[Any, P], Coroutine[Any, Any, T]]]:
    """Return the two methods of an `Adapter` that do one thing with its open store.

        mget, amget = halves(_get)

    Args:
        work: what is done, of the adapter, its store, and the methods' own arguments. They have
            its docstring.
        begin: from the adapter, the work and the arguments to what is done with the store; called
            where the method is.
    """

    def block(self: Adapter, /, *args: P.args, **kwargs: P.kwargs) -> T:
        names = block.__name__, wait.__name__
        done: T = self._access.run_sync(*names, begin(self, work, *args, **kwargs))
        return done

    async def wait(self: Adapter, /, *args: P.args, **kwargs: P.kwargs) -> T:
        if (store := self._access.ready) is not None and begin is _on_store:
            return await work(self, store, *args, **kwargs)
        done: T = await self._access.run(begin(self, work, *args, **kwargs))
        return done

    own, _, *others = inspect.signature(work).parameters.values()
    method: Any
    for method in (block, wait):
        method.is_half, method.__doc__ = True, work.__doc__
        method.__signature__ = inspect.Signature([own, *others])
    return block, wait


async def indexed(store: Store, search: Callable[[], Awaitable[T]]) -> T:
    """Search by words; what others wrote to the file without the index is taken in first."""
    try:
        return await search()
    except IndexMismatchError:
        if store.index is None or store.index.embeddings is not None:
            raise  # a model is asked, and paid, only by whoever has chosen it
        await store.reindex()
        return await search()


class Setup:
    """What `setup()` of an adapter returns: sync code leaves it, async code awaits it."""

    __slots__ = ("_open",)

    def __init__(self, open: Callable[[], Awaitable[None]]) -> None:
        self._open = open

    def __await__(self) -> Any:
        return self._open().__await__()
