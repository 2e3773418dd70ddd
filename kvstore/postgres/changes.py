"""The change feed in the database: its lease, its upkeep, how a watch reads it and is woken.

Writers record changes exactly while `watched_until` is not 0, and versions are given out in the
order of commits, so that what a reader sees up to a version is all there will ever be up to it.
See kvstore/sqlite/changes.py for the lease, which is the same here.

Whoever has recorded changes notifies a channel after the commit. A store that watches listens to
it on a connection of its own; behind a pooler, which cannot do that, it looks again and again.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from datetime import timedelta
from typing import Any

from kvstore.errors import StoreError
from kvstore.feed import MOST_CHANGES, POLL_S, Bell, ChangePage, lease_after
from kvstore.instants import to_datetime
from kvstore.namespace import decode_namespace, subtree_range
from kvstore.operations import Lease, Trim
from kvstore.patterns import Pattern
from kvstore.postgres import reading, statements
from kvstore.postgres.connection import Connection, DriverError, Target, connect, hang_up
from kvstore.postgres.keys import Address, decode_key
from kvstore.postgres.pool import Link, Pool
from kvstore.types import EPOCH, Change, Item

__all__ = ["Herald", "Listener", "read_changes", "take_lease", "trim"]

_ROWS_AT_ONCE = 1_000
_BYTES_AT_ONCE = 4 * 2**20  # of values, roughly
HEARD_POLL_S = 0.5  # how often a watch looks for what it may not have heard of, such as expiries
_RETRY_S = 1.0  # between two tries to listen
_PAUSE_S = 0.01  # between two notices of one store: each wakes all who watch, everywhere


async def take_lease(
    connection: Connection, op: Lease, version: int, until: int, begin: int, now: int
) -> tuple[int, int]:
    """Begin a recording, or prolong the one that there is.

    Args:
        connection: inside a write transaction.
        op: how long for.
        version: of the store, with what this transaction has written so far.
        until: `watched_until`, as it is.
        begin: `changes_begin`, as it is.
        now: the instant, in microseconds.

    Returns:
        The new ones.
    """
    if until == 0:
        last = await connection.fetchval(statements.GET_LAST_CHANGE)
        if last != version:  # something was written that is not there
            begin = version
            await connection.execute(statements.SET_CHANGES_BEGIN, begin)
    until = now + op.span
    await connection.execute(statements.SET_WATCHED_UNTIL, until)
    return until, begin


async def trim(
    connection: Connection, op: Trim, version: int, until: int, begin: int, now: int
) -> tuple[int, int, int]:
    """Do a slice of the feed's upkeep; the arguments are those of `take_lease`.

    Returns:
        How many rows went, and what `take_lease` returns.
    """
    if until:
        renewed = lease_after(until, op, now)
        if renewed != until:
            until = renewed
            await connection.execute(statements.SET_WATCHED_UNTIL, until)
    rows = await connection.fetch(statements.GET_OLDEST_CHANGES, op.limit)
    if not rows:
        return 0, until, begin
    oldest, least = now - op.history, version - MOST_CHANGES
    cut = max((row for row, at in rows if at <= oldest or row <= max(least, begin)), default=begin)
    if cut > begin:
        begin = cut
        await connection.execute(statements.SET_CHANGES_BEGIN, begin)
    done: str = await connection.execute(statements.DELETE_CHANGES, cut)
    return int(done.rpartition(" ")[2]), until, begin


async def read_changes(
    link: Link, after: int, path: str, pattern: Pattern, subtree: bool, now: int
) -> ChangePage:
    """Return the next changes after a version, with the items as they are a moment later."""
    rows = await link.raw.fetch(statements.READ_CHANGES, after, _ROWS_AT_ONCE, now)
    until, begin, has_expired = rows[0][:3]
    low, high = subtree_range(path)
    seen: list[tuple[int, Any, Address, int]] = []
    position, size = after, 0
    for row in rows:
        version, kind, there, key, length, at = row[3:]
        if version is None:  # there is none
            break
        position = version
        inside = low <= there and (high is None or there < high) if subtree else there == path
        if inside and pattern.matches(decode_key(key)):
            seen.append((version, kind, (there, key), at))
            size += length or 0
            if size > _BYTES_AT_ONCE:
                break
    wanted = list(dict.fromkeys(address for _, kind, address, _ in seen if kind == "put"))
    items = await reading.get_by_address(link.raw, wanted) if wanted else {}
    found = []
    for version, kind, address, at in seen:
        item = items.get(address) if kind == "put" else None
        if item is not None and not _is_live(item, now):
            item = None
        labels = decode_namespace(address[0])
        found.append(Change(kind, labels, decode_key(address[1]), version, to_datetime(at), item))
    return ChangePage(found, position, begin, until, bool(has_expired), now)


def _is_live(item: Item, now: int) -> bool:
    return item.expires_at is None or (item.expires_at - EPOCH) // timedelta(microseconds=1) > now


class Herald:
    """Wakes those who watch in other processes; soon, and once for much news.

    Args:
        pool: whose connections it uses.
        channel: where to notify.
        sender: a number by which the store's own `Listener` knows it.
    """

    def __init__(self, pool: Pool, channel: str, sender: int) -> None:
        self._pool = pool
        self._notify = statements.NOTIFY.format(channel=channel, sender=sender)
        self._is_due = self._is_closing = False
        self._task: asyncio.Task[None] | None = None

    def tell(self) -> None:
        """There is news, and it is committed."""
        self._is_due = True
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run())

    async def _run(self) -> None:
        try:
            while self._is_due:
                self._is_due = False
                with suppress(StoreError):  # who watches looks without it, too, only less soon
                    await self._pool.run_alone(self._send)
                if self._is_due and not self._is_closing:
                    await asyncio.sleep(_PAUSE_S)
        finally:
            self._task = None

    async def _send(self, link: Link) -> None:
        await link.raw.execute(self._notify)

    async def close(self) -> None:
        """Tell what is left to tell."""
        self._is_closing = True
        if self._task is not None:
            await asyncio.gather(self._task, return_exceptions=True)


class Listener:
    """Rings a bell for what others write, while the server lets it.

    It never fails: whoever watches looks for changes without it, too, only less soon.

    Args:
        target: where to listen.
        channel: on which.
        bell: to ring.
        sender: the number of the store's own `Herald`, whose news the bell has rung for already.
    """

    def __init__(self, target: Target, channel: str, bell: Bell, sender: int) -> None:
        self._target = target
        self._channel = channel
        self._own = str(sender)
        self._bell = bell
        self._connection: Connection | None = None
        self._task: asyncio.Task[None] | None = None
        self._not_before = 0.0

    def start(self) -> None:
        """Listen from some moment on, if that is not done already."""
        if self._connection is not None and not self._connection.is_closed():
            self._bell.patience_s = HEARD_POLL_S
            return
        self._bell.patience_s = POLL_S
        loop = asyncio.get_running_loop()
        if self._task is None and not self._target.is_pooler and loop.time() >= self._not_before:
            self._not_before = loop.time() + _RETRY_S
            self._task = loop.create_task(self._listen())

    async def _listen(self) -> None:
        try:
            with suppress(StoreError, *DriverError):
                connection = await connect(self._target)
                try:
                    await connection.add_listener(self._channel, self._heard)
                except BaseException:
                    connection.terminate()
                    raise
                self._connection = connection
                self._bell.ring()  # for what was written before
        finally:
            self._task = None

    def _heard(self, _connection: object, _pid: object, _channel: object, sender: object) -> None:
        if sender != self._own:
            self._bell.ring()

    async def close(self) -> None:
        """Listen no more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self._connection is not None:
            await hang_up(self._connection)
            self._connection = None
