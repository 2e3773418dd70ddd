"""`PostgresStore`: the primitives of `Store` over a PostgreSQL database."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from hashlib import blake2b
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

from kvstore.errors import InvalidArgumentError
from kvstore.filters import Filter
from kvstore.instants import to_micros
from kvstore.operations import Operation, Record
from kvstore.patterns import Pattern
from kvstore.postgres import changes, checking, reading, statements
from kvstore.postgres.connection import (
    Connection,
    Link,
    Pool,
    Target,
    connect,
    hang_up,
    translated,
)
from kvstore.postgres.engine import Writer
from kvstore.postgres.indexing import (
    Indexer,
    Setup,
    count_pending,
    find_extension,
    prepare_index,
)
from kvstore.postgres.migrate import migrate, require_migrated
from kvstore.postgres.points import PointReader
from kvstore.postgres.replica import Replica
from kvstore.postgres.searching import search
from kvstore.ranking import Search
from kvstore.report import Meter, Report, Stats
from kvstore.store import NamespaceQuery, Page, Selection, Store, check_seconds
from kvstore.types import IndexConfig, Item, Namespace
from kvstore.watching import ChangePage

__all__ = ["PostgresStore"]

P = ParamSpec("P")
T = TypeVar("T")

_MOST_CONNECTIONS = 1_000
_MOST_DIMENSIONS = 16_000  # of pgvector


class PostgresStore(Store):
    """A store in a PostgreSQL database, shared by many tasks, processes and machines.

    Its tables (`kvstore_items` and others of that prefix) are made by the first `open`, in the
    first schema of the session's `search_path`; so several stores can share a database, each in a
    schema of its own: `postgresql://user@host/db?search_path=kv`. The database's encoding must be
    UTF8. A namespace and a key together take 2,600 bytes at most.

    Args:
        url: `postgresql://user:password@host:5432/database`, as libpq has it.
        index: what to index for search; `None`: nothing.
        pool_size: how many connections reads may open; a writer has one more, and so has a
            store that watches.
        busy_timeout: how long a call waits for other writers, for a free connection, or for a
            server that restarts, in seconds, before `StoreBusyError` or `StoreAccessError`.
        pooler: whether the URL is that of a pooler in transaction mode, such as PgBouncer: then
            nothing outlives a transaction (no prepared statements, no LISTEN), which costs some
            round trips. `?pooler=true` in the URL says the same.
        read_url: of a streaming replica of that database, to which reads go while it is up to
            date: what this store has written, its reads see. What is written elsewhere they may
            see a moment later. `check`, `stats` and watches ask the primary.
        options: those of `Store`: `default_ttl`, `refresh_ttl`, `max_value_bytes`, `clock`,
            `sweep_interval`, `history`.
    """

    _most_dimensions = _MOST_DIMENSIONS

    def __init__(
        self,
        url: str,
        *,
        index: IndexConfig | None = None,
        pool_size: int = 10,
        busy_timeout: float = 5.0,
        pooler: bool = False,
        read_url: str | None = None,
        **options: Any,
    ) -> None:
        super().__init__(index=index, **options)
        if not isinstance(url, str):
            raise InvalidArgumentError(f"a PostgreSQL URL is a str, not {type(url).__name__}")
        if isinstance(pool_size, bool) or not isinstance(pool_size, int):
            raise InvalidArgumentError(f"pool_size is an int, not {type(pool_size).__name__}")
        if not 0 < pool_size <= _MOST_CONNECTIONS:
            raise InvalidArgumentError(
                f"pool_size is a number of connections, 1 to {_MOST_CONNECTIONS}, not {pool_size}"
            )
        check_seconds(busy_timeout, "busy_timeout")
        self._target = Target.parse(url, is_pooler=pooler)
        self._read_target: Target | None = None
        if read_url is not None:
            self._read_target = Target.parse(read_url, is_pooler=pooler)
        self._pool_size = pool_size
        self._busy_timeout = float(busy_timeout)
        self._setup: Setup | None = None
        if index is not None:
            model = None if self._embedder is None else self._embedder.model_id
            self._setup = Setup(index.fields, model, None)

    @classmethod
    def with_embeddings(cls, url: str, model: Any, **options: Any) -> Self:
        """Short for `PostgresStore(url, index=IndexConfig(model))`."""
        return cls(url, index=IndexConfig(model), **options)

    def _is_same(self, other: Store) -> bool:
        return isinstance(other, PostgresStore) and self._target == other._target

    # Lifecycle

    async def _open(self) -> None:
        target = self._target
        replica = None
        if self._read_only:
            target = replace(target, is_read_only=True)
        if self._read_target is not None:
            replica = Replica(self._read_target, self._pool_size)
        connection = await connect(target, lock_timeout=self._busy_timeout)
        try:
            if self._read_only:
                await require_migrated(connection, target)
            else:
                await migrate(connection, target)
            channel = await self._prepare(connection)
            if replica is not None:
                with translated(target.name):
                    await replica.note(connection)
        except BaseException:
            connection.terminate()
            raise
        self._pool = Pool(target, self._pool_size, self._busy_timeout)
        self._replica = replica
        is_direct = replica is None and not target.is_pooler
        self._points = PointReader(self._read, self._now, self._pool if is_direct else None)
        self._listener = changes.Listener(target, channel, self._bell)
        if self._read_only:
            await hang_up(connection)
            return
        self._writer = Writer(
            target,
            connection,
            clock=self._clock,
            busy_timeout=self._busy_timeout,
            bell=self._bell,
            backlog=self._backlog,
            make_indexer=lambda description: Indexer(description, self._setup),
            channel=channel,
            replica=replica,
        )

    async def _prepare(self, connection: Connection) -> str:
        """Make the index, if this store has one and there is none; return the channel's name.

        A store that is read-only makes nothing, and uses what is there.
        """
        with translated(self._target.name):
            async with connection.transaction():
                schema = await connection.fetchval("SELECT current_schema()")
                if self._setup is not None:
                    self._learn_dimensions()
                    if self._read_only:
                        await find_extension(connection, self._setup)
                    else:
                        await connection.fetchrow(statements.LOCK_STATE)
                        await prepare_index(connection, self._setup)
        return f"kvstore_{blake2b(schema.encode(), digest_size=8).hexdigest()}"

    async def _close(self) -> None:
        if not self._read_only:
            await self._writer.close()
        await self._points.close()
        await self._listener.close()
        if self._replica is not None:
            await self._replica.close()
        await self._pool.close()

    def _now(self) -> int:
        return to_micros(self._clock())

    # Read

    def _read(
        self, read: Callable[Concatenate[Link, P], Awaitable[T]], *args: P.args, **kwargs: P.kwargs
    ) -> Awaitable[T]:
        """Run a read, on the replica if that will do."""
        if self._replica is None:
            return self._pool.run(read, *args, **kwargs)
        return self._replica.run(self._pool, read, *args, **kwargs)

    def _get(self, namespace: Namespace, path: str, key: str) -> Awaitable[list[Item]]:
        return self._points.get(namespace, path, key)

    async def _get_many(self, namespace: Namespace, path: str, keys: Sequence[str]) -> list[Item]:
        if len(keys) == 1:
            return await self._points.get(namespace, path, keys[0])
        return await self._read(reading.get_many, namespace, path, keys, self._now())

    async def _select(self, path: str, selection: Selection) -> list[Item]:
        return await self._read(reading.select, path, selection, self._now())

    async def _list_namespaces(
        self, asked: NamespaceQuery, limit: int | None, offset: int
    ) -> list[Namespace]:
        return await self._read(reading.list_namespaces, asked, limit, offset, self._now())

    async def _keys(
        self, path: str, pattern: Pattern, subtree: bool, limit: int | None
    ) -> list[str]:
        return await self._read(reading.keys, path, pattern, subtree, limit, self._now())

    async def _count(self, path: str, pattern: Pattern, subtree: bool) -> int:
        return await self._read(reading.count, path, pattern, subtree, self._now())

    async def _page(
        self,
        path: str,
        pattern: Pattern,
        filter: Filter,
        subtree: bool,
        after: tuple[str, str] | None,
        limit: int,
    ) -> Page:
        now = self._now()
        return await self._read(reading.page, path, pattern, filter, subtree, after, limit, now)

    async def _records(
        self, path: str, after: tuple[str, str] | None, limit: int
    ) -> tuple[list[Record], tuple[str, str] | None]:
        return await self._read(reading.records, path, after, limit, self._now())

    async def _read_changes(
        self, after: int, path: str, pattern: Pattern, subtree: bool
    ) -> ChangePage:
        self._listener.start()
        now = self._now()
        return await self._pool.run(changes.read_changes, after, path, pattern, subtree, now)

    async def _search(self, path: str, asked: Search) -> list[Item]:
        setup = self._setup
        assert setup is not None
        self._learn_dimensions()

        async def run(link: Link) -> list[Item]:
            return await search(link.raw, setup, path, asked, self._now())

        if self._replica is not None:
            return await self._replica.run_alone(self._pool, run)
        return await self._pool.run_alone(run)

    # Write

    def _apply(self, ops: Sequence[Operation]) -> Awaitable[list[Any]]:
        if self._embedder is None:
            return self._writer.apply(ops)
        self._learn_dimensions()
        return self._with_vectors(self._writer.apply, ops)

    def _learn_dimensions(self) -> None:
        if self._setup is not None and self._embedder is not None:
            self._setup.dimensions = self._embedder.dimensions

    # Upkeep

    async def _check(self, meter: Meter) -> Report:
        return await self._pool.run_alone(checking.check, meter)

    async def _stats(self) -> Stats:
        return await self._pool.run_alone(reading.stats, self._now(), count_pending)

    async def _vacuum(self) -> int:
        """Run VACUUM; it gives back what is free at the end of the tables, and locks nobody out."""
        connection = await connect(self._target)
        try:
            with translated(self._target.name):
                before = await self._pool.run(reading.size)
                for table in ("kvstore_items", "kvstore_changes", "kvstore_state"):
                    await connection.execute(f"VACUUM (ANALYZE) {table}")
                after = await self._pool.run(reading.size)
        finally:
            await asyncio.shield(hang_up(connection))
        return max(0, before - after)
