"""Point reads: one at a time goes straight through, many at a time share a statement.

A statement for one row costs ten times what a row costs in a statement for many. So two reads at
most are on their way at once; those that come meanwhile wait, and go together.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

from kvstore.errors import StoreCorruptError
from kvstore.postgres import reading, statements
from kvstore.postgres.connection import DriverError, is_lost
from kvstore.postgres.keys import encode_key, root_of
from kvstore.postgres.pool import Pool
from kvstore.types import Item, Namespace

__all__ = ["PointReader"]

MOST_STATEMENTS: Final = 2
MOST: Final = 500  # reads that share a statement

_Asked = tuple[Namespace, str, str, "asyncio.Future[list[Item]]"]


class PointReader:
    """Reads single items.

    Args:
        run: runs a read on a connection.
        now: the present instant, in microseconds.
        pool: whose idle connections a read may take without further ado, and which keep their
            prepared statements; `None`: there is none such.
    """

    def __init__(
        self, run: Callable[..., Awaitable[Any]], now: Callable[[], int], pool: Pool | None
    ) -> None:
        self._run = run
        self._now = now
        self._pool = pool
        self._on_their_way = 0
        self._waiting: list[_Asked] = []
        self._tasks: set[asyncio.Task[None]] = set()

    async def get(self, namespace: Namespace, path: str, key: str) -> list[Item]:
        """Return the live item in a list, or an empty one."""
        if self._on_their_way >= MOST_STATEMENTS:
            future: asyncio.Future[list[Item]] = asyncio.get_running_loop().create_future()
            self._waiting.append((namespace, path, key, future))
            return await future
        self._on_their_way += 1
        try:
            pooled = None if self._pool is None else self._pool.take()
            if pooled is not None:
                assert self._pool is not None
                try:
                    if pooled.get is None:
                        pooled.get = await pooled.raw.prepare(statements.GET)
                    now = self._now()
                    row = await pooled.get.fetchrow(root_of(path), path, encode_key(key), now)
                except DriverError as exc:
                    pooled.get = None  # what follows meets it again, and deals with it
                    if pooled.raw.is_closed() or is_lost(exc):
                        self._pool.lost(pooled, exc)
                    else:
                        self._pool.release(pooled)
                except BaseException:  # the caller has gone
                    self._pool.mend(pooled)
                    raise
                else:
                    self._pool.put_back(pooled)
                    return [] if row is None else [reading.item_of(namespace, key, row)]
            found: list[Item] = await self._run(reading.get_one, self._now(), namespace, path, key)
        finally:
            self._land()
        return found

    def _land(self) -> None:
        """Send off what waits in the place of a statement that has ended."""
        self._on_their_way -= 1
        if self._waiting:
            asked, self._waiting = self._waiting[:MOST], self._waiting[MOST:]
            self._on_their_way += 1
            task = asyncio.get_running_loop().create_task(self._read_group(asked))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _read_group(self, asked: Sequence[_Asked]) -> None:
        wanted = [each for each in asked if not each[3].done()]  # whose callers still wait
        try:
            answers: list[list[Item] | StoreCorruptError] = []
            if wanted:
                points = [each[:3] for each in wanted]
                answers = await self._run(reading.get_points, self._now(), points)
        except BaseException as exc:
            for *_, future in wanted:
                if not future.done():
                    future.set_exception(exc)
            if not isinstance(exc, Exception):
                raise
        else:
            for (*_, future), answer in zip(wanted, answers, strict=True):
                if future.done():
                    continue
                if isinstance(answer, StoreCorruptError):
                    future.set_exception(answer)
                else:
                    future.set_result(answer)
        finally:
            self._land()

    @property
    def waiting(self) -> int:
        """How many reads wait to be sent."""
        return len(self._waiting)

    async def close(self) -> None:
        """Wait for what is on its way."""
        while self._tasks:
            await asyncio.wait(self._tasks)
