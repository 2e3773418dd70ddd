"""The contenders, each behind the same few methods, so that one loop drives them all.

All run in WAL mode with `synchronous=NORMAL`: a crash of the process loses nothing, a power
failure loses the last moments. All of them that let one choose the driver get the same SQLite.
A contender is bulk-loaded by the shortest way that leaves what its own `put` would.
"""

from __future__ import annotations

import asyncio
import importlib
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import orjson

from benchmarks.workloads import Namespace

__all__ = ["CONTENDERS", "Bare", "Contender", "KVStore", "Raw", "Tasks", "driver", "optional"]

Batches = Iterable[tuple[Namespace, dict[str, Any]]]


def optional(name: str) -> Any:
    """Import a module that only the benchmarks need."""
    try:
        return importlib.import_module(name)
    except ImportError as exc:
        raise SystemExit(
            f"the benchmarks need {name}: pip install -e '.[bench]' has every contender"
        ) from exc


def driver() -> Any:
    """Return the SQLite module that kvstore itself would choose."""
    try:
        return importlib.import_module("pysqlite3")
    except ImportError:
        return importlib.import_module("sqlite3")


class Contender:
    """A store under test. Methods it has no equivalent of are named in `lacks`."""

    name: ClassVar[str]
    title: ClassVar[str]
    note: ClassVar[str]
    distributions: ClassVar[tuple[str, ...]] = ()
    lacks: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    async def open(self) -> None:
        raise NotImplementedError

    async def close(self) -> None:
        raise NotImplementedError

    async def load(self, batches: Batches) -> None:
        """Fill the empty, open store."""
        raise NotImplementedError

    async def get(self, namespace: Namespace, key: str) -> Any:
        raise NotImplementedError

    async def put(self, namespace: Namespace, key: str, value: Any) -> Any:
        raise NotImplementedError

    async def put_many(self, namespace: Namespace, mapping: Mapping[str, Any]) -> Any:
        raise NotImplementedError

    async def increment(self, namespace: Namespace, key: str) -> Any:
        raise NotImplementedError

    async def search(self, namespace: Namespace, filter: Mapping[str, Any], limit: int) -> Any:
        raise NotImplementedError

    async def list_namespaces(self, prefix: Namespace, limit: int) -> Any:
        raise NotImplementedError

    async def remove(self, namespace: Namespace, pattern: str) -> Any:
        raise NotImplementedError

    async def plain(self, namespace: Namespace, key: str) -> Any:
        """Return the bare value, for the check that every contender stores the same."""
        return await self.get(namespace, key)


class KVStore(Contender):
    name = "kvstore"
    title = "kvstore"
    note = "`SQLiteStore`, as it opens by default."
    distributions = ("pysqlite3", "aiosqlite")

    async def open(self) -> None:
        import kvstore

        self.store = store = kvstore.SQLiteStore(self.folder / "kvstore.db")
        await store.open()
        # The loop calls the store itself: these have the contenders' signatures.
        self.get = store.get  # type: ignore[method-assign]
        self.put = store.put  # type: ignore[method-assign]
        self.put_many = store.put_many  # type: ignore[method-assign]
        self.increment = store.increment  # type: ignore[method-assign]
        self.remove = store.remove  # type: ignore[method-assign]

    async def close(self) -> None:
        await self.store.close()

    async def load(self, batches: Batches) -> None:
        waiting: list[Any] = []
        for namespace, mapping in batches:
            waiting.append(self.store.put_many(namespace, mapping))
            if len(waiting) == 20:
                await asyncio.gather(*waiting)
                waiting.clear()
        await asyncio.gather(*waiting)

    async def search(self, namespace: Namespace, filter: Mapping[str, Any], limit: int) -> Any:
        return await self.store.search(namespace, filter=filter, limit=limit)

    async def list_namespaces(self, prefix: Namespace, limit: int) -> Any:
        return await self.store.list_namespaces(prefix, limit=limit)

    async def plain(self, namespace: Namespace, key: str) -> Any:
        item = await self.store.get(namespace, key)
        return item and item.value


class LangGraph(Contender):
    name = "langgraph"
    title = "LangGraph AsyncSqliteStore"
    note = (
        "In WAL mode with `synchronous=NORMAL`, which it does not set itself (as shipped, puts are "
        "slower). `put_many` is `abatch` of `PutOp`s."
    )
    distributions = ("langgraph-checkpoint-sqlite", "langgraph-checkpoint", "aiosqlite")
    lacks = frozenset({"increment", "remove"})

    async def open(self) -> None:
        aio = optional("langgraph.store.sqlite.aio")
        self.put_op = optional("langgraph.store.base").PutOp
        self.connection = await _aiosqlite(self.folder / "langgraph.db")
        self.store = store = aio.AsyncSqliteStore(self.connection)
        await store.setup()
        self.get = store.aget  # type: ignore[method-assign]
        self.put = store.aput  # type: ignore[method-assign]

    async def close(self) -> None:
        self.store._task.cancel()  # it has no close of its own
        await asyncio.gather(self.store._task, return_exceptions=True)
        await self.connection.close()

    async def load(self, batches: Batches) -> None:
        await self.connection.execute("BEGIN")
        for namespace, mapping in batches:
            path = ".".join(namespace)
            await self.connection.executemany(
                "INSERT INTO store (prefix, key, value) VALUES (?, ?, ?)",
                [(path, key, orjson.dumps(value)) for key, value in mapping.items()],
            )
        await self.connection.execute("COMMIT")

    async def put_many(self, namespace: Namespace, mapping: Mapping[str, Any]) -> Any:
        return await self.store.abatch(
            [self.put_op(namespace, key, value) for key, value in mapping.items()]
        )

    async def search(self, namespace: Namespace, filter: Mapping[str, Any], limit: int) -> Any:
        return await self.store.asearch(namespace, filter=filter, limit=limit)

    async def list_namespaces(self, prefix: Namespace, limit: int) -> Any:
        return await self.store.alist_namespaces(prefix=prefix, limit=limit)

    async def plain(self, namespace: Namespace, key: str) -> Any:
        item = await self.store.aget(namespace, key)
        return item and item.value


class DiskCache(Contender):
    name = "diskcache"
    title = "diskcache"
    note = "Synchronous, called on the loop; nothing is evicted. It blocks the loop at every call."
    distributions = ("diskcache",)
    lacks = frozenset({"search", "list_namespaces", "remove"})

    async def open(self) -> None:
        self.cache = optional("diskcache").Cache(
            self.folder / self.name, eviction_policy="none", cull_limit=0
        )

    async def close(self) -> None:
        self.cache.close()

    async def load(self, batches: Batches) -> None:
        with self.cache.transact():
            for namespace, mapping in batches:
                await self.put_many(namespace, mapping)

    async def get(self, namespace: Namespace, key: str) -> Any:
        return self.cache.get("/".join((*namespace, key)))

    async def put(self, namespace: Namespace, key: str, value: Any) -> Any:
        return self.cache.set("/".join((*namespace, key)), value)

    async def put_many(self, namespace: Namespace, mapping: Mapping[str, Any]) -> Any:
        with self.cache.transact():
            for key, value in mapping.items():
                self.cache.set("/".join((*namespace, key)), value)

    async def increment(self, namespace: Namespace, key: str) -> Any:
        return self.cache.incr("/".join((*namespace, key)))


class DiskStore(Contender):
    name = "diskstore"
    title = "py-key-value DiskStore"
    note = (
        "py-key-value's store over diskcache; it blocks the loop too. Its `put_many` is a loop of "
        "puts, and not atomic."
    )
    distributions = ("py-key-value-aio", "diskcache")
    lacks = frozenset({"increment", "search", "list_namespaces", "remove"})

    async def open(self) -> None:
        disk = optional("key_value.aio.stores.disk")
        # The very cache that DiskStore makes for itself, held here so that load() can use it.
        self.cache = optional("diskcache").Cache(self.folder / self.name, eviction_policy="none")
        self.store = disk.DiskStore(disk_cache=self.cache)

    async def close(self) -> None:
        await self.store.close()
        self.cache.close()

    async def load(self, batches: Batches) -> None:
        with self.cache.transact():
            for namespace, mapping in batches:
                await self.put_many(namespace, mapping)

    async def get(self, namespace: Namespace, key: str) -> Any:
        return await self.store.get(key, collection="/".join(namespace))

    async def put(self, namespace: Namespace, key: str, value: Any) -> Any:
        return await self.store.put(key, value, collection="/".join(namespace))

    async def put_many(self, namespace: Namespace, mapping: Mapping[str, Any]) -> Any:
        return await self.store.put_many(
            list(mapping), list(mapping.values()), collection="/".join(namespace)
        )


# One plain table, for the two contenders that have no library: the SQL that one writes oneself.
SCHEMA = """
CREATE TABLE IF NOT EXISTS items (
    namespace TEXT NOT NULL, key TEXT NOT NULL, value TEXT NOT NULL, updated REAL NOT NULL,
    PRIMARY KEY (namespace, key))
"""
GET = "SELECT value FROM items WHERE namespace = ? AND key = ?"
PUT = """
INSERT INTO items VALUES (?, ?, ?, ?)
ON CONFLICT DO UPDATE SET value = excluded.value, updated = excluded.updated
"""
INCREMENT = """
INSERT INTO items VALUES (?, ?, '1', ?)
ON CONFLICT DO UPDATE SET value = CAST(value AS INTEGER) + 1, updated = excluded.updated
RETURNING value
"""
SEARCH = """
SELECT key, value FROM items
WHERE namespace = ? AND json_extract(value, '$.status') = ? AND json_extract(value, '$.score') >= ?
ORDER BY updated DESC, key LIMIT ?
"""
LIST_NAMESPACES = """
SELECT DISTINCT namespace FROM items
WHERE namespace >= ? AND namespace < ? ORDER BY namespace LIMIT ?
"""
REMOVE = "DELETE FROM items WHERE namespace = ? AND key GLOB ?"


def _path(namespace: Namespace) -> str:
    return "/".join(namespace) + "/"


def _get_args(namespace: Namespace, key: str) -> tuple[Any, ...]:
    return (_path(namespace), key)


def _put_args(namespace: Namespace, key: str, value: Any) -> tuple[Any, ...]:
    return (_path(namespace), key, orjson.dumps(value).decode(), time.time())


def _increment_args(namespace: Namespace, key: str) -> tuple[Any, ...]:
    return (_path(namespace), key, time.time())


def _search_args(namespace: Namespace, filter: Mapping[str, Any], limit: int) -> tuple[Any, ...]:
    return (_path(namespace), filter["status"], filter["score"]["$gte"], limit)


def _list_args(prefix: Namespace, limit: int) -> tuple[Any, ...]:
    return (_path(prefix), "/".join(prefix) + "0", limit)  # "0" comes right after "/"


class Naive(Contender):
    name = "aiosqlite"
    title = "aiosqlite, naive"
    note = (
        "A plain table, one execute and one commit for each call, on one connection (which lets "
        "concurrent tasks commit each other's half-done work)."
    )
    distributions = ("aiosqlite",)

    async def open(self) -> None:
        self.connection = await _aiosqlite(self.folder / "naive.db", isolation_level="")
        await self.connection.execute(SCHEMA)

    async def close(self) -> None:
        await self.connection.close()

    async def load(self, batches: Batches) -> None:
        for namespace, mapping in batches:
            await self.connection.executemany(
                PUT, [_put_args(namespace, key, value) for key, value in mapping.items()]
            )
        await self.connection.commit()

    async def _rows(self, sql: str, args: tuple[Any, ...]) -> list[Any]:
        async with self.connection.execute(sql, args) as cursor:
            return list(await cursor.fetchall())

    async def _write(self, sql: str, args: tuple[Any, ...]) -> int:
        cursor = await self.connection.execute(sql, args)
        await self.connection.commit()
        return int(cursor.rowcount)

    async def get(self, namespace: Namespace, key: str) -> Any:
        async with self.connection.execute(GET, _get_args(namespace, key)) as cursor:
            row = await cursor.fetchone()
        return row and orjson.loads(row[0])

    async def put(self, namespace: Namespace, key: str, value: Any) -> Any:
        return await self._write(PUT, _put_args(namespace, key, value))

    async def put_many(self, namespace: Namespace, mapping: Mapping[str, Any]) -> Any:
        await self.connection.executemany(
            PUT, [_put_args(namespace, key, value) for key, value in mapping.items()]
        )
        await self.connection.commit()

    async def increment(self, namespace: Namespace, key: str) -> Any:
        rows = await self._rows(INCREMENT, _increment_args(namespace, key))
        await self.connection.commit()
        return orjson.loads(rows[0][0])

    async def search(self, namespace: Namespace, filter: Mapping[str, Any], limit: int) -> Any:
        rows = await self._rows(SEARCH, _search_args(namespace, filter, limit))
        return [(key, orjson.loads(value)) for key, value in rows]

    async def list_namespaces(self, prefix: Namespace, limit: int) -> Any:
        rows = await self._rows(LIST_NAMESPACES, _list_args(prefix, limit))
        return [tuple(path[:-1].split("/")) for (path,) in rows]

    async def remove(self, namespace: Namespace, pattern: str) -> Any:
        return await self._write(REMOVE, (_path(namespace), pattern))


class Raw(Contender):
    """SQLite with nothing around it. Its methods are plain functions; no event loop, no tasks."""

    name = "raw"
    title = "raw sqlite3"
    note = (
        "The limit: synchronous SQLite and orjson on a plain table, no event loop; the puts of N "
        "tasks are one transaction of N."
    )

    async def open(self) -> None:
        self.connection = driver().connect(str(self.folder / "raw.db"), isolation_level=None)
        self.execute = self.connection.execute
        self.execute("PRAGMA journal_mode = WAL")
        self.execute("PRAGMA synchronous = NORMAL")
        self.execute(SCHEMA)

    async def close(self) -> None:
        self.connection.close()

    async def load(self, batches: Batches) -> None:
        self.begin()
        for namespace, mapping in batches:
            self.connection.executemany(
                PUT, [_put_args(namespace, key, value) for key, value in mapping.items()]
            )
        self.commit()

    def begin(self) -> None:
        self.execute("BEGIN IMMEDIATE")

    def commit(self) -> None:
        self.execute("COMMIT")

    def get(self, namespace: Namespace, key: str) -> Any:
        row = self.execute(GET, _get_args(namespace, key)).fetchone()
        return row and orjson.loads(row[0])

    def put(self, namespace: Namespace, key: str, value: Any) -> Any:
        self.execute(PUT, _put_args(namespace, key, value))

    def put_many(self, namespace: Namespace, mapping: Mapping[str, Any]) -> Any:
        self.begin()
        self.connection.executemany(
            PUT, [_put_args(namespace, key, value) for key, value in mapping.items()]
        )
        self.commit()

    def increment(self, namespace: Namespace, key: str) -> Any:
        row = self.execute(INCREMENT, _increment_args(namespace, key)).fetchall()[0]
        return orjson.loads(row[0])

    def search(self, namespace: Namespace, filter: Mapping[str, Any], limit: int) -> Any:
        rows = self.execute(SEARCH, _search_args(namespace, filter, limit))
        return [(key, orjson.loads(value)) for key, value in rows]

    def list_namespaces(self, prefix: Namespace, limit: int) -> Any:
        rows = self.execute(LIST_NAMESPACES, _list_args(prefix, limit))
        return [tuple(path[:-1].split("/")) for (path,) in rows]

    def remove(self, namespace: Namespace, pattern: str) -> Any:
        return self.execute(REMOVE, (_path(namespace), pattern)).rowcount

    async def plain(self, namespace: Namespace, key: str) -> Any:
        return self.get(namespace, key)


class Tasks(Contender):
    """The least that a store for asyncio can do: tasks that share transactions of raw SQL."""

    name = "tasks"
    title = "raw sqlite3, shared by tasks"
    note = (
        "The limit within asyncio: raw SQL on the loop's thread, the puts of one turn of the loop "
        "in one transaction. It checks, versions and returns nothing, one bad put fails all, and a "
        "slow disk stops the loop."
    )
    lacks = frozenset({"put_many", "increment", "search", "list_namespaces", "remove"})

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.raw = Raw(folder)
        self.waiting: list[tuple[tuple[Any, ...], asyncio.Future[None]]] = []

    async def open(self) -> None:
        await self.raw.open()

    async def close(self) -> None:
        await self.raw.close()

    async def load(self, batches: Batches) -> None:
        await self.raw.load(batches)

    async def get(self, namespace: Namespace, key: str) -> Any:
        return self.raw.get(namespace, key)

    async def put(self, namespace: Namespace, key: str, value: Any) -> Any:
        loop = asyncio.get_running_loop()
        done = loop.create_future()
        if not self.waiting:
            loop.call_soon(self._commit)
        self.waiting.append((_put_args(namespace, key, value), done))
        await done

    def _commit(self) -> None:
        waiting, self.waiting = self.waiting, []
        self.raw.begin()
        self.raw.connection.executemany(PUT, [args for args, _ in waiting])
        self.raw.commit()
        for _, done in waiting:
            done.set_result(None)


class Bare(Contender):
    """Not a store: what the tasks alone cost the loop."""

    name = "bare"
    title = "bare asyncio tasks"
    note = "No store: each call is an `asyncio.sleep(0)`."

    async def open(self) -> None:
        pass

    async def close(self) -> None:
        pass

    async def get(self, namespace: Namespace, key: str) -> Any:
        await asyncio.sleep(0)

    async def put(self, namespace: Namespace, key: str, value: Any) -> Any:
        await asyncio.sleep(0)


async def _aiosqlite(path: Path, isolation_level: str | None = None) -> Any:
    aiosqlite = optional("aiosqlite")
    connection = aiosqlite.Connection(
        lambda: driver().connect(str(path), isolation_level=isolation_level), iter_chunk_size=64
    )
    await connection
    await connection.execute("PRAGMA journal_mode = WAL")
    await connection.execute("PRAGMA synchronous = NORMAL")
    return connection


CONTENDERS: tuple[type[Contender], ...] = (
    KVStore,
    LangGraph,
    DiskStore,
    DiskCache,
    Naive,
    Tasks,
    Raw,
)
