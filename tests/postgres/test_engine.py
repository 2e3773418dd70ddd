"""Writes that wait together: they share transactions, two at a time if they are many."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from contextlib import AsyncExitStack
from typing import Any

import pytest

from .server import reason_to_skip

if reason_to_skip() is not None:
    pytest.skip(str(reason_to_skip()), allow_module_level=True)

from kvstore import ConflictError, IndexConfig
from kvstore.namespace import encode_namespace
from kvstore.operations import Put
from kvstore.postgres import PostgresStore
from kvstore.postgres.queueing import Lines, Unit
from kvstore.postgres.workspace import Workspace

NS = ("a", "b")


async def test_many_puts_at_once_go_by_two_connections(postgres_url: str) -> None:
    async with PostgresStore(postgres_url) as store:
        for at in range(3):
            items = await asyncio.gather(
                *(store.put(NS, str(number), [at, number]) for number in range(1_000))
            )
            assert [item.value for item in items] == [[at, number] for number in range(1_000)]
            versions = sorted(item.version for item in items)
            assert versions == list(range(at * 1_000 + 1, (at + 1) * 1_000 + 1))
            stored = [item async for item in store.scan(NS)]
            assert {item.key: item for item in stored} == {item.key: item for item in items}
        assert store.backend._writer._channels[1].raw is not None


async def test_writes_of_an_item_keep_the_order_of_the_calls(postgres_url: str) -> None:
    async with PostgresStore(postgres_url) as store:
        calls: list[Awaitable[Any]] = []
        for number in range(1_500):
            key = str(number % 400)
            calls.append(store.put(NS, key, number, ttl=100 if number % 7 == 0 else None))
            if number == 1_100:
                calls.append(store.delete(NS, "100"))
            if number == 1_200:
                calls.append(store.increment(NS, "200", 10_000))
        answers = await asyncio.gather(*calls)
        assert [answer for answer in answers if not hasattr(answer, "version")] == [True, 11_000]
        values = {item.key: item.value async for item in store.scan(NS)}
        for at in range(400):
            assert values[str(at)] == (at + 1_200 if at < 300 else at + 800)
        assert (await store.stats()).version == 1_502


async def test_a_unit_that_fails_leaves_its_neighbours_be(postgres_url: str) -> None:
    async with PostgresStore(postgres_url) as store:
        await store.put(NS, "text", "x")
        outcomes = await asyncio.gather(
            *(store.put(NS, str(number), number) for number in range(20)),
            store.put(NS, "text", "y", if_version=99),
            store.increment(NS, "text"),
            store.put_many(NS, {"many": 1, "more": 2}),
            return_exceptions=True,
        )
        failed = [type(each) for each in outcomes if isinstance(each, Exception)]
        assert len(failed) == 2
        assert failed[0] is ConflictError
        assert await store.count(NS) == 23


async def test_what_its_caller_gave_up_before_it_began_is_not_written(postgres_url: str) -> None:
    async with PostgresStore(postgres_url) as store:
        await store.put(NS, "first", 1)
        begun = asyncio.create_task(store.put(NS, "begun", 1))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        waiting = asyncio.create_task(store.put(NS, "begun", 2))
        await asyncio.sleep(0)
        waiting.cancel()
        await begun
        await asyncio.gather(waiting, return_exceptions=True)
        item = await store.get(NS, "begun")
        assert item is not None
        assert item.value == 1


@pytest.mark.parametrize("index", [None, IndexConfig()])
@pytest.mark.parametrize("what", ["write", "renew", "watch", "delete"])
async def test_what_is_written_between_a_look_and_the_lock_is_seen(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch, index: IndexConfig | None, what: str
) -> None:
    now = 1e9
    look = Workspace.look
    options: dict[str, Any] = {"index": index, "clock": lambda: now, "sweep_interval": None}
    async with (
        PostgresStore(postgres_url, **options) as store,
        PostgresStore(postgres_url, **options) as other,
        AsyncExitStack() as stack,
    ):
        await store.put(NS, "n", 1, ttl=100)
        now += 10
        changes: list[Any] = []

        async def interfere(*args: Any, **options: Any) -> Any:
            space = await look(*args, **options)
            monkeypatch.setattr(Workspace, "look", look)
            match what:
                case "write":
                    assert await other.increment(NS, "n", 10) == 11
                case "renew":
                    assert await other.get(NS, "n", refresh_ttl=True) is not None
                case "watch":
                    changes.append(await stack.enter_async_context(other.watch()))
                case "delete":
                    assert await other.delete(NS, "n")
            return space

        monkeypatch.setattr(Workspace, "look", interfere)
        answer = await store.increment(NS, "n")
        assert answer == {"write": 12, "renew": 2, "watch": 2, "delete": 1}[what]
        item = await other.get(NS, "n")
        assert item is not None
        assert item.value == answer
        if what == "renew":
            assert item.expires_at is not None
            assert item.expires_at.timestamp() == now + 100
        for watch in changes:
            async with asyncio.timeout(10):
                change = await anext(watch)
            assert (change.kind, change.version) == ("put", item.version)
        assert (await other.check()).ok


async def test_stores_that_write_at_once_lose_nothing(postgres_url: str) -> None:
    async with AsyncExitStack() as stack:
        stores = [
            await stack.enter_async_context(PostgresStore(postgres_url, pool_size=1))
            for _ in range(3)
        ]

        async def work(store: PostgresStore) -> None:
            for number in range(40):
                await store.increment(NS, "n")
                await store.put(NS, f"k{number % 5}", number)

        await asyncio.gather(*map(work, stores))
        assert await stores[0].increment(NS, "n", 0) == 120
        assert (await stores[0].stats()).version == 241


async def test_a_put_by_itself_that_is_cancelled_leaves_the_next_ones_be(
    postgres_url: str,
) -> None:
    """It is on its way over a connection that others use, and is committed before they are."""
    async with PostgresStore(postgres_url) as store, PostgresStore(postgres_url) as other:
        for number in range(3):
            await store.put(NS, "k", number)
        for number in range(3, 20):
            held = await other.backend._pool.acquire()
            await held.raw.execute("BEGIN")
            await held.raw.execute("SELECT 1 FROM kvstore_roots FOR UPDATE")
            put = asyncio.create_task(store.put(NS, "k", number))
            await asyncio.sleep(0)
            following = asyncio.create_task(store.increment(NS, "n"))
            await asyncio.sleep(0.001 * (number % 4))
            put.cancel()
            with pytest.raises(asyncio.CancelledError):
                await put
            await held.raw.execute("ROLLBACK")
            other.backend._pool.release(held)
            assert await following == number - 2
            item = await store.get(NS, "k")
            assert item is not None
            assert item.value == number
            await store.put(NS, "k", number)
        assert (await store.check()).ok


async def test_stores_that_take_turns_under_a_root_give_versions_in_order(
    postgres_url: str,
) -> None:
    """Also where a turn of the root begins another era, and whoever was the last to write."""
    async with PostgresStore(postgres_url) as one, PostgresStore(postgres_url) as two:
        items = [
            await (one if number % 3 else two).put(NS, str(number % 5), number)
            for number in range(600)
        ]
        assert [item.version for item in items] == list(range(1, 601))
        begun = {item.key: item.created_at for item in items[:5]}
        assert all(item.created_at == begun[item.key] for item in items)
        assert [item async for item in one.scan(NS)] == sorted(items[-5:], key=lambda at: at.key)
        assert (await two.check()).ok


async def test_a_root_that_may_go_is_not_forgotten_among_many() -> None:
    def unit(*roots: str) -> Unit:
        puts = [Put((root,), encode_namespace((root,)), "k", b"1") for root in roots]
        return Unit(puts, asyncio.get_running_loop().create_future())

    lines = Lines()
    lines.add(unit("a", "b"))
    group = lines.next(lambda _: 1)  # both roots' first unit is gone: each may go, and has nothing
    assert group is not None
    lines.done(group)
    several = [unit(str(number)) for number in range(3_000)]
    for each in several:
        lines.add(each)
    gone: list[Unit] = []
    while (group := lines.next(lambda _: 1)) is not None:
        gone += group.units
    assert gone == several
