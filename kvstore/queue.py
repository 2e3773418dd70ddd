"""`Queue`: jobs that are leased to those who take them; they are the items of one namespace."""

from __future__ import annotations

import asyncio
import logging
import random
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import suppress
from datetime import timedelta
from types import TracebackType
from typing import Any, Self

from kvstore.arguments import Indexing, check_count, check_seconds
from kvstore.backend import Host
from kvstore.errors import InvalidArgumentError, LeaseLostError, StoreClosedError, StoreError
from kvstore.instants import to_micros
from kvstore.jobs import QueueSize
from kvstore.namespace import address, check_key, show
from kvstore.operations import (
    ExtendJob,
    FinishJob,
    GiveBackJob,
    Operation,
    RetryJob,
    ReviveJobs,
    TakeJob,
)
from kvstore.sequences import refuse_other
from kvstore.types import Item, Namespace

__all__ = ["Job", "Queue", "micros_of"]

_LOG = logging.getLogger("kvstore")

_LONGEST_BACKOFF_S = 3600.0
_JITTER = 0.2
_MOST_DOUBLINGS = 60  # beyond these any backoff is the longest
_BEATS = 3  # how often a lease is prolonged while it lasts
_LONGEST_LEASE_S = 366 * 86_400.0
_LONGEST_ERROR = 2_000  # characters that are kept


class Queue:
    """Jobs, each leased to one taker at a time; made by `Store.queue`.

    A job may run more than once, and is never finished by two: each take has a token, and only
    that of the last one, while its lease lasts, may finish the job. Jobs are items of the
    namespace under their ids as keys: reads see them, `delete` cancels one, other writes raise
    `InvalidKeyError`. They never expire.

    Its methods raise what those of `Store` do, and `InvalidNamespaceError` if the namespace is a
    log or holds other items.

    Attributes:
        namespace: where its jobs are.
        lease: seconds for which a job is leased.
        attempts: how often a job is tried, at most.
        backoff: seconds before the second attempt; twice as many before each next one.
    """

    def __init__(
        self,
        store: Host,
        namespace: Sequence[str],
        *,
        lease: float = 30.0,
        attempts: int = 5,
        backoff: float = 1.0,
    ) -> None:
        self.store = store
        self.namespace: Namespace
        self.namespace, self._path = address(namespace)
        self.lease = _lease(lease)
        self.attempts = check_count(attempts, "attempts", least=1)
        if backoff != 0:
            check_seconds(backoff, "backoff")
        self.backoff = float(backoff)

    def __repr__(self) -> str:
        return f"<Queue {show(self.namespace)} of {self.store!r}>"

    async def put(
        self,
        value: Any,
        *,
        delay: float | timedelta = 0,
        unique: str | None = None,
        index: Indexing = None,
    ) -> str:
        """Add a job; return its id.

        Args:
            value: JSON and `bytes`.
            delay: seconds until it is ready.
            unique: a name: while a job of it waits or runs, this one is dropped, value and all,
                and the id is that job's.
            index: as for `Store.put`, and `True`: as an item. `None`: by words, and without
                vectors, as no put is to wait for the model.

        Raises:
            ValueEncodingError: something in the value could not come back unchanged.
            ValueTooLargeError: the encoded value is longer than `max_value_bytes`.
        """
        op = self.store.prepare_job(self.namespace, value, delay, unique, index)
        key: str = (await self._apply(op))[0]
        return key

    async def take(self, timeout: float | None = None) -> Job | None:  # noqa: ASYNC109
        """Lease the next job that is ready; wait for one if there is none.

        Waiting takers of one store are served in the order in which they came. A call that is
        cancelled leaves its job ready.

        Args:
            timeout: seconds to wait at most; 0: do not wait; `None`: for ever.

        Returns:
            The job, or `None` after `timeout` seconds without one.
        """
        self.store.require_writable()
        if timeout is not None and timeout != 0:
            check_seconds(timeout, "timeout")
        bell = self.store.backend.bell
        line = bell.line(self._path)
        place = line.join()
        try:
            if not line.is_waiting:  # what is ready is for whoever comes
                job = await self._lease_one()
                if job is not None or timeout == 0:
                    return job
            until = None if timeout is None else time.monotonic() + timeout
            return await self._wait(until) if await line.wait(place, timeout) else None
        finally:
            line.leave(place)

    async def _wait(self, until: float | None) -> Job | None:
        """Lease a job as soon as there is one; `None`: there was none until then."""
        bell = self.store.backend.bell
        job = await self._lease_one()
        while job is None:
            left = None if until is None else until - time.monotonic()
            if left is not None and left <= 0:
                return None
            listener = bell.listen()
            try:
                self.store.require_open()
                if not await self.store.backend.is_ripe(self._path):
                    await bell.wait(listener, left)
                    continue
            finally:
                bell.forget(listener)
            job = await self._lease_one()
        return job

    async def _lease_one(self) -> Job | None:
        token = secrets.randbits(62) + 1
        op = TakeJob(self.namespace, self._path, token, to_micros(self.lease), self.attempts)
        try:
            taken: tuple[Item, int] | None = (await self._apply(op))[0]
        except asyncio.CancelledError:  # it may have been taken all the same
            with suppress(StoreError):
                await asyncio.shield(self.give_back(token))
            raise
        return None if taken is None else Job(self, taken[0], taken[1], token)

    async def give_back(self, token: int) -> None:
        """Make the job ready that a token holds, if any, as if it had not been taken."""
        await self._apply(GiveBackJob(self.namespace, self._path, token))

    async def jobs(self) -> AsyncIterator[Job]:
        """Iterate over jobs as they come, one at a time; each is the caller's to finish.

        async for job in queue.jobs():
            async with job:
                ...

        It ends with `StoreClosedError` when the store closes; leave it by `break` or by cancelling
        the task.
        """
        while True:
            job = await self.take()
            if job is not None:
                yield job

    async def size(self) -> QueueSize:
        """Return how many jobs are ready, delayed, leased and dead."""
        await self._require_queue()
        return await self.store.backend.queue_size(self._path)

    async def dead(self, limit: int = 100) -> list[Job]:
        """Return jobs that were given up, in order, each with the error of its last attempt."""
        limit = check_count(limit, "limit")
        await self._require_queue()
        found = await self.store.backend.dead_jobs(self._path, limit)
        return [Job(self, item, job.attempt, 0, job.error) for item, job in found]

    async def revive(self, *ids: str) -> int:
        """Make dead jobs ready, with all their attempts before them; return how many.

        One that has a name which another job has by now is left dead.
        """
        keys = tuple(map(check_key, ids))
        number: int = (await self._apply(ReviveJobs(self.namespace, self._path, keys)))[0]
        return number

    async def finish(self, id: str, token: int) -> None:
        """Finish a job; see `Job.done`."""
        await self._apply(FinishJob(self.namespace, self._path, id, token))

    async def retry(self, id: str, token: int, delay: float, error: str | None) -> None:
        """Have a job tried again; see `Job.retry`."""
        micros = micros_of(delay, "delay")
        await self._apply(RetryJob(self.namespace, self._path, id, token, micros, error))

    async def extend(self, id: str, token: int, seconds: float) -> None:
        """Prolong a lease; see `Job.extend`."""
        lease = to_micros(_lease(seconds))
        await self._apply(ExtendJob(self.namespace, self._path, id, token, lease))

    def backoff_after(self, attempt: int) -> float:
        """Return the seconds to wait after an attempt that failed."""
        doublings = min(attempt - 1, _MOST_DOUBLINGS)
        seconds = min(self.backoff * 2.0**doublings, _LONGEST_BACKOFF_S)
        return seconds * random.uniform(1 - _JITTER, 1 + _JITTER)

    async def _require_queue(self) -> None:
        self.store.require_open()
        page = await self.store.backend.entries(self._path, None, 0)
        refuse_other(page.state, "queue")

    def _apply(self, op: Operation) -> Awaitable[list[Any]]:
        return self.store.submit((op,))


class Job:
    """A job that was taken; `async with` does it in peace.

    Inside the block the lease is prolonged. Left in peace the job is done. After an `Exception` it
    is tried again, after `Queue.backoff`, until its attempts are used up and it is dead; the
    exception is logged, not raised. A `CancelledError` and the like make it ready at once, do not
    count as an attempt, and are raised. If the lease was lost meanwhile, that is logged.

    Attributes:
        queue: which it is of.
        id: its id, which is its item's key.
        value: what was put.
        attempt: which one this is, from 1.
        error: of a dead one, why its last attempt failed.
    """

    def __init__(
        self, queue: Queue, item: Item, attempt: int, token: int, error: str | None = None
    ) -> None:
        self.queue = queue
        self.id = item.key
        self.value = item.value
        self.attempt = attempt
        self.error = error
        self.token = token
        self.is_settled = False  # done or retried, by this object
        self._began = 0.0
        self._timer: asyncio.TimerHandle | None = None  # of the first prolongation
        self._beat: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"<Job {show(self.queue.namespace, self.id)}, attempt {self.attempt}>"

    async def done(self) -> None:
        """Finish it: it goes.

        Raises:
            LeaseLostError: it is not this taker's any more.
        """
        await self.queue.finish(self.id, self.token)
        self.is_settled = True

    async def retry(self, delay: float | None = None, *, error: str | None = None) -> None:
        """Have it tried again, or give it up if this was its last attempt.

        Args:
            delay: seconds until it is ready; `None`: by `Queue.backoff`.
            error: why, for `Queue.dead`.

        Raises:
            LeaseLostError: it is not this taker's any more.
        """
        seconds = self.queue.backoff_after(self.attempt) if delay is None else delay
        await self.queue.retry(self.id, self.token, seconds, error)
        self.is_settled = True

    async def extend(self, seconds: float) -> None:
        """Let the lease last so many seconds from now.

        Raises:
            LeaseLostError: it is not this taker's any more.
        """
        await self.queue.extend(self.id, self.token, seconds)

    async def __aenter__(self) -> Self:
        self.begin()
        self._timer = asyncio.get_running_loop().call_later(self.pause_s, self._begin_beat)
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        if self._timer is not None:
            self._timer.cancel()
        beat, self._beat = self._beat, None
        if beat is not None:
            beat.cancel()
            await asyncio.gather(beat, return_exceptions=True)
        return await self.settle(exc)

    def _begin_beat(self) -> None:
        self._beat = asyncio.create_task(self._prolong())

    async def _prolong(self) -> None:
        while True:
            if not await self.prolong():
                return
            await asyncio.sleep(self.pause_s)

    def begin(self) -> None:
        """Take note that the work on it begins."""
        self._began = time.perf_counter()

    @property
    def pause_s(self) -> float:
        """How many seconds to wait from one `prolong` to the next."""
        return self.queue.lease / _BEATS

    async def prolong(self) -> bool:
        """Prolong the lease; whether it makes sense to do so again."""
        if self.is_settled:
            return False
        try:
            await self.extend(self.queue.lease)
        except (LeaseLostError, StoreClosedError):  # told at the end
            return False
        except StoreError as exc:  # a busy file: it will be tried again
            _LOG.warning("the lease of %r could not be prolonged: %s", self, exc)
        return True

    async def settle(self, exc: BaseException | None) -> bool:
        """Do what the end of the block asks for; whether the exception goes no further."""
        error = exc
        try:
            if self.is_settled:
                pass
            elif exc is None:
                await self.done()
            elif isinstance(exc, Exception):
                _LOG.warning("%r failed: %s", self, text_of(exc))
                await self.retry(error=text_of(exc))
            else:
                self.is_settled = True
                with suppress(StoreError):
                    await self.queue.give_back(self.token)
        except LeaseLostError as lost:
            _LOG.warning("%r has ended too late: %s", self, lost)
            error = exc or lost
        except BaseException as failed:
            error = failed
            raise
        finally:
            self.queue.store.tell("job", time.perf_counter() - self._began, error)
        return exc is None or isinstance(exc, Exception)


def text_of(exc: BaseException) -> str:
    """Return what is kept of an exception."""
    return f"{type(exc).__name__}: {exc}"[:_LONGEST_ERROR].encode("utf-8", "replace").decode()


def micros_of(seconds: float | timedelta, name: str) -> int:
    """Return a span that may be none, in microseconds.

    Raises:
        InvalidArgumentError: it is no number of seconds, below 0, or endless.
    """
    number = seconds.total_seconds() if isinstance(seconds, timedelta) else seconds
    if number == 0 and not isinstance(number, bool):
        return 0
    check_seconds(number, name)
    if number > 100 * _LONGEST_LEASE_S:
        raise InvalidArgumentError(f"{name} is longer than a century: {number!r} seconds")
    return to_micros(number)


def _lease(seconds: float) -> float:
    check_seconds(seconds, "lease")
    if not 0.001 <= seconds <= _LONGEST_LEASE_S:
        raise InvalidArgumentError(
            f"a lease is from a millisecond to a year, in seconds, not {seconds!r}"
        )
    return float(seconds)
