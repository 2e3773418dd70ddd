"""Reads from a streaming replica; a store sees at least what it has written itself.

After each commit a store remembers the end of the primary's write-ahead log (WAL). A read goes to
the replica only if that has replayed the log up to there, and otherwise to the primary. What others
have written may reach the replica a moment later.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Concatenate, Final, ParamSpec, TypeVar
from weakref import WeakKeyDictionary

from kvstore.errors import StoreAccessError, StoreBusyError
from kvstore.postgres.connection import Connection, Target
from kvstore.postgres.pool import Pool
from kvstore.report import Counters

__all__ = ["Replica"]

P = ParamSpec("P")
T = TypeVar("T")

_RESTS_S: Final = (1.0, 30.0)  # after a failure nobody asks it for so long; each time twice as long

_WRITTEN = "SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::bigint"
_REPLAYED = """
SELECT pg_wal_lsn_diff(
    CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn()
    ELSE pg_current_wal_insert_lsn() END,
    '0/0'
)::bigint
"""
_BEGIN = "BEGIN ISOLATION LEVEL READ COMMITTED READ ONLY"


class _BehindError(Exception):
    """The replica has not replayed yet what the store has written."""


class Replica:
    """A server that reads go to, while it is there and up to date.

    Args:
        target: where to.
        size: how many connections at most.
        counters: of what is done.
        primary: to which reads go that it cannot answer.

    Attributes:
        is_pooler: whether a pooler stands before it: what a read sees there is not of one state.
    """

    def __init__(self, target: Target, size: int, counters: Counters, primary: Pool) -> None:
        self._primary = primary
        self._pool = Pool(target, size, 0.05, counters)
        self.is_pooler = target.is_pooler
        self._needed = 0  # the place in the log that a read must see
        self._is_lost = False  # it is not known
        self._replayed: WeakKeyDictionary[Connection, int] = WeakKeyDictionary()  # by each
        self._rest = _RESTS_S[0]
        self._not_before = 0.0

    async def note(self, connection: Connection) -> None:
        """Have reads from now on see what is committed over a connection to the primary."""
        self._is_lost = True
        self._needed = max(self._needed, await connection.fetchval(_WRITTEN))
        self._is_lost = False

    def forget(self) -> None:
        """Send no reads here before the next `note`: something may be committed without."""
        self._is_lost = True

    async def run(
        self,
        read: Callable[Concatenate[Connection, P], Awaitable[T]],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """Run a read here, or else on the primary."""
        loop = asyncio.get_running_loop()
        if self._is_lost or loop.time() < self._not_before:
            return await self._primary.run(read, *args, **kwargs)

        async def read_if_fresh(connection: Connection) -> T:
            if self._replayed.get(connection, 0) < self._needed:
                replayed = await connection.fetchval(_REPLAYED)
                if replayed is None or replayed < self._needed:  # None: another kind of replica
                    raise _BehindError
                if not self.is_pooler:  # behind one it may be another server next time
                    self._replayed[connection] = replayed
            return await read(connection, *args, **kwargs)

        async def read_in_transaction(connection: Connection) -> T:
            # Not as of one state: that would be the one before the look at how far it is.
            await connection.execute(_BEGIN)
            found = await read_if_fresh(connection)
            await connection.execute("COMMIT")
            return found

        try:
            found = await self._pool.run_alone(
                read_in_transaction if self.is_pooler else read_if_fresh
            )
        except _BehindError:
            pass
        except (StoreAccessError, StoreBusyError):
            self._not_before = loop.time() + self._rest
            self._rest = min(2 * self._rest, _RESTS_S[1])
        else:
            self._rest = _RESTS_S[0]
            return found
        return await self._primary.run(read, *args, **kwargs)

    async def close(self) -> None:
        """Close its connections."""
        await self._pool.close()
