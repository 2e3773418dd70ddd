"""The change feed in the database: how a watch reads it and is woken.

Writers record changes exactly while their root's `watched_until` is not 0, and versions of a root
are given out in the order of commits: what a reader sees up to a version is all there will ever be
up to it. See kvstore/sqlite/changes.py for the lease, and kvstore/postgres/upkeep.py.

Whoever has recorded changes notifies a channel after the commit. A store that watches listens to
it on a connection of its own; behind a pooler, which cannot do that, it looks again and again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from hashlib import blake2b
from random import getrandbits
from typing import Any, NamedTuple

from kvstore.errors import StoreError
from kvstore.feed import ChangePage
from kvstore.instants import to_datetime
from kvstore.namespace import decode_namespace, is_within, root_of
from kvstore.patterns import Pattern
from kvstore.positions import Position, Positions
from kvstore.postgres import past_statements, statements
from kvstore.postgres.connection import (
    Connection,
    DriverError,
    connect,
    hang_up,
    snapshot,
)
from kvstore.postgres.keys import decode_key, encode_key
from kvstore.postgres.pool import Pool
from kvstore.postgres.reading import item_of
from kvstore.postgres.roots import store_state
from kvstore.types import Change
from kvstore.waiting import POLL_S, Bell

__all__ = ["News", "read_changes"]

_ROWS_AT_ONCE = 1_000
_BYTES_AT_ONCE = 4 * 2**20  # of values, roughly
HEARD_POLL_S = 0.5  # how often a watch looks for what it may not have heard of, such as expiries
_RETRY_S = 1.0  # between two tries to listen
_PAUSE_S = 0.05  # between two notices of one store: each wakes all who watch, everywhere


async def read_changes(
    connection: Connection, now: int, after: Position, path: str, pattern: Pattern, subtree: bool
) -> ChangePage:
    """Return the next changes after a position, with the items as they are at that instant."""
    if isinstance(after, Positions):
        async with snapshot(connection):
            return await _read_roots(connection, after, pattern, now)
    has_expired = await connection.fetchval(statements.IS_ANY_EXPIRED, now)
    read = await _read_root(connection, root_of(path), after)
    found = [
        row.change(now)
        for row in read.rows
        if is_within(row.path, path, subtree) and pattern.matches(row.key)
    ]
    newest = read.rows[-1].version if read.rows else after
    return ChangePage(found, newest, read.begin, read.until, bool(has_expired), now)


class _Row(NamedTuple):
    """An entry of the feed, and what is left of the item; `is_kept`: that is as it then was."""

    version: int
    kind: Any
    path: str
    key: str
    at: int
    values: Sequence[Any]
    is_kept: bool

    def change(self, now: int, position: Positions | None = None) -> Change:
        """Return what a watch gets."""
        labels = decode_namespace(self.path)
        item = None
        if self.kind == "put" and self.values[0] is not None:
            expires_at = self.values[4]
            if self.is_kept or expires_at is None or expires_at > now:
                item = item_of(labels, self.key, self.values)
        at = to_datetime(self.at)
        return Change(self.kind, labels, self.key, self.version, at, item, position)


class _Read(NamedTuple):
    """What was read of the feed of a root."""

    until: int
    begin: int
    rows: list[_Row]
    is_all: bool


async def _read_root(connection: Connection, root: str, after: int) -> _Read:
    found = await connection.fetch(
        statements.READ_CHANGES, root, after, _ROWS_AT_ONCE, _BYTES_AT_ONCE
    )
    if not found:  # nothing was ever written under it
        return _Read(0, 0, [], True)
    until, begin, is_kept = found[0][:3]
    rows = [
        _Row(version, kind, path, decode_key(key), at, values, is_kept)
        for _, _, _, version, kind, path, key, at, *values, size in map(tuple, found)
        if version is not None
    ]
    if is_kept:
        rows = await _as_they_were(connection, root, rows)
    return _Read(until, begin, rows, len(rows) < _ROWS_AT_ONCE and _is_small(rows))


async def _as_they_were(connection: Connection, root: str, rows: list[_Row]) -> list[_Row]:
    """Give the puts the items as they then were."""
    later = [row for row in rows if row.kind == "put" and row.values[1] != row.version]
    if not later:
        return rows
    columns = [row.path for row in later], [encode_key(row.key) for row in later]
    found = await connection.fetch(
        past_statements.GET_PUTS, root, *columns, [row.version for row in later]
    )
    past = {row["version"]: tuple(row)[2:7] for row in found}
    gone = (None,) * 5
    return [
        row._replace(values=past.get(row.version, gone)) if row in later else row for row in rows
    ]


def _is_small(rows: Sequence[_Row]) -> bool:
    return sum(len(row.values[0] or "") for row in rows) < _BYTES_AT_ONCE // 4  # bytes a character


async def _read_roots(
    connection: Connection, after: Positions, pattern: Pattern, now: int
) -> ChangePage:
    """As `read_changes`, of all roots.

    Each counts versions of its own, but a program that writes under several gives its own in
    order: so they come by version, as far as all have been read.
    """
    has_expired = await connection.fetchval(statements.IS_ANY_EXPIRED, now)
    _, lease, _ = await store_state(connection)
    here = after.roots
    begins: dict[str, int] = {}
    ahead: dict[str, int] = {}
    read: list[tuple[int, str, _Row]] = []
    limit: int | None = None
    for root, version, until, begin in await connection.fetch(statements.LIST_FEEDS):
        lease = min(lease, until)
        begins[root] = begin
        seen = here.get(root, after.least)
        if version <= seen or begin > seen:
            continue
        found = await _read_root(connection, root, seen)
        read += [(row.version, root, row) for row in found.rows]
        if found.is_all and until:
            ahead[root] = version
        elif found.rows:
            last = found.rows[-1].version
            limit = last if limit is None else min(limit, last)
    read.sort(key=lambda each: each[:2])
    if limit is not None:
        read = [each for each in read if each[0] <= limit]
        ahead = {root: version for root, version in ahead.items() if version <= limit}
    trail = [(root, version) for version, root, _ in read]
    changes = [
        row.change(now, Positions(here, after.least, trail, number))
        for number, (_, _, row) in enumerate(read, 1)
        if pattern.matches(row.key)
    ]
    position = Positions({**here, **dict(trail), **ahead}, after.least)
    begin_of_all = Positions(begins, after.least)
    return ChangePage(changes, position, begin_of_all, lease, bool(has_expired), now)


class News:
    """Wakes those who watch in other processes, and hears of what is written there.

    It never fails: whoever watches looks for changes without it, too, only less soon.

    Args:
        pool: of the store; over its connections others are told.
        bell: rung for what others write.
    """

    def __init__(self, pool: Pool, bell: Bell) -> None:
        self._pool = pool
        self._bell = bell
        schema = pool.target.schema or ""
        self._channel = f"kvstore_{blake2b(schema.encode(), digest_size=8).hexdigest()}"
        self._own = str(getrandbits(62))  # by which it knows what it has told itself
        self._is_due = self._is_closing = False
        self._telling: asyncio.Task[None] | None = None
        self._not_told_before = 0.0
        self._age = pool.age
        self._connection: Connection | None = None  # that listens
        self._listening: asyncio.Task[None] | None = None
        self._not_tried_before = 0.0

    def tell(self) -> None:
        """There is news, and it is committed: others hear of it soon, and once of much."""
        self._is_due = True
        if self._telling is None:
            self._telling = asyncio.get_running_loop().create_task(self._tell())

    async def _tell(self) -> None:
        loop = asyncio.get_running_loop()
        notify = statements.NOTIFY.format(channel=self._channel, sender=self._own)
        try:
            while self._is_due:
                if not self._is_closing:
                    await asyncio.sleep(self._not_told_before - loop.time())
                self._is_due = False
                with suppress(StoreError):
                    await self._pool.run_alone(lambda connection: connection.execute(notify))
                self._not_told_before = loop.time() + _PAUSE_S
        finally:
            self._telling = None

    def listen(self) -> None:
        """Hear of others from some moment on, if that is not done already, and if it can be."""
        if self._connection is not None and self._age != self._pool.age:  # of a server that is left
            self._connection.terminate()
        if self._connection is not None and not self._connection.is_closed():
            self._bell.patience_s = HEARD_POLL_S
            return
        self._bell.patience_s = POLL_S
        loop = asyncio.get_running_loop()
        may_try = not self._pool.target.is_pooler and loop.time() >= self._not_tried_before
        if self._listening is None and may_try:
            self._not_tried_before = loop.time() + _RETRY_S
            self._listening = loop.create_task(self._listen())

    async def _listen(self) -> None:
        try:
            with suppress(StoreError, *DriverError):
                self._age = self._pool.age
                connection = await connect(self._pool.target)
                try:
                    await connection.add_listener(self._channel, self._heard)
                except BaseException:
                    connection.terminate()
                    raise
                self._connection = connection
                self._bell.ring()  # for what was written before
        finally:
            self._listening = None

    def _heard(self, _connection: object, _pid: object, _channel: object, sender: object) -> None:
        if sender != self._own:
            self._bell.ring()

    async def close(self) -> None:
        """Tell what is left to tell, and listen no more."""
        self._is_closing = True
        if self._listening is not None:
            self._listening.cancel()
        doing = [task for task in (self._telling, self._listening) if task is not None]
        await asyncio.gather(*doing, return_exceptions=True)
        if self._connection is not None:
            await hang_up(self._connection)
            self._connection = None
