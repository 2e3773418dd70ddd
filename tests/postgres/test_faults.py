"""What becomes of a PostgresStore when its server, its connection or its neighbours fail."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

import kvstore
from kvstore import (
    InvalidArgumentError,
    SchemaError,
    Store,
    StoreAccessError,
    StoreBusyError,
    StoreClosedError,
)

from .server import Database, Server, reason_to_skip, with_options

if reason_to_skip() is not None:
    pytest.skip(str(reason_to_skip()), allow_module_level=True)

import asyncpg

from kvstore.postgres import PostgresStore
from kvstore.postgres.connection import Target

NS = ("a", "b")


@pytest.fixture
def server() -> Iterator[Server]:
    """A server that a test may kill."""
    with Server() as server:
        yield server


@pytest.fixture
async def store(postgres_url: str) -> AsyncIterator[PostgresStore]:
    async with PostgresStore(postgres_url, busy_timeout=0.5) as store:
        yield store


def sessions(database: Database, but: str = "") -> str:
    """Say in SQL which sessions are of stores."""
    return (
        "FROM pg_stat_activity WHERE backend_type = 'client backend' "
        f"AND pid <> pg_backend_pid() AND query LIKE '%kvstore%' {but}"
    )


# The server goes


async def write_until(
    store: Store, stop: asyncio.Event, worker: int, progress: asyncio.Queue[int]
) -> tuple[int, int]:
    """Put and count in turns; return how many of each were acknowledged or may have been."""
    done = unsure = 0
    while not stop.is_set():
        try:
            await store.put(NS, f"{worker}-{done + unsure}", done + unsure)
            await store.increment(("counts",), str(worker))
            done += 1
            progress.put_nowait(worker)
        except StoreAccessError:
            unsure += 1
    return done, unsure


@pytest.mark.parametrize("pooler", [False, True])
async def test_a_server_killed_while_it_writes_loses_nothing_acknowledged(
    server: Server, pooler: bool
) -> None:
    async with PostgresStore(server.url, busy_timeout=30, pooler=pooler) as store:
        stop = asyncio.Event()
        progress: asyncio.Queue[int] = asyncio.Queue()
        writers = [
            asyncio.create_task(write_until(store, stop, number, progress)) for number in range(40)
        ]
        for _ in range(3):
            for _ in range(500):
                await progress.get()
            await asyncio.to_thread(server.kill)
            await asyncio.to_thread(server.start)
        stop.set()
        written = await asyncio.gather(*writers)
        items = {item.key: item async for item in store.scan(NS)}
        counts = {item.key: item.value async for item in store.scan(("counts",))}
        for worker, (done, unsure) in enumerate(written):
            there = [at for at in range(done + unsure) if f"{worker}-{at}" in items]
            assert len(there) >= done
            assert done <= counts[str(worker)] <= done + unsure
        versions = [item.version for item in items.values()]
        assert len(set(versions)) == len(versions)
        assert (await store.check()).ok


async def test_a_server_that_restarts_is_waited_for(server: Server) -> None:
    async with PostgresStore(server.url, busy_timeout=30) as store:
        await store.put(NS, "k", 1)
        await asyncio.to_thread(server.stop)
        reading = asyncio.create_task(store.get(NS, "k"))
        writing = asyncio.create_task(store.increment(NS, "k"))
        await asyncio.to_thread(server.start)
        assert (await reading) is not None
        assert await writing == 2


async def test_a_server_that_stays_away_is_an_error_and_then_well_again(server: Server) -> None:
    async with PostgresStore(server.url, busy_timeout=0.2) as store:
        await store.put(NS, "k", 1)
        await asyncio.to_thread(server.stop)
        with pytest.raises(StoreAccessError):
            await store.get(NS, "k")
        with pytest.raises(StoreAccessError):
            await store.put(NS, "k", 2)
        await asyncio.to_thread(server.start)
        item = await store.put(NS, "k", 3)
        assert await store.get(NS, "k") == item


async def test_a_watch_goes_on_when_the_server_is_back(server: Server) -> None:
    async with PostgresStore(server.url, busy_timeout=30) as store, store.watch(NS) as changes:
        await store.put(NS, "before", 1)
        assert (await anext(changes)).key == "before"
        await asyncio.to_thread(server.kill)
        await asyncio.to_thread(server.start)
        await store.put(NS, "after", 2)
        assert (await anext(changes)).key == "after"


async def test_a_lost_connection_is_replaced(postgres: Database, store: PostgresStore) -> None:
    await store.put(NS, "k", 1)
    await store.get(NS, "k")
    for _ in range(3):
        ended = postgres.execute(f"SELECT count(pg_terminate_backend(pid)) {sessions(postgres)}")
        assert ended
        assert await store.get(NS, "k") is not None
        assert await store.increment(NS, "k")
    assert await store.increment(NS, "k") == 5


async def test_closing_over_a_server_that_is_gone_ends(server: Server) -> None:
    store = PostgresStore(server.url, busy_timeout=0.2)
    await store.open()
    await store.put(NS, "k", 1)
    await asyncio.to_thread(server.kill)
    await store.close()
    with pytest.raises(StoreClosedError):
        await store.get(NS, "k")


# Neighbours


async def test_a_writer_that_keeps_the_lock_is_busy(postgres_url: str, store: Any) -> None:
    await store.put(NS, "k", 1)
    other = await asyncpg.connect(postgres_url)
    async with other.transaction():
        await other.execute("SELECT 1 FROM kvstore_roots FOR UPDATE")
        with pytest.raises(StoreBusyError):
            await store.put(NS, "k", 2)
        with pytest.raises(StoreBusyError):
            await store.increment(NS, "k")
        assert (await store.get(NS, "k")).value == 1
    assert await store.increment(NS, "k") == 2
    await other.close()


async def test_connections_that_are_all_in_use_are_waited_for(
    postgres_url: str, store: PostgresStore
) -> None:
    await store.put(NS, "k", 1)
    async with PostgresStore(postgres_url, pool_size=1, busy_timeout=0.2) as small:
        items = await asyncio.gather(*(small.get(NS, "k") for _ in range(50)))
        assert None not in items
        link = await small.backend._pool.acquire()
        with pytest.raises(StoreBusyError, match="pool_size"):
            await small.get(NS, "k")
        waiting = [asyncio.create_task(small.get(NS, "k")) for _ in range(3)]
        await asyncio.sleep(0)
        waiting[0].cancel()
        small.backend._pool.release(link)
        assert None not in await asyncio.gather(*waiting[1:])


async def test_a_cancelled_read_costs_nobody_a_connection(postgres_url: str) -> None:
    async with PostgresStore(postgres_url, pool_size=2, busy_timeout=5) as store:
        await store.put_many(NS, {str(number): number for number in range(100)})
        for _ in range(20):
            tasks = [asyncio.create_task(store.search(NS, filter={"x": 1})) for _ in range(6)]
            await asyncio.sleep(0.0005)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        assert await store.count(NS) == 100


# What cannot be opened


def database_url(postgres: Database, name: str) -> str:
    return urlsplit(postgres.url)._replace(path=f"/{name}").geturl()


async def refused(url: str, **options: Any) -> str:
    store = kvstore.open(url, busy_timeout=0.2, **options)
    with pytest.raises(StoreAccessError) as refusal:
        await store.open()
    assert "hunter2" not in str(refusal.value)
    return str(refusal.value)


async def test_a_server_that_is_not_there_is_named(tmp_path: Path) -> None:
    message = await refused("postgresql://me:hunter2@127.0.0.1:1/db")
    assert "me@127.0.0.1:1/db" in message
    await refused(f"postgresql://me:hunter2@/db?host={tmp_path}")


async def test_a_database_that_is_not_there_is_named(postgres: Database) -> None:
    assert "does not exist" in await refused(database_url(postgres, "no_such_db"))


async def test_a_wrong_password_is_refused_and_not_shown() -> None:
    with Server() as server:
        database = Database(server.url)
        database.execute("CREATE ROLE me LOGIN PASSWORD 'right'")
        database.close()
        (server.data / "pg_hba.conf").write_text("local all postgres trust\nlocal all me md5\n")
        await asyncio.to_thread(server.stop)
        await asyncio.to_thread(server.start)
        url = server.url.replace("postgres@", "me:hunter2@")
        assert "refuses" in await refused(url)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://host:port/db",
        "postgresql://me:hun%ter2@[::1/db",
        "postgresql://me:hunter2@host/db?pooler=perhaps",
        "postgresql://me:hunter2@host/db?sslmode=hunter2",
    ],
)
async def test_a_url_that_does_not_parse_is_refused(url: str) -> None:
    with pytest.raises(InvalidArgumentError) as refusal:
        await kvstore.open(url).open()
    assert "hunter2" not in str(refusal.value)


@pytest.mark.parametrize(
    "setting",
    ["channel_binding=require", "connect_timeout=5", "work_mem=much", "max_connections=9"],
)
async def test_a_setting_that_the_server_refuses_is_named(postgres: Database, setting: str) -> None:
    separator = "&" if "?" in postgres.url else "?"
    with pytest.raises(InvalidArgumentError, match=setting.partition("=")[0]):
        await PostgresStore(f"{postgres.url}{separator}{setting}").open()


async def test_a_database_in_another_encoding_is_refused(postgres: Database) -> None:
    name = "kvstore_test_latin1"
    postgres.execute(f"CREATE DATABASE {name} ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0")
    try:
        with pytest.raises(SchemaError, match="UTF8"):
            await kvstore.open(database_url(postgres, name)).open()
    finally:
        postgres.execute(f"DROP DATABASE {name} WITH (FORCE)")


async def test_a_schema_that_is_not_there_is_refused(postgres: Database) -> None:
    url = with_options(postgres.url, "-c search_path=no_such_schema")
    assert "schema" in await refused(url)


async def test_a_schema_of_a_newer_version_is_refused(postgres_url: str) -> None:
    async with PostgresStore(postgres_url):
        pass
    connection = await asyncpg.connect(postgres_url)
    await connection.execute("INSERT INTO kvstore_schema (number, name) VALUES (9998, 'more')")
    async with PostgresStore(postgres_url) as store:  # in the middle of a rolling deployment
        await store.put(NS, "k", 1)
    await connection.execute(
        "INSERT INTO kvstore_schema (number, name, needs) VALUES (9999, 'other', 9999)"
    )
    with pytest.raises(SchemaError, match="newer"):
        await PostgresStore(postgres_url).open()
    await connection.close()


async def test_a_schema_that_an_earlier_version_made_says_nothing_of_needs(
    empty_schema: str,
) -> None:
    async with PostgresStore(empty_schema):
        pass
    connection = await asyncpg.connect(empty_schema)
    await connection.execute("ALTER TABLE kvstore_schema DROP COLUMN needs")
    await connection.close()
    async with PostgresStore(empty_schema) as store:
        await store.put(NS, "k", 1)


async def test_tables_of_somebody_else_are_left_alone(empty_schema: str) -> None:
    connection = await asyncpg.connect(empty_schema)
    await connection.execute("CREATE TABLE kvstore_items (mine text)")
    with pytest.raises(SchemaError, match="another schema"):
        await PostgresStore(empty_schema).open()
    tables = await connection.fetch(
        "SELECT tablename FROM pg_tables WHERE schemaname = current_schema()"
    )
    assert [row[0] for row in tables] == ["kvstore_items"]
    await connection.close()


async def test_a_replica_or_a_read_only_user_is_told_so(postgres_url: str) -> None:
    async with PostgresStore(postgres_url) as store:
        await store.put(NS, "k", 1)
    read_only = postgres_url.replace(
        "options=", "options=-c%20default_transaction_read_only%3Don%20"
    )
    async with PostgresStore(read_only) as store:
        assert await store.get(NS, "k") is not None
        with pytest.raises(StoreAccessError, match="read-only"):
            await store.put(NS, "k", 2)


# Many at once


async def test_many_that_start_at_once_migrate_once(empty_schema: str) -> None:
    stores = [PostgresStore(empty_schema, pool_size=1) for _ in range(20)]
    await asyncio.gather(*(store.open() for store in stores))
    await asyncio.gather(*(store.increment(NS, "n") for store in stores))
    assert await stores[0].increment(NS, "n", 0) == len(stores)
    await asyncio.gather(*(store.close() for store in stores))


async def test_a_long_address_is_refused_and_its_neighbours_are_not(store: PostgresStore) -> None:
    with pytest.raises(kvstore.InvalidKeyError, match="2,600"):
        await store.put(NS, "x" * 3_000, 1)
    with pytest.raises(kvstore.InvalidKeyError):
        await store.increment(("é" * 700,), "n")
    assert await store.get(NS, "x" * 3_000) is None
    key = "".join(chr(0x4E00 + number * 37 % 20_000) for number in range(850))
    await store.put(NS, key, 1)
    assert await store.keys(NS) == [key]


# What a URL says


def test_a_url_may_name_a_pooler_and_keeps_the_rest() -> None:
    target = Target.parse(
        "postgresql://me:hunter2@host:5433/db?pooler=true&options=-c%20search_path%3Dkv%2Cpublic"
    )
    assert target.is_pooler
    assert target.url == (
        "postgresql://me:hunter2@host:5433/db?options=-c%20search_path%3Dkv%2Cpublic"
    )
    assert "hunter2" not in repr(target)
    assert "me@host:5433/db" in target.name


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://host/db?user=me&password=hunter2",
        "postgres://me:hunter2@/db?host=/var/run&port=5433",
        "postgresql://me:hunter2@one:1,two:2/db",
    ],
)
def test_a_password_is_in_no_name(url: str) -> None:
    target = Target.parse(url)
    assert "me@" in target.name
    assert "hunter2" not in target.name
    assert not target.is_pooler
