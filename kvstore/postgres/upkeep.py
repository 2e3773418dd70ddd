"""Maintenance, root by root, each in a transaction of its own.

Recording changes, trimming the feed, sweeping expired items, reindexing: none has to be atomic over
several roots, so no two roots are ever locked together. All are idempotent.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any, TypeGuard, assert_never

from kvstore.feed import MOST_CHANGES, lease_after
from kvstore.operations import (
    Adopt,
    Forget,
    Keep,
    Lease,
    OfUpkeep,
    Operation,
    Reindex,
    Sweep,
    Trim,
)
from kvstore.plan import Address
from kvstore.positions import Position, Positions
from kvstore.postgres import declared, index_statements, past, past_statements, statements
from kvstore.postgres.connection import Connection, rows_of
from kvstore.postgres.engine import Writer
from kvstore.postgres.indexing import Indexer, Setup
from kvstore.postgres.keys import decode_key, root_of
from kvstore.postgres.pool import Pool
from kvstore.postgres.roots import RootState, await_roots, lock_root, store_state
from kvstore.postgres.workspace import MakeIndexer, Stamp, Workspace

__all__ = ["Upkeep", "is_upkeep"]

_LAST = "\U0010ffff"  # sorts behind every path


def is_upkeep(ops: Sequence[Operation]) -> TypeGuard[Sequence[OfUpkeep]]:
    """Whether all operations are of this kind."""
    return all(isinstance(op, OfUpkeep) for op in ops)


@dataclass(frozen=True, slots=True)
class Upkeep:
    """Does what a store looks after.

    Attributes:
        pool: whose connections it uses.
        clock: the present instant, in microseconds.
        make_indexer: from the description of a search index to what keeps it.
        setup: what the store brings for the index, if it has one.
        watched: which roots are watched here; `None` among them: all.
        is_news: called when something is committed that those who watch want to know.
        writer: which knows the newest version.
    """

    pool: Pool
    clock: Callable[[], int]
    make_indexer: MakeIndexer
    setup: Setup | None
    watched: Callable[[], set[str | None]]
    is_news: Callable[[], None]
    writer: Writer

    async def apply(self, ops: Sequence[OfUpkeep]) -> list[Any]:
        """Do some, one after the other, and return the answers."""
        return [await self.pool.run_alone(self._run, op) for op in ops]

    async def _run(self, connection: Connection, op: OfUpkeep) -> Any:
        match op:
            case Lease():
                return await self._lease(connection, op)
            case Trim():
                return await self._trim(connection, op)
            case Sweep():
                return await self._sweep(connection, op)
            case Adopt():
                return await self._adopt(connection, op)
            case Reindex():
                return await self._reindex(connection, op)
            case Keep():
                return await past.keep(connection, op, self.clock())
            case Forget():
                return await past.forget(connection, op)
        assert_never(op)

    @asynccontextmanager
    async def _locked(self, connection: Connection, root: str) -> AsyncIterator[Workspace]:
        """Lock a root, and write at the end what has changed."""
        await connection.execute(statements.BEGIN)
        now = self.clock()
        space = await Workspace.lock(connection, root, now, self.writer.newest, self.make_indexer)
        try:
            yield space
            if space.is_changed:
                await space.flush(connection, Stamp())
        except Exception:
            if not connection.is_closed():
                await connection.execute("ROLLBACK")
            raise
        await connection.execute("COMMIT")
        self.writer.learn(space.version)
        if space.is_watched:
            self.is_news()

    # The change feed: what is recorded, and for how long

    async def _lease(self, connection: Connection, op: Lease) -> tuple[Position, Position]:
        """Begin a recording, or prolong the one that there is."""
        until = self.clock() + op.span
        if op.path or not op.subtree:
            root = root_of(op.path)
            version, begin = await self._record(connection, root, until)
            return version, begin
        async with connection.transaction():
            least, before, _ = await store_state(connection, statements.LOCK_STATE)
            await connection.execute(statements.SET_WATCHED_UNTIL, until)
        if not before:
            await await_roots(connection)
        versions, begins = {}, {}
        for root, _ in await connection.fetch(statements.LIST_ROOTS):
            versions[root], begins[root] = await self._record(connection, root, until)
        return Positions(versions, least), Positions(begins, least)

    async def _record(self, connection: Connection, root: str, until: int) -> tuple[int, int]:
        row = None
        if connection.patience is None:
            row = await connection.fetchrow(statements.RECORD, root, until)
        if row is None:
            async with connection.transaction():
                await lock_root(connection, root)
                row = await connection.fetchrow(statements.RECORD, root, until)
        version, begin = row
        return version, begin

    async def _trim(self, connection: Connection, op: Trim) -> int:
        """Do a slice of the feed's upkeep."""
        now, watched = self.clock(), self.watched()
        done = await past.trim(connection, op, now)
        is_kept = await connection.fetchval(past_statements.IS_KEPT)
        await self._end_lease(connection, op, None in watched or bool(is_kept), now)
        for (root,) in await connection.fetch(statements.LIST_RECORDED):
            is_watched = bool({root, None} & watched)
            done += await self._trim_root(
                connection, root, replace(op, limit=op.limit - done, is_watched=is_watched), now
            )
            if done >= op.limit:
                break
        return done

    async def _end_lease(
        self, connection: Connection, op: Trim, is_watched: bool, now: int
    ) -> None:
        """Have no new root recorded once nobody watches all of them."""
        _, until, _ = await store_state(connection)
        if not until or lease_after(until, replace(op, is_watched=is_watched), now) == until:
            return
        if not await connection.fetchval(statements.MAY_LOOK_AFTER_ALL):
            return
        async with connection.transaction():
            _, until, _ = await store_state(connection, statements.LOCK_STATE)
            renewed = lease_after(until, replace(op, is_watched=is_watched), now)
            await connection.execute(statements.SET_WATCHED_UNTIL, renewed)

    async def _trim_root(self, connection: Connection, root: str, op: Trim, now: int) -> int:
        row = await connection.fetchrow(statements.GET_ROOT, root)
        rows = await connection.fetch(statements.GET_OLDEST_CHANGES, root, op.limit)
        if row is not None and RootState.of(root, row).history:  # which has a trim of its own
            op, rows = replace(op, is_watched=True), []
        if row is None or not self._is_due(RootState.of(root, row), op, rows, now):
            return 0
        async with connection.transaction():
            state = await lock_root(connection, root)
            until, begin = self._kept(state, op, rows, now)
            await connection.execute(statements.KEEP_RECORD, root, until, begin)
            done: str = await connection.execute(statements.DELETE_CHANGES, root, begin)
        return rows_of(done)

    def _is_due(self, state: RootState, op: Trim, rows: Sequence[Any], now: int) -> bool:
        kept = self._kept(state, op, rows, now)
        return kept != (state.watched_until, state.changes_begin) or (
            bool(rows) and rows[0]["version"] <= state.changes_begin
        )

    def _kept(self, state: RootState, op: Trim, rows: Sequence[Any], now: int) -> tuple[int, int]:
        """Return until when a root is recorded, and from where on its feed is kept."""
        until = state.watched_until and lease_after(state.watched_until, op, now)
        begin = state.changes_begin
        oldest, least = now - op.history, state.version - MOST_CHANGES
        cut = max(
            (row for row, at in rows if at <= oldest or row <= max(least, begin)), default=begin
        )
        return until, max(begin, cut)

    # What has expired

    async def _sweep(self, connection: Connection, op: Sweep) -> int:
        found: dict[str, list[Address]] = {}
        for root, path, key in await connection.fetch(
            statements.FIND_EXPIRED, self.clock(), op.limit
        ):
            found.setdefault(root, []).append((path, decode_key(key)))
        return sum([await self._sweep_root(connection, root, found[root]) for root in found])

    async def _sweep_root(
        self, connection: Connection, root: str, addresses: Sequence[Address]
    ) -> int:
        async with self._locked(connection, root) as space:
            await space.load(connection, dict.fromkeys(addresses, False))
            over = space.expired(addresses)
            await space.ledger.before_drops(connection, over)
            space.drop("expire", over)
        return len(over)

    # The search index

    async def _adopt(self, connection: Connection, op: Adopt) -> int:
        """Make the index the store's own; return how many items are marked."""
        if self.setup is None:
            return 0
        if op.filters:
            self.setup.declared = await declared.build(connection, op.filters)
        async with connection.transaction():
            *_, text = await store_state(connection, statements.LOCK_STATE)
            if text is not None:
                first = Indexer(text, self.setup)
                first.adopt()
                description = first.take_changes().description
                if description is not None:
                    await connection.execute(statements.SET_INDEX, description)
        await await_roots(connection)
        for root, _ in await connection.fetch(statements.LIST_ROOTS):
            async with self._locked(connection, root) as space:
                if space.indexer is None:
                    continue
                table, is_marked = space.indexer.adopt()
                if table is not None:
                    drop = index_statements.DROP_VECTORS.format(table=table)
                    await connection.execute(drop, root)
                    await connection.execute(index_statements.FORGET_TEXTS, root)
                if is_marked:
                    await connection.execute(index_statements.MARK_ALL, root)
        number: int = await connection.fetchval(index_statements.COUNT_PENDING)
        return number

    async def _reindex(
        self, connection: Connection, op: Reindex
    ) -> tuple[object, int, list[Address]]:
        """Index marked items of one root, and answer what `Reindex` says."""
        if self.setup is None:
            return 0, 0, []
        place = op.after or ("", "", "")
        root = await connection.fetchval(index_statements.FIND_PENDING, *place)
        if root is None:
            await self._complete(connection)
            return 0, 0, []
        after = place[1:] if place[0] == root else ("", "")
        left: list[Address] = []
        async with self._locked(connection, root) as space:
            rows = await connection.fetch(index_statements.GET_PENDING, root, *after, op.limit)
            if rows and space.indexer is not None:
                left = space.indexer.reindex([tuple(row) for row in rows], op)
        if not rows:  # others were quicker
            return await self._reindex(connection, replace(op, after=(root, _LAST, "")))
        last = (root, rows[-1][0], rows[-1][1])
        return last, len(rows), [(path, decode_key(key)) for path, key in left]

    async def _complete(self, connection: Connection) -> None:
        for root, _ in await connection.fetch(statements.LIST_ROOTS):
            async with self._locked(connection, root) as space:
                if space.indexer is not None:
                    space.indexer.complete()
