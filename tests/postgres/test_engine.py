"""Writes that wait together: they share transactions, two at a time if they are many."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any

import pytest

from .server import reason_to_skip

if reason_to_skip() is not None:
    pytest.skip(str(reason_to_skip()), allow_module_level=True)

from kvstore import ConflictError
from kvstore.postgres import PostgresStore

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
        assert store._writer._lanes[1].raw is not None


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
