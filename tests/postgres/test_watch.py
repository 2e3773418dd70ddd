"""Watches are woken by the server, over all processes, and do without where it cannot."""

from __future__ import annotations

import asyncio
import pickle
from contextlib import AsyncExitStack

import pytest

from kvstore import InvalidArgumentError, Watch

from .server import Database, reason_to_skip, schema_of

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
        if here.backend._news._listening is not None:
            await here.backend._news._listening
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
        assert here.backend._news._connection is None


async def test_two_schemas_of_one_database_do_not_wake_each_other(
    postgres: Database, postgres_url: str
) -> None:
    with postgres.schema() as other_url:
        async with PostgresStore(postgres_url) as one, PostgresStore(other_url) as other:
            assert one.backend._news._channel != other.backend._news._channel
            async with one.watch() as watch, other.watch() as other_watch:
                await one.put(NS, "mine", 1)
                await other.put(NS, "yours", 1)
                assert await take(watch, 1) == ["mine"]
                assert await take(other_watch, 1) == ["yours"]


async def test_many_writers_and_one_feed_in_the_order_of_each_root(postgres_url: str) -> None:
    async with AsyncExitStack() as stack:
        stores = [
            await stack.enter_async_context(PostgresStore(postgres_url, pool_size=2))
            for _ in range(4)
        ]
        watch = await stack.enter_async_context(stores[0].watch())
        items = await asyncio.gather(
            *(
                store.put((str(at % 2),), f"{at}-{number}", number)
                for at, store in enumerate(stores)
                for number in range(100)
            ),
            *(stores[0].put(("count",), "n", number) for number in range(50)),
        )
        async with asyncio.timeout(20):
            changes = [await anext(watch) for _ in range(450)]
        for root in ("0", "1", "count"):
            told = [change.version for change in changes if change.namespace == (root,)]
            written = [item.version for item in items if item.namespace == (root,)]
            assert told == sorted(written)
            assert len(set(told)) == len(told)


async def test_a_watch_over_several_roots_goes_on_after_any_of_its_changes(
    postgres_url: str,
) -> None:
    async with PostgresStore(postgres_url) as store, PostgresStore(postgres_url) as other:
        await other.put(("b",), "before", 0)
        async with store.watch() as watch:
            for number in range(6):
                await (other if number % 2 else store).put(("ab"[number % 2],), "k", number)
            await other.put(("new",), "k", 6)
            async with asyncio.timeout(20):
                seen = [await anext(watch) for _ in range(7)]
            assert watch.version is None
        places = [(change.namespace, change.version) for change in seen]
        assert len(set(places)) == 7
        for number, change in enumerate(seen, 1):
            resumed = store.watch(since=pickle.loads(pickle.dumps(change)))
            async with asyncio.timeout(20):
                rest = [await anext(resumed) for _ in range(7 - number)]
            assert [(each.namespace, each.version) for each in rest] == places[number:]
            await resumed.aclose()
        async with store.watch(("a",), since=seen[-1]) as only:
            await store.put(("a",), "last", 7)
            assert (await anext(only)).key == "last"
        with pytest.raises(InvalidArgumentError, match="give the last Change"):
            await anext(store.watch(since=1))
        with pytest.raises(InvalidArgumentError, match="ahead"):
            await anext(store.watch(("a",), since=10_000))


async def test_a_root_that_nobody_watches_records_nothing(
    postgres: Database, postgres_url: str
) -> None:
    schema = schema_of(postgres_url)
    async with PostgresStore(postgres_url) as store, store.watch(("a",)):
        await store.put(("a",), "k", 1)
        await store.put(("b",), "k", 1)
        assert postgres.execute(f"SELECT string_agg(root, '') FROM {schema}.kvstore_changes") == (
            "a\t"
        )


async def test_a_root_that_is_made_while_all_are_watched_is_recorded(postgres_url: str) -> None:
    """However the making and the beginning of the watch fall together."""
    async with PostgresStore(postgres_url) as store, PostgresStore(postgres_url) as other:
        for number in range(30):
            making = asyncio.create_task(other.put((f"r{number}",), "first", 1))
            await asyncio.sleep(0.0005 * (number % 5))
            async with store.watch() as watch:
                await making
                await other.put((f"r{number}",), "second", 2)
                async with asyncio.timeout(20):
                    keys = [(await anext(watch)).key]
                    while keys[-1] != "second":
                        keys.append((await anext(watch)).key)
            assert keys in (["second"], ["first", "second"])
