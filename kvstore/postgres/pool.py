"""The pool of connections for reads: how many, who gets one, and what happens after a failure.

asyncpg's own pool resets a connection each time it comes back, which takes a round trip. These need
no reset, as they never hold any state.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Concatenate, Final, ParamSpec, TypeVar

from kvstore.errors import StoreBusyError, StoreClosedError, StoreError
from kvstore.postgres.connection import (
    Connection,
    DriverError,
    Retries,
    Target,
    hang_up,
    is_behind,
    is_demoted,
    is_lost,
    reconnect,
    snapshot,
    translate,
)
from kvstore.postgres.watchman import Watched, Watchman
from kvstore.report import Counters

__all__ = ["Pool", "Pooled"]

_LOG = logging.getLogger("kvstore")

P = ParamSpec("P")
T = TypeVar("T")

MEND_S: Final = 2.0  # until a connection whose caller has gone must be usable again
_FULL_S: Final = 0.5  # after the server refused a connection as full, before it is asked again


@dataclass(slots=True, eq=False)
class Pooled(Watched):
    """A connection of a pool, with the statement that it runs most."""

    raw: Connection = None
    get: Any = None  # the prepared statement
    age: int = 0  # how often the pool had renewed itself when it was opened


class Pool:
    """Connections for reads; they are opened when they are needed, and kept.

    Args:
        target: where to.
        size: how many at most.
        timeout: how long to wait for one, in seconds.
        counters: of what is done.

    Attributes:
        watchman: told of what is on its way, here and by whoever writes.
        age: how often it has renewed itself.
    """

    def __init__(self, target: Target, size: int, timeout: float, counters: Counters) -> None:
        self.target = target
        self.watchman = Watchman(target, counters)
        self._counters = counters
        self._size = size
        self._timeout = timeout
        self._idle: list[Pooled] = []
        self._opened = 0
        self.age = 0
        self._waiting: deque[asyncio.Future[Pooled | None]] = deque()
        self._mending: set[asyncio.Task[None]] = set()
        self._full_until = 0.0  # by the loop's clock
        self._is_closed = False
        self._quiet: asyncio.Future[None] | None = None

    @property
    def connections(self) -> int:
        """How many are open."""
        return self._opened

    @property
    def idle(self) -> int:
        """How many nobody uses."""
        return len(self._idle)

    @property
    def waiting(self) -> int:
        """How many reads wait for one."""
        return len(self._waiting)

    async def run(
        self,
        read: Callable[Concatenate[Connection, P], Awaitable[T]],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """Run a read on a connection; once more on a new one, if that was lost.

        Behind a pooler it is in a transaction of its own, so that one server has all of it.
        """
        if not self.target.is_pooler:
            return await self.run_alone(read, *args, **kwargs)

        async def read_in_transaction(connection: Connection) -> T:
            async with snapshot(connection):
                return await read(connection, *args, **kwargs)

        return await self.run_alone(read_in_transaction)

    async def run_alone(
        self,
        read: Callable[Concatenate[Connection, P], Awaitable[T]],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """As `run`, for a read that begins a transaction itself."""
        retries = Retries(2, self._timeout)
        pooled = self.take() or await self.acquire()
        while True:
            try:
                found = await read(pooled.raw, *args, **kwargs)
            except DriverError as exc:
                if isinstance(exc, StoreError):
                    self.mend(pooled)
                    raise
                if is_behind(exc):
                    self.mend(pooled)
                elif is_demoted(exc):
                    self.renew()  # it goes with the others
                    self.mend(pooled)
                elif is_lost(exc) or pooled.raw.is_closed():
                    self.lost(pooled, exc)
                    self.forget_idle()  # they go to the same server
                else:
                    self.mend(pooled)
                    raise translate(exc, self.target.name) from exc
                if not await retries.wait(exc):
                    raise translate(exc, self.target.name) from exc
            except Exception:
                self.release(pooled)
                raise
            except BaseException:
                self.mend(pooled)
                raise
            else:
                self.release(pooled)
                return found
            self._counters.retries += 1
            pooled = await self.acquire()

    def take(self) -> Pooled | None:
        """Return an idle connection, or `None`."""
        while self._idle:
            pooled = self._idle.pop()
            if not pooled.raw.is_closed():
                self.watchman.begin(pooled)
                return pooled
            self._drop(pooled)
        return None

    async def acquire(self) -> Pooled:
        """Return a connection; `release` it, or `mend` it if something went wrong.

        Raises:
            StoreBusyError: all were in use for too long, or the server takes no more.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._timeout
        while True:
            pooled = self.take()
            if pooled is not None:
                return pooled
            if self._is_closed:
                raise StoreClosedError(f"the store over {self.target.name} is closed")
            if self._opened < self._size and (not self._opened or loop.time() >= self._full_until):
                opened = await self._open(deadline)
                if opened is not None:
                    return opened
                continue
            given = await self._wait(deadline)
            if given is not None:
                self.watchman.begin(given)
                return given

    async def _open(self, deadline: float) -> Pooled | None:
        """Open one more, or wait a little where the server takes no more.

        Raises:
            StoreError: it cannot be had, and there is none to wait for.
        """
        loop = asyncio.get_running_loop()
        self._opened += 1
        try:
            raw = await reconnect(self.target, max(0.0, deadline - loop.time()))
        except BaseException as exc:
            is_full = isinstance(exc, StoreBusyError) and loop.time() < deadline
            if is_full:
                self._full_until = loop.time() + _FULL_S
            self._drop(None)
            if not is_full:
                raise
            if not self._opened:
                await asyncio.sleep(min(_FULL_S / 5, max(0.0, deadline - loop.time())))
            return None
        pooled = Pooled(raw, age=self.age)
        self.watchman.begin(pooled)
        return pooled

    async def _wait(self, deadline: float) -> Pooled | None:
        """Wait for a connection that comes back, or for word that one may be opened."""
        waiter: asyncio.Future[Pooled | None] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        try:
            async with asyncio.timeout_at(deadline):
                return await waiter
        except BaseException as exc:
            if waiter.done() and not waiter.cancelled():
                given = waiter.result()
                if given is None:
                    self._hand_on(None)
                else:
                    self.release(given)
            if isinstance(exc, TimeoutError):
                raise StoreBusyError(
                    f"all {self._opened} connections to {self.target.name} were in use for "
                    f"{self._timeout:g} seconds; raise pool_size, or ask for less at once"
                ) from None
            raise

    def release(self, pooled: Pooled) -> None:
        """Give a connection back."""
        self.watchman.end(pooled)
        raw = pooled.raw
        if not raw.is_closed() and raw.is_in_transaction():
            self.mend(pooled)
            return
        if raw.is_closed() or self._is_closed or pooled.age != self.age:
            self._drop(pooled)
        else:
            self._hand_on(pooled)

    def _drop(self, pooled: Pooled | None) -> None:
        """Have one less; `None`: one that could not be opened."""
        if pooled is not None:
            pooled.raw.terminate()
        self._opened -= 1
        self._hand_on(None)
        if self._quiet is not None and not self._opened and not self._quiet.done():
            self._quiet.set_result(None)

    def lost(self, pooled: Pooled, exc: BaseException) -> None:
        """Give up a connection that is lost."""
        pooled.raw.terminate()  # it may not know yet
        self.release(pooled)
        self._counters.reconnects += 1
        _LOG.info(
            "a read lost its connection to %s (%s): again on a new one",
            self.target.name,
            type(exc).__name__,
        )

    def put_back(self, pooled: Pooled) -> None:
        """As `release`, after one statement outside a transaction."""
        if self._waiting or self._is_closed or pooled.age != self.age:
            self.release(pooled)
        else:
            self.watchman.end(pooled)
            self._idle.append(pooled)

    def mend(self, pooled: Pooled) -> None:
        """Give back a connection on which something failed, or whose caller has gone.

        A statement may still be at work there, and a transaction open: both are ended first, and
        nobody waits for that.
        """
        if pooled.raw.is_closed() or self._is_closed:
            pooled.raw.terminate()
            self.release(pooled)
            return
        task = asyncio.get_running_loop().create_task(self._mend(pooled))
        self._mending.add(task)
        task.add_done_callback(self._mending.discard)

    async def _mend(self, pooled: Pooled) -> None:
        raw = pooled.raw
        try:
            async with asyncio.timeout(MEND_S):
                try:
                    await raw.execute("SELECT")  # waits for the end of what was cancelled
                finally:
                    if not raw.is_closed() and raw.is_in_transaction():
                        await raw.execute("ROLLBACK")
        except BaseException as exc:
            if not isinstance(exc, DriverError) or raw.is_closed() or raw.is_in_transaction():
                raw.terminate()
            if not isinstance(exc, (*DriverError, TimeoutError)):
                raise
        finally:
            if not raw.is_closed() and raw.is_in_transaction():
                raw.terminate()
            self.release(pooled)

    def _hand_on(self, pooled: Pooled | None) -> None:
        """Give the first who waits a connection, or word that one may be opened."""
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(pooled)
                return
        if pooled is not None:
            self._idle.append(pooled)

    def forget_idle(self) -> None:
        """Drop the idle connections."""
        while self._idle:
            self._drop(self._idle.pop())

    def renew(self) -> None:
        """Leave the server behind: no connection that is open now serves another read."""
        self.age += 1
        self.forget_idle()

    async def close(self) -> None:
        """Close all connections, once what uses them is done."""
        self._is_closed = True
        idle, self._idle = self._idle, []
        self._opened -= len(idle)
        while self._waiting:
            self._hand_on(None)
        await asyncio.gather(*(hang_up(pooled.raw) for pooled in idle))
        if self._opened:
            self._quiet = asyncio.get_running_loop().create_future()
            await self._quiet
        await self.watchman.close()
