"""Watches are woken by the server, over all processes, and do without where it cannot."""

from __future__ import annotations

import asyncio

import pytest

from kvstore import Watch

from .server import Database, reason_to_skip

if reason_to_skip() is not None:
    pytest.skip(str(reason_to_skip()), allow_module_level=True)

from kvstore.postgres import PostgresStore

NS = ("users", "alice")
FOREVER_S = 3_600.0


async def take(watch: Watch, number: int) -> list[str]:
    async with asyncio.timeout(20):
        return [(await anext(watch)).key for _ in range(number)]


async def test_a_watch_is_woken_by_another_store(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with (
        PostgresStore(postgres_url) as here,
        PostgresStore(postgres_url) as there,
        here.watch(NS) as watch,
    ):
        await there.put(NS, "first", 1)
        assert await take(watch, 1) == ["first"]
        if here.backend._listener._task is not None:
            await here.backend._listener._task
        monkeypatch.setattr("kvstore.postgres.changes.HEARD_POLL_S", FOREVER_S)
        for number in range(20):
            waiting = asyncio.create_task(take(watch, 1))
            await asyncio.sleep(0.001 * (number % 3))
            await there.put(NS, str(number), number)
            assert await waiting == [str(number)]


async def test_a_watch_behind_a_pooler_looks_by_itself(postgres_url: str) -> None:
    async with (
        PostgresStore(postgres_url, pooler=True) as here,
        PostgresStore(postgres_url, pooler=True) as there,
        here.watch(NS) as watch,
    ):
        for number in range(5):
            waiting = asyncio.create_task(take(watch, 1))
            await asyncio.sleep(0)
            await there.put(NS, str(number), number)
            assert await waiting == [str(number)]
        assert here.backend._listener._connection is None


async def test_two_schemas_of_one_database_do_not_wake_each_other(
    postgres: Database, postgres_url: str
) -> None:
    with postgres.schema() as other_url:
        async with PostgresStore(postgres_url) as one, PostgresStore(other_url) as other:
            assert one.backend._listener._channel != other.backend._listener._channel
            async with one.watch() as watch, other.watch() as other_watch:
                await one.put(NS, "mine", 1)
                await other.put(NS, "yours", 1)
                assert await take(watch, 1) == ["mine"]
                assert await take(other_watch, 1) == ["yours"]


async def test_many_writers_and_one_feed_in_order(postgres_url: str) -> None:
    stores = [PostgresStore(postgres_url, pool_size=2) for _ in range(4)]
    for store in stores:
        await store.open()
    async with stores[0].watch() as watch:
        await asyncio.gather(
            *(
                store.put((str(at),), str(number), number)
                for at, store in enumerate(stores)
                for number in range(100)
            ),
            *(store.increment(("count",), "n") for store in stores for _ in range(50)),
        )
        async with asyncio.timeout(20):
            changes = [await anext(watch) for _ in range(600)]
    versions = [change.version for change in changes]
    assert versions == sorted(set(versions))
    assert versions[-1] - versions[0] == 599
    assert len({(change.namespace, change.key) for change in changes}) == 401
    for store in stores:
        await store.close()
