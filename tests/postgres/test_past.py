"""The past on a server: versions of each root by itself, several stores, and what it costs."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from kvstore import HistoryExpiredError, InvalidArgumentError
from kvstore.testing import ManualClock

from .network import network_to
from .server import Database, reason_to_skip

if reason_to_skip() is not None:
    pytest.skip(str(reason_to_skip()), allow_module_level=True)

from kvstore.postgres import PostgresStore

A, B = ("a",), ("b",)
SPAN = 3600.0


def kept(url: str, clock: ManualClock) -> PostgresStore:
    return PostgresStore(url, clock=clock, history=SPAN, sweep_interval=None)


async def test_a_version_is_a_roots_own_and_an_instant_is_everybodys(postgres_url: str) -> None:
    clock = ManualClock()
    async with kept(postgres_url, clock) as one, kept(postgres_url, clock) as two:
        for number in range(10):
            await one.put(A, "k", number)
        clock.advance(1)
        first = await two.put(B, "k", "first")
        assert first.version < 10  # it has not heard of the other root's
        then = clock.now
        clock.advance(1)
        await two.put(B, "k", "second")
        await one.put(A, "k", "last")
        for store in (one, two):
            past = store.at(first.version, root="b")
            item = await past.get(B, "k")
            assert item is not None
            assert item.value == "first"
            assert {item.value async for item in store.at(then).scan()} == {9, "first"}
            assert await store.at(then).list_namespaces() == [A, B]
        with pytest.raises(InvalidArgumentError, match="future"):
            await one.at(11, root="b").get(B, "k")
        assert await one.rewind(then) == 2
        assert {item.value async for item in two.scan()} == {9, "first"}


async def test_a_page_goes_over_many_roots(postgres_url: str) -> None:
    clock = ManualClock()
    async with kept(postgres_url, clock) as store:
        for number in range(25):
            await store.put_many((f"root {number:02}",), {"a": 1, "b": 2})
        then = clock.now
        clock.advance(1)
        await store.remove((), "*", subtree=True)
        past = store.at(then)
        found = [(item.namespace, item.key) async for item in past.scan(batch_size=7)]
        assert found == sorted(found)
        assert len(found) == 50
        assert await past.count((), "b", subtree=True) == 25
        assert await store.rewind(then) == 50


async def test_who_asks_for_no_history_keeps_that_of_another(postgres_url: str) -> None:
    clock = ManualClock()
    async with (
        kept(postgres_url, clock) as keeping,
        PostgresStore(postgres_url, clock=clock, sweep_interval=None) as plain,
    ):
        await plain.put(A, "k", 1)
        await asyncio.gather(*(plain.put(A, "k", number) for number in range(2, 20)))
        await plain.put_many(A, {f"k{number}": number for number in range(2_000)})
        await plain.delete_many(A, ["k", "k1"])
        found = await keeping.history(A, "k")
        assert [each.kind for each in found] == ["delete"] + ["put"] * 19
        assert await keeping.at(19).count(A) == 1
        clock.advance(SPAN + 1)
        await plain.sweep()
        with pytest.raises(HistoryExpiredError):
            await keeping.at(19).count(A)


async def test_a_put_whose_past_is_kept_is_one_round_trip(
    postgres: Database, postgres_url: str
) -> None:
    schema = postgres_url.rpartition("search_path%3D")[2].partition("%2C")[0]
    async with network_to(postgres.url) as network:
        url = f"{network.url}?search_path={schema}"
        async with PostgresStore(url, history=timedelta(days=1)) as store:
            for number in range(20):
                await store.put(A, "k", number)
            before = network.messages
            for number in range(20):
                await store.put(A, "k", number)
            assert network.messages - before < 40  # with the notices for those who watch
            assert len(await store.history(A, "k")) == 40
