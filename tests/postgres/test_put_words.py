"""A put and its words are one call of the server, and come to what the long way comes to."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kvstore import IndexConfig, InMemoryStore, Store
from kvstore.namespace import encode_namespace
from kvstore.sequences import key_of
from kvstore.testing import ManualClock

from .network import network_to
from .server import reason_to_skip, schema_of

if reason_to_skip() is not None:
    pytest.skip(str(reason_to_skip()), allow_module_level=True)

from kvstore.postgres import PostgresStore
from kvstore.postgres.codes import Terms
from kvstore.postgres.connection import Target, connect

from .test_lost_answers import When, pair_at

NS = ("agent", "memory")
TEXTS = ["green tea", "green green tea", "a long walk", "walks by the sea", "tea", "", " ", "!?"]
FIELDS = IndexConfig(fields=["text"])
Held = tuple[dict[int, int], set[int], int]  # counts of words, all terms, length


def held(terms: Terms) -> Held:
    numbers = terms.numbers
    return dict(zip(numbers, terms.counts, strict=False)), {*numbers}, terms.length


async def require_right(store: PostgresStore, url: str) -> None:
    """Compare the index with the items, word by word."""
    wanted: dict[tuple[str, str], Held] = {}
    for item in [item async for item in store.scan(("agent",))]:
        path, text = encode_namespace(item.namespace), item.value["text"]
        if item.value["is_indexed"] and text.strip():
            wanted[path, item.key] = held(Terms.of([text], path))
    raw = await connect(Target.parse(url))
    try:
        rows = await raw.fetch("SELECT path, key, words, counts, length FROM kvstore_entries")
        terms = await raw.fetch("SELECT term, items FROM kvstore_terms")
        sums = await raw.fetchrow("SELECT entries, words FROM kvstore_turns")
    finally:
        await raw.close()
    entries = {
        (path, key): held(Terms(words, counts, length)) for path, key, words, counts, length in rows
    }
    assert entries == wanted
    assert dict(map(tuple, terms)) == Counter(each for held in wanted.values() for each in held[1])
    assert tuple(sums) == (len(wanted), sum(length for *_, length in wanted.values()))
    assert (await store.check()).ok


async def test_a_put_with_its_words_is_one_round_trip(postgres_url: str) -> None:
    async with network_to(postgres_url) as network:
        url = f"{network.url}?search_path={schema_of(postgres_url)},public"
        async with PostgresStore(url, index=IndexConfig()) as store:
            for number in range(3):
                await store.put(NS, f"k{number}", TEXTS[number])
            before = network.messages
            await store.put(NS, "new", "walks and tea")
            await store.put(NS, "new", "tea and walks")
            await store.put(NS, "new", "tea and walks", ttl=60)
            await store.put(NS, "new", "tea", index=False)
            await store.put(NS, "a longer one", "tea and more of it")
            assert network.messages == before + 5
            found = await store.search(NS, "walk", mode="text")
            assert [item.key for item in found] == ["k2"]


@pytest.mark.parametrize("how", ["plain", "with a log", "history", "watched"])
async def test_whatever_is_put_the_index_is_right(postgres_url: str, how: str) -> None:
    """And so are items, versions, past and changes, as the other backend has them."""
    chance = random.Random(how)
    clock = ManualClock()
    history = 3600.0 if how == "history" else None
    options: dict[str, Any] = {"clock": clock, "history": history, "sweep_interval": None}
    async with (
        PostgresStore(postgres_url, index=FIELDS, **options) as one,
        PostgresStore(postgres_url, index=FIELDS, **options) as two,
        InMemoryStore(index=FIELDS, **options) as memory,
    ):
        if how == "with a log":
            for store in (one, memory):
                await store.log(("agent", "log")).append({"text": "", "is_indexed": False})
        watches = [aiter(each.watch(("agent",))) for each in (one, memory) if how == "watched"]
        firsts = [asyncio.ensure_future(anext(each)) for each in watches]
        await one.count(("agent",))
        for number in range(160):
            here = chance.choice((one, two))
            place = NS[: chance.randint(1, 2)], f"k{chance.randrange(8)}"
            match chance.randrange(8):
                case 0:
                    assert await here.delete(*place) == await memory.delete(*place)
                case 1:
                    clock.advance(1.0)
                case _:
                    is_indexed = chance.random() < 0.8
                    value = {"text": chance.choice(TEXTS), "is_indexed": is_indexed}
                    more: Any = {"ttl": chance.choice([None, None, 5.0])}
                    if not is_indexed:
                        more["index"] = False
                    item = await here.put(*place, value, **more)
                    assert item == await memory.put(*place, value, **more)
            if number % 40 == 39:
                assert await one.sweep() == await memory.sweep()
                await require_right(one, postgres_url)
        item = await two.put(NS, "last", {"text": "", "is_indexed": True})
        assert item == await memory.put(NS, "last", item.value)
        items = [[item async for item in each.scan()] for each in (one, memory)]
        assert items[0] == items[1]
        for key in range(8):
            assert await one.history(NS, f"k{key}") == await memory.history(NS, f"k{key}")
        changes = [[await asyncio.wait_for(first, 10)] for first in firsts]
        for watch, found in zip(watches, changes, strict=True):
            while found[-1].version < item.version:
                found.append(await asyncio.wait_for(anext(watch), 10))
        told = [[replace(each, item=None) for each in found] for found in changes]
        assert told[:1] == told[1:]


async def test_an_index_that_another_store_describes_anew_is_filled_as_it_says(
    postgres_url: str,
) -> None:
    async with (
        PostgresStore(postgres_url, index=IndexConfig(fields=["old"])) as before,
        PostgresStore(postgres_url, index=IndexConfig(fields=["new"])) as after,
    ):
        value = {"old": "walk", "new": "tea"}
        for key in ("a", "b", "c"):
            await before.put(NS, key, value)
        assert await before.search(NS, "walk", mode="text", limit=1)
        await after.reindex()
        for key in ("b", "d"):
            await before.put(NS, key, value)
        keys = [item.key for item in await after.search(NS, "tea", mode="text")]
        assert sorted(keys) == ["a", "b", "c", "d"]
        assert not await after.search(NS, "walk", mode="text")
        assert (await after.check()).ok


async def test_a_put_over_what_waits_to_be_indexed_is_not_indexed_twice(postgres_url: str) -> None:
    async with PostgresStore(postgres_url, index=IndexConfig()) as store:
        for key in ("a", "b"):
            await store.put(NS, key, "tea")
        raw = await connect(Target.parse(postgres_url))
        await raw.execute(
            "INSERT INTO kvstore_pending (root, path, key) "
            "SELECT root, path, key FROM kvstore_items"
        )
        await store.put(NS, "a", "tea")
        await store.put(NS, "b", "walk")
        assert not await raw.fetchval("SELECT count(*) FROM kvstore_pending")
        await raw.close()
        assert (await store.check()).ok


async def test_a_put_onto_a_log_goes_the_long_way(postgres_url: str) -> None:
    clock = ManualClock()
    async with (
        PostgresStore(postgres_url, index=FIELDS, clock=clock) as one,
        InMemoryStore(index=FIELDS, clock=clock) as two,
    ):
        found = []
        for store in (one, two):
            log = store.log(("agent", "log"))
            value = {"text": "tea", "is_indexed": True}
            await store.put(NS, "k", value)
            await log.append(value)
            number = await log.append(value)
            await store.put(("agent", "log"), key_of(number), {"text": "walk", "is_indexed": True})
            await store.put(("agent", "log"), "k", value)
            last = await log.append(value)
            found.append((last, await log.length(), [item async for item in store.scan()]))
        assert found[0] == found[1]
        await require_right(one, postgres_url)


@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_put_whose_answer_is_lost_is_indexed_once(
    postgres_url: str, tmp_path: Path, when: When
) -> None:
    async with pair_at(postgres_url, tmp_path, FIELDS) as (store, straight, proxy):
        for number in range(6):
            value = {"text": TEXTS[number], "is_indexed": True}
            await store.put(NS, "k", value)
            proxy.cut(1, when)
            item = await store.put(NS, f"k{number}", value)
            assert item == await straight.get(NS, f"k{number}")
            assert item.version == 2 * number + 2
        assert proxy.cuts == 6
        await require_right(straight, postgres_url)


async def test_puts_at_once_into_an_index_keep_their_order(postgres_url: str) -> None:
    """Those that wait go together, the long way; the first of them by itself."""
    stores: list[Store] = []
    async with PostgresStore(postgres_url, index=FIELDS) as one, InMemoryStore(index=FIELDS) as two:
        stores += [one, two]
        for _ in range(5):
            found = []
            for store in stores:
                puts = [
                    store.put(NS, f"k{number % 7}", {"text": text, "is_indexed": True})
                    for number, text in enumerate(TEXTS * 4)
                ]
                items = await asyncio.gather(*puts)
                found.append([(item.key, item.version, item.value) for item in items])
            assert found[0] == found[1]
        await require_right(one, postgres_url)
