"""`PostgresStore`, a store in a PostgreSQL database, and the backend that it has."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Concatenate, Literal, ParamSpec, Self, TypeVar

from kvstore.arguments import check_seconds
from kvstore.backend import Backend, Selection, Settings
from kvstore.embedding import Embedder
from kvstore.errors import InvalidArgumentError, SchemaError
from kvstore.index_plan import LatelyPut, texts_of_put
from kvstore.jobs import SequenceRecord
from kvstore.namespace import decode_namespace, root_of, show
from kvstore.operations import (
    Adopt,
    Embedded,
    OfUpkeep,
    Operation,
    Put,
    PutColumns,
    Reindex,
    named_of,
)
from kvstore.plan import Address
from kvstore.postgres import (
    changes,
    checking,
    declared,
    past,
    reading,
    selecting,
    sequence_reading,
    statements,
)
from kvstore.postgres.backup import backup
from kvstore.postgres.connection import (
    Connection,
    Target,
    connect_when_ready,
    hang_up,
    lacks_table,
    plan_once,
    require_own_session,
    translated,
)
from kvstore.postgres.distributed import distribute, is_distributed
from kvstore.postgres.engine import Writer
from kvstore.postgres.index_setup import (
    find_extension,
    lengths_of,
    make_vectors,
    prepare_index,
)
from kvstore.postgres.indexing import Indexer, Setup
from kvstore.postgres.migrate import migrate, require_migrated
from kvstore.postgres.points import PointReader
from kvstore.postgres.pool import Pool
from kvstore.postgres.replica import Replica
from kvstore.postgres.searching import sample_vectors, search
from kvstore.postgres.target import STATEMENT_TIMEOUT_S
from kvstore.postgres.upkeep import Upkeep, is_upkeep
from kvstore.postgres.workspace import find_unembedded
from kvstore.ranking import Search
from kvstore.report import Meter, Metrics, Report
from kvstore.store import Store
from kvstore.types import Change, IndexConfig, Item, Namespace

__all__ = ["PostgresBackend", "PostgresStore"]

P = ParamSpec("P")
T = TypeVar("T")

_MOST_CONNECTIONS = 1_000


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
        statement_timeout: how long the server may work on one statement, in seconds, before
            `StoreBusyError`; `None`: as long as it takes. A limit of the server's own that is
            shorter stays. `vacuum` and making or changing the tables have none.
        pooler: whether the URL is that of a pooler in transaction mode, such as PgBouncer: then
            nothing outlives a transaction (no prepared statements, no LISTEN), which costs some
            round trips. `?pooler=true` in the URL says the same.
        read_url: of a streaming replica of that database, to which reads go while it is up to
            date: what this store has written, its reads see. What is written elsewhere they may
            see a moment later. `check`, `stats` and watches ask the primary.
        distributed: spread the tables over the machines of a Citus cluster, by root label;
            `?distributed=true` in the URL says the same. A store that is spread already is found
            to be so.
        cross_root: of a store that is spread: `"unisolated"` lets `transact` write under several
            roots, atomically, though a reader may see half of it for a moment; `None`: it is
            refused.
        options: those of `Store`: `default_ttl`, `refresh_ttl`, `max_value_bytes`, `clock`,
            `sweep_interval`, `history`.
    """

    backend: PostgresBackend

    def __init__(
        self,
        url: str,
        *,
        index: IndexConfig | None = None,
        pool_size: int = 10,
        busy_timeout: float = 5.0,
        statement_timeout: float | None = STATEMENT_TIMEOUT_S,
        pooler: bool = False,
        read_url: str | None = None,
        distributed: bool = False,
        cross_root: Literal["unisolated"] | None = None,
        **options: Any,
    ) -> None:
        if not isinstance(url, str):
            raise InvalidArgumentError(f"a PostgreSQL URL is a str, not {type(url).__name__}")
        if isinstance(pool_size, bool) or not isinstance(pool_size, int):
            raise InvalidArgumentError(f"pool_size is an int, not {type(pool_size).__name__}")
        if not 0 < pool_size <= _MOST_CONNECTIONS:
            raise InvalidArgumentError(
                f"pool_size is a number of connections, 1 to {_MOST_CONNECTIONS}, not {pool_size}"
            )
        check_seconds(busy_timeout, "busy_timeout")
        if statement_timeout is not None:
            check_seconds(statement_timeout, "statement_timeout")
        parse = partial(
            Target.parse,
            is_pooler=pooler,
            is_distributed=distributed,
            busy_timeout=float(busy_timeout),
            statement_timeout=statement_timeout or None,
        )
        read_target = None if read_url is None else parse(read_url)
        target = parse(url)
        if cross_root not in (None, "unisolated"):
            raise InvalidArgumentError(f"cross_root is 'unisolated' or None, not {cross_root!r}")
        backend = PostgresBackend(target, read_target, pool_size, cross_root == "unisolated")
        super().__init__(backend, index=index, **options)
        self._shown = target.name

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._shown!r})"

    @classmethod
    def with_embeddings(cls, url: str, model: Any, **options: Any) -> Self:
        """Short for `PostgresStore(url, index=IndexConfig(model))`."""
        return cls(url, index=IndexConfig(model), **options)


def _read(
    ask: Callable[Concatenate[Connection, int, P], Awaitable[T]],
    *,
    of_primary: bool = False,
    is_awaited: bool = False,
) -> Callable[Concatenate[PostgresBackend, P], Coroutine[Any, Any, T]]:
    """Make a method of what reads over a connection, at an instant.

    Args:
        ask: that reads.
        of_primary: it asks no replica.
        is_awaited: nor does it, and its caller may wait for what is new.
    """

    async def method(self: PostgresBackend, /, *args: P.args, **kwargs: P.kwargs) -> T:
        if is_awaited:
            self._news.listen()
        pool = self._pool if of_primary or is_awaited else self._reads
        return await pool.run(ask, self.now(), *args, **kwargs)

    return method


class PostgresBackend(Backend):
    """Rows in a PostgreSQL database.

    Args:
        target: where to.
        read_target: a replica of it; `None`: there is none.
        pool_size: how many connections reads may open.
        may_cross: whether several roots may be written together where they are spread.
    """

    can_order = True
    most_dimensions = 16_000  # of pgvector's type
    has_sequences = True
    keeps_history = True

    def __init__(
        self,
        target: Target,
        read_target: Target | None,
        pool_size: int,
        may_cross: bool,
    ) -> None:
        super().__init__()
        self.target = target
        self._read_target = read_target
        self._pool_size = pool_size
        self._may_cross = may_cross
        self._setup: Setup | None = None
        self._lately = LatelyPut()
        self._looks: dict[Address, asyncio.Task[Sequence[str]]] = {}  # the last one at an item

    def attach(
        self, settings: Settings, index: IndexConfig | None, embedder: Embedder | None
    ) -> None:
        super().attach(settings, index, embedder)
        if index is not None:
            self._setup = Setup.of(index, embedder, serves_part=settings.reindex)
        self.encodes_late = index is None

    # Lifecycle

    async def open(self) -> None:
        target = replace(self.target, is_read_only=self.settings.read_only)
        connection = await connect_when_ready(target)
        try:
            with translated(target.name):
                await self._begin(connection, replace(target, schema=connection.schema))
        except BaseException:
            connection.terminate()
            raise
        if self.settings.read_only:
            await hang_up(connection)

    async def _begin(self, connection: Connection, target: Target) -> None:
        """Have everything ready; whoever may write keeps the connection."""
        self._schema = target.schema
        self._making_tables = asyncio.Lock()
        target = await self._migrated(connection, target)
        self.target = replace(self.target, is_distributed=target.is_distributed)
        newest = await self._prepare(connection)
        self._pool = Pool(target, self._pool_size, target.busy_timeout, self.counters)
        self._reads: Pool | Replica = self._pool
        self._replica = replica = await self._replica_of(connection, target)
        if replica is not None:
            self._reads = replica
        is_direct = replica is None and not target.is_pooler
        self._points = PointReader(self._reads.run, self.now, self._pool if is_direct else None)
        self._news = changes.News(self._pool, self.bell)
        if self.settings.read_only:
            return
        await plan_once(connection, target)
        self._writer = Writer(
            target,
            connection,
            most=max(2, self._pool_size),
            least=newest,
            clock=self.settings.clock,
            bell=self.bell,
            backlog=self.backlog,
            counters=self.counters,
            make_indexer=self._make_indexer,
            tell=self._news.tell,
            watchman=self._pool.watchman,
            demoted=self._pool.renew,
            replica=replica,
        )
        self._upkeep = Upkeep(
            *(self._pool, self.now, self._make_indexer, self._setup, self._watched, self._tell),
            self._writer,
        )

    async def _replica_of(self, connection: Connection, target: Target) -> Replica | None:
        """Have a replica serve reads that need no more than there is by now, if there is one."""
        if self._read_target is None:
            return None
        there = replace(self._read_target, schema=target.schema)
        replica = Replica(there, self._pool_size, self.counters, self._pool)
        await replica.note(connection)
        return replica

    async def _migrated(self, connection: Connection, target: Target) -> Target:
        """Have the tables there, as this version has them; return what is known of them."""
        await require_own_session(connection, target)
        if self.settings.read_only:
            await require_migrated(connection, target.name)
        else:
            await migrate(connection, target.name)
            if target.is_distributed or await is_distributed(connection):
                await distribute(connection, target.name)
        target = replace(target, is_distributed=await is_distributed(connection))
        if target.is_distributed and not connection.is_distributed:
            connection.spread(target)
        return target

    async def _prepare(self, connection: Connection) -> int:
        """Make the index, if this store has one and there is none; return the newest version.

        A store that is read-only makes nothing, and uses what is there.
        """
        if self._setup is not None:
            if not self.settings.read_only:
                await prepare_index(connection, self._setup)
            elif self._setup.model is not None:
                async with connection.transaction():
                    await find_extension(connection, self._setup, may_create=False)
            if self.index is not None and self.index.filters:
                self._setup.declared = await (
                    declared.built(connection)
                    if self.settings.read_only
                    else declared.prepare(connection, self.index.filters)
                )
        async with connection.transaction():
            newest: int = await connection.fetchval(statements.GET_NEWEST) or 0
        return newest

    def _make_indexer(self, description: str) -> Indexer:
        return Indexer(description, self._setup)

    def _watched(self) -> set[str | None]:
        """Return the roots that this store watches; `None` among them: all."""
        return {
            root_of(watch.path) if watch.path or not watch.subtree else None
            for watch in self.bell.watches
        }

    def _tell(self) -> None:
        """Wake those who watch, here and elsewhere."""
        self.bell.ring()
        self._news.tell()

    async def close(self) -> None:
        if not self.settings.read_only:
            await self._writer.close()
        await self._points.close()
        await self._news.close()
        if self._replica is not None:
            await self._replica.close()
        await self._pool.close()

    # Read

    def get(self, namespace: Namespace, path: str, key: str) -> Awaitable[list[Item]]:
        return self._points.get(namespace, path, key)

    async def get_many(self, namespace: Namespace, path: str, keys: Sequence[str]) -> list[Item]:
        if len(keys) == 1:
            return await self._points.get(namespace, path, keys[0])
        return await self._reads.run(reading.get_many, self.now(), namespace, path, keys)

    async def select(self, path: str, selection: Selection) -> list[Item]:
        known = {} if self._setup is None else self._setup.declared
        return await self._reads.run(selecting.select, self.now(), path, selection, known)

    list_namespaces = _read(reading.list_namespaces)
    keys = _read(reading.keys)
    count = _read(reading.count)
    page = _read(reading.page)
    records = _read(reading.records)
    items_before = _read(reading.items_before)

    # What is new elsewhere is not on a replica yet, and may be waited for

    read_changes = _read(changes.read_changes, is_awaited=True)
    entries = _read(sequence_reading.entries, is_awaited=True)
    is_ripe = _read(sequence_reading.is_ripe, is_awaited=True)
    length = _read(sequence_reading.length, of_primary=True)
    queue_size = _read(sequence_reading.queue_size, of_primary=True)
    dead_jobs = _read(sequence_reading.dead_jobs, of_primary=True)
    moment = _read(past.find_moment, of_primary=True)
    past_many = _read(past.get_many, of_primary=True)
    past_page = _read(past.page, of_primary=True)

    async def history(self, path: str, key: str, limit: int | None) -> list[Change]:
        return await self._pool.run(past.history, path, key, limit)

    async def sequences(self, path: str, *, with_jobs: bool = True) -> list[SequenceRecord]:
        return await self._pool.run(sequence_reading.records, path, with_jobs)

    async def sample_vectors(self, path: str, limit: int) -> list[tuple[str, str, bytes]]:
        return await self._pool.run(sample_vectors, path, limit)

    async def search(self, path: str, asked: Search) -> list[Item]:
        setup, reads = self._setup, self._reads
        assert setup is not None
        if self._replica is not None and self._replica.is_pooler:
            reads = self._pool  # which it all sees as of one moment
        return await self._with_tables(
            lambda: reads.run(search, self.now(), setup, path, asked), set()
        )

    # Write

    async def unembedded(self, ops: Sequence[Operation]) -> Sequence[str]:
        """As the backend has it: asked only where the write itself would not look first.

        And only of puts with new texts: all others go in the order of the calls. Those of one item
        end in that order, so that what is asked for first is written first.
        """
        texts = [op for op in ops if isinstance(op, Embedded) and not op.vectors]
        puts = [op for op in texts if isinstance(op, Put)]
        if self._setup is None or len(puts) < len(texts) or not puts:
            return ()
        is_known = self._lately.knows(puts, self._setup.fields)
        places = dict.fromkeys((op.path, op.key) for op in puts)
        before = {self._looks[at] for at in places if at in self._looks}
        if before:  # what they have put may not be there yet
            is_known = not any(texts_of_put(op, self._setup.fields) for op in puts)
        if is_known or not (before or self._writer.locks_first(ops)):
            return ()
        looking = asyncio.create_task(self._look(ops, before))
        self._looks |= dict.fromkeys(places, looking)
        looking.add_done_callback(partial(self._forget_look, places))
        return await asyncio.shield(looking)

    async def _look(
        self, ops: Sequence[Operation], before: set[asyncio.Task[Sequence[str]]]
    ) -> Sequence[str]:
        named: Any = ops
        try:
            return await self._pool.run(find_unembedded, named, self.now(), self._make_indexer)
        finally:
            if before:
                await asyncio.wait(before)

    def _forget_look(self, places: Iterable[Address], done: asyncio.Task[Sequence[str]]) -> None:
        for at in places:
            if self._looks.get(at) is done:
                del self._looks[at]
        if not done.cancelled():
            done.exception()  # told to its caller, if that is still there

    def apply(self, ops: Sequence[Operation]) -> Awaitable[list[Any]]:
        if is_upkeep(ops):
            return self._look_after(ops)
        if isinstance(ops, PutColumns):
            return self._writer.apply(ops)
        if self.target.is_distributed and not self._may_cross:
            _require_one_root(ops)
        if self._setup is not None and (self._setup.has_vectors or lengths_of(ops)):
            return self._apply_vectors(ops)
        return self._writer.apply(ops)

    async def _look_after(self, ops: Sequence[OfUpkeep]) -> list[Any]:
        if self._setup is not None:
            await self._make_tables(lengths_of(ops))
        replica = self._replica
        if replica is None or not any(isinstance(op, (Adopt, Reindex)) for op in ops):
            return await self._upkeep.apply(ops)
        replica.forget()  # it has not what is indexed now
        answers = await self._upkeep.apply(ops)
        await self._pool.run_alone(replica.note)
        return answers

    async def _apply_vectors(self, ops: Sequence[Operation]) -> list[Any]:
        lengths = lengths_of(ops)
        await self._make_tables(lengths)
        return await self._with_tables(lambda: self._writer.apply(ops), lengths)

    async def _with_tables(self, call: Callable[[], Awaitable[T]], lengths: set[int]) -> T:
        """Do what needs tables for vectors; once more if one that was known turns out to be gone.

        Somebody may have dropped it, or the server is a younger one by now.
        """
        assert self._setup is not None
        try:
            return await call()
        except SchemaError as exc:
            if self.settings.read_only or not lacks_table(exc.__cause__):
                raise
            lengths |= self._setup.forget_tables()
        await self._make_tables(lengths)
        return await call()

    async def _make_tables(self, lengths: set[int]) -> None:
        """Make the tables for vectors, which are known by the first that come.

        A crowd of first writers waits for one of them, over one connection.
        """
        assert self._setup is not None
        if lengths <= self._setup.lengths:
            return
        async with self._making_tables:
            missing = lengths - self._setup.lengths
            if not missing:
                return
            async with self._connection(self.target) as connection:
                for length in sorted(missing):
                    await make_vectors(connection, self._setup, length)

    @asynccontextmanager
    async def _connection(self, target: Target) -> AsyncIterator[Connection]:
        """Have a connection that is neither the pool's nor the writer's."""
        connection = await connect_when_ready(replace(target, schema=self._schema))
        try:
            with translated(target.name):
                yield connection
        finally:
            await asyncio.shield(hang_up(connection))

    # Upkeep

    def is_same(self, other: Backend) -> bool:
        return isinstance(other, PostgresBackend) and self.target == other.target

    async def backup(self, path: Path, meter: Meter) -> None:
        await self._pool.run(backup, self.now(), path, meter)

    async def check(self, meter: Meter) -> Report:
        return await self._pool.run(checking.check, meter)

    stats = _read(checking.stats, of_primary=True)

    def metrics(self) -> Metrics:
        counted = super().metrics()
        pool: Pool | None = getattr(self, "_pool", None)  # there is none before the first `open`
        if pool is None:
            return counted
        return replace(
            counted,
            connections=pool.connections,
            idle_connections=pool.idle,
            waiting_reads=pool.waiting + self._points.waiting,
        )

    async def vacuum(self) -> int:
        """Run VACUUM; it gives back what is free at the end of the tables, and locks nobody out."""
        async with self._connection(replace(self.target, statement_timeout=None)) as connection:
            before = await connection.fetchval(statements.GET_SIZE)
            for table in ("kvstore_items", "kvstore_changes", "kvstore_roots", "kvstore_scalars"):
                await connection.execute(f"VACUUM (ANALYZE) {table}")
            after = await connection.fetchval(statements.GET_SIZE)
        return int(max(0, before - after))


def _require_one_root(ops: Sequence[Operation]) -> None:
    """Refuse operations that name several roots, where these are on several machines."""
    roots = {root_of(op.path) for op in named_of(ops)}
    if len(roots) > 1:
        labels = " and ".join(show(decode_namespace(root)) for root in sorted(roots))
        raise InvalidArgumentError(
            f"a transaction over {labels} would not be isolated: this store is spread over "
            "machines by root label. Keep it under one, or say cross_root='unisolated'"
        )
