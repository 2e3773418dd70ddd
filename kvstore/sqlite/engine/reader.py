"""`Reader`: reads on a thread with a connection; what waits together hops together."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar, TypeVarTuple

from kvstore.sqlite import driver
from kvstore.sqlite.connection import WorkerConnection, release
from kvstore.sqlite.diagnosis import explain
from kvstore.sqlite.engine.limits import READ_DELIVERY_S
from kvstore.sqlite.engine.settling import call_soon, require_open, settle
from kvstore.sqlite.openfile import OpenFile

__all__ = ["Reader"]

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class _Job:
    """A read that waits for its turn, and then for its delivery."""

    __slots__ = ("error", "future", "read", "result")

    def __init__(
        self, read: Callable[[driver.Connection], Any], future: asyncio.Future[Any]
    ) -> None:
        self.read = read
        self.future = future
        self.result: Any = None
        self.error: BaseException | None = None


class Reader:
    """Runs read functions on a thread with a connection; what waits together hops together."""

    def __init__(self, connection: WorkerConnection, file: OpenFile) -> None:
        self._connection = connection
        self._file = file
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[_Job] = deque()
        self._is_scheduled = False  # a flush is due in this turn of the loop
        self.is_running = False  # the thread is at work, and takes what comes
        self._is_closed = False
        self._quiet: asyncio.Future[None] | None = None  # set by `close`, done when nothing waits

    def submit(self, read: Callable[[driver.Connection, *Ts], T], *args: *Ts) -> asyncio.Future[T]:
        """Run `read(connection, ...)` on the thread; the future is of what it returns."""
        future: asyncio.Future[T] = self._loop.create_future()
        self.post(lambda connection: read(connection, *args), future)
        return future

    def post(self, read: Callable[[driver.Connection], T], future: asyncio.Future[T]) -> None:
        """As `submit`, for a future that is there already."""
        require_open(not self._is_closed)
        self._waiting.append(_Job(read, future))
        if not self._is_scheduled and not self.is_running:
            self._is_scheduled = True
            self._loop.call_soon(self._flush)

    @property
    def is_busy(self) -> bool:
        """Whether the thread is at work, or will be before this turn of the loop is over."""
        return self.is_running or self._is_scheduled

    @property
    def raw(self) -> driver.Connection:
        """The driver's connection."""
        return self._connection.raw

    async def close(self) -> None:
        """Finish what waits, then close the connection."""
        if self._waiting or self.is_running:
            self._quiet = self._loop.create_future()
            await self._quiet
        self._is_closed = True
        await self._connection.close()

    def _flush(self) -> None:
        self._is_scheduled = False
        if self._waiting and not self.is_running:
            self.is_running = True
            self._connection.post(self._drain)

    def _drain(self) -> None:
        """On the thread: run what waits until nothing does."""
        done: list[_Job] = []
        delivered_at = time.monotonic()
        while self._waiting:
            job = self._waiting.popleft()
            if not job.future.cancelled():
                self._run_job(job)
                done.append(job)
            if time.monotonic() - delivered_at > READ_DELIVERY_S:
                call_soon(self._loop, self._deliver, done, False)
                done = []
                delivered_at = time.monotonic()
        call_soon(self._loop, self._deliver, done, True)

    def _run_job(self, job: _Job) -> None:
        try:
            job.result = self._connection.run(job.read)
        except driver.Error as exc:
            release(exc)
            job.error = explain(exc, self._file, self._connection.raw)
            job.error.__cause__ = exc
        except BaseException as exc:  # noqa: BLE001 - it belongs to the caller
            release(exc)
            job.error = exc

    def _deliver(self, done: list[_Job], is_end: bool) -> None:
        for job in done:
            settle(job.future, job.result, job.error)
        if is_end:
            self.is_running = False
            self._flush()
        if self._quiet is not None and not self._waiting and not self.is_running:
            settle(self._quiet, None, None)
