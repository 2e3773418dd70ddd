"""Puts that wait under many roots are committed by one call, and come to what each would alone."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kvstore import (
    Change,
    IndexConfig,
    InMemoryStore,
    InvalidKeyError,
    Item,
    Store,
    StoreAccessError,
    StoreError,
)
from kvstore.sequences import key_of
from kvstore.testing import ManualClock

from .network import network_to
from .server import Server, reason_to_skip, schema_of

if reason_to_skip() is not None:
    pytest.skip(str(reason_to_skip()), allow_module_level=True)

from kvstore.postgres import PostgresStore, statements
from kvstore.postgres.channels import Channel
from kvstore.postgres.connection import Target, connect

from .test_lost_answers import When, pair_at

ROOTS = [f"user{number}" for number in range(12)]


async def put_all(store: Store, key: str, value: object, **options: Any) -> list[Item]:
    """Put an item under each root at once."""
    puts = (store.put((root, "notes"), key, value, **options) for root in ROOTS)
    return await asyncio.gather(*puts)


async def stored(store: Store) -> dict[tuple[str, str], Item]:
    """Return all items, by root and key."""
    return {(item.namespace[0], item.key): item async for item in store.scan()}


@asynccontextmanager
async def locked(url: str, *roots: str) -> AsyncIterator[None]:
    """Hold roots, as another program does whose transaction takes long."""
    raw = await connect(Target.parse(url))
    try:
        await raw.execute("BEGIN")
        await raw.execute(
            "SELECT FROM kvstore_roots WHERE root = ANY ($1) FOR NO KEY UPDATE",
            [f"{root}\t" for root in roots],
        )
        yield
        await raw.execute("ROLLBACK")
    finally:
        await raw.close()


async def test_they_are_one_round_trip(postgres_url: str) -> None:
    async with network_to(postgres_url) as network:
        url = f"{network.url}?search_path={schema_of(postgres_url)},public"
        async with PostgresStore(url) as store:
            for number in range(3):
                last = await put_all(store, "k", number)
            before = network.messages
            items = await put_all(store, "k", 3, ttl=60)
            assert network.messages == before + 1
            assert {item.version for item in items} == {last[0].version + 1}
            assert await stored(store) == {(item.namespace[0], "k"): item for item in items}


async def test_versions_of_each_root_follow_one_another(postgres_url: str) -> None:
    """Also where another era begins, and where several puts of one root go together."""
    async with PostgresStore(postgres_url) as one, PostgresStore(postgres_url) as two:
        found: dict[str, list[int]] = {root: [] for root in ROOTS}
        for number in range(300):
            store = one if number % 5 else two
            for item in [item for _ in "ab" for item in await put_all(store, "k", number)]:
                found[item.namespace[0]].append(item.version)
            if number % 3 == 0:
                roots = ROOTS[:4] * 4
                puts = [store.put((root,), f"k{at}", at) for at, root in enumerate(roots)]
                for item in await asyncio.gather(*puts):
                    found[item.namespace[0]].append(item.version)
        assert all(sorted(set(each)) == each for each in found.values())
        for store in (one, two):
            assert (await store.check()).ok
        items = await stored(one)
        assert {(root, "k") for root in ROOTS} <= set(items)
        assert {item.version for (_, key), item in items.items() if key == "k"} >= {
            versions[-1] for versions in list(found.values())[4:]
        }


@pytest.mark.parametrize("how", ["plain", "with logs", "history", "watched", "words", "pooler"])
async def test_whatever_is_put_comes_to_the_same(postgres_url: str, how: str) -> None:
    """Items, their past, and changes in order, as the other backend has them."""
    chance = random.Random(how)
    clock = ManualClock()
    options: dict[str, Any] = {
        "clock": clock,
        "sweep_interval": None,
        "history": 3600.0 if how == "history" else None,
        "index": IndexConfig() if how == "words" else None,
    }
    roots = ROOTS[:6]
    keys = [key_of(1), key_of(2)] if how == "with logs" else ["a", "b", "c"]
    async with (
        PostgresStore(postgres_url, pooler=how == "pooler", **options) as one,
        PostgresStore(postgres_url, **options) as two,
        InMemoryStore(**options) as memory,
        AsyncExitStack() as stack,
    ):
        if how == "with logs":
            for store in (one, memory):
                await store.log((roots[0], "notes")).append("first")
                await store.queue((roots[1], "jobs")).put("first")
        watches = []
        if how == "watched":
            watches = [await stack.enter_async_context(each.watch()) for each in (one, memory)]
        for _ in range(60):
            here = chance.choice((one, one, two))
            calls = [
                (
                    (chance.choice(roots), "notes"),
                    chance.choice(keys),
                    {"text": f"tea {chance.randrange(5)}"},
                    chance.choice([None, None, 5.0]),
                )
                for _ in range(chance.randint(1, 9))
            ]
            puts = (here.put(space, key, value, ttl=ttl) for space, key, value, ttl in calls)
            items = await asyncio.gather(*puts, return_exceptions=True)
            for item, (space, key, value, ttl) in zip(items, calls, strict=True):
                try:
                    wanted = await memory.put(space, key, value, ttl=ttl)
                except InvalidKeyError:  # it is of a log
                    assert isinstance(item, InvalidKeyError)
                else:
                    assert isinstance(item, Item)
                    assert replace(item, version=wanted.version) == wanted
            if chance.random() < 0.2:
                root = chance.choice(roots)
                for store in (here, memory):
                    await store.delete((root, "notes"), keys[0])
            if chance.random() < 0.3:
                clock.advance(2.0)
        found = [
            {at: replace(item, version=0) for at, item in (await stored(store)).items()}
            for store in (one, memory)
        ]
        assert found[0] == found[1]
        for root in roots:
            for key in keys:
                pasts = [await store.history((root, "notes"), key) for store in (one, memory)]
                told = [[(each.kind, each.item and each.item.value) for each in p] for p in pasts]
                assert told[0] == told[1]
                assert [each.version for each in pasts[0]] == sorted(
                    {each.version for each in pasts[0]}, reverse=True
                )
        for store in (one, memory)[: len(watches)]:
            await put_all(store, "end", 0)
        changes = [await until_end(watch) for watch in watches]
        assert changes[:1] == changes[1:]
        assert (await one.check()).ok


async def until_end(watch: AsyncIterator[Change]) -> dict[str, list[tuple[str, str]]]:
    """Return what is told of each root, to its last item; versions have to be in order."""
    told: dict[str, list[Change]] = {root: [] for root in ROOTS}
    async with asyncio.timeout(20):
        while any(not each or each[-1].key != "end" for each in told.values()):
            change = await anext(watch)
            told[change.namespace[0]].append(change)
    for changes in told.values():
        versions = [each.version for each in changes]
        assert versions == sorted(set(versions))
    return {root: [(each.kind, each.key) for each in changes] for root, changes in told.items()}


async def test_a_watch_of_a_crowd_misses_nothing(postgres_url: str) -> None:
    async with (
        PostgresStore(postgres_url) as one,
        PostgresStore(postgres_url) as two,
        PostgresStore(postgres_url) as watcher,
        watcher.watch() as changes,
    ):
        items: list[Item] = []

        async def work(store: Store, root: str) -> None:
            items.extend([await store.put((root,), f"k{each % 4}", each) for each in range(15)])

        await asyncio.gather(*(work(store, root) for store in (one, two) for root in ROOTS))
        told: dict[str, list[int]] = {root: [] for root in ROOTS}
        async with asyncio.timeout(20):
            for _ in items:
                change = await anext(changes)
                told[change.namespace[0]].append(change.version)
        for root, versions in told.items():
            assert versions == sorted(item.version for item in items if item.namespace == (root,))


async def test_a_root_that_somebody_holds_delays_no_other(postgres_url: str) -> None:
    async with PostgresStore(postgres_url, busy_timeout=20, pool_size=4) as store:
        await put_all(store, "k", 0)
        async with locked(postgres_url, ROOTS[3], ROOTS[5]):
            for number in range(1, 4):
                puts = [
                    asyncio.create_task(store.put((root, "notes"), "k", number)) for root in ROOTS
                ]
                free = [put for at, put in enumerate(puts) if at not in (3, 5)]
                async with asyncio.timeout(10):
                    await asyncio.gather(*free)
                if number == 1:
                    held = [puts[3], puts[5]]
                else:
                    held += [puts[3], puts[5]]
            assert not any(put.done() for put in held)
        items = await asyncio.gather(*held)
        for each in (items[0::2], items[1::2]):
            assert [item.value for item in each] == [1, 2, 3]
            assert sorted({item.version for item in each}) == [item.version for item in each]
        assert {item.value for item in (await stored(store)).values()} == {3}
        assert (await store.check()).ok


async def test_what_cannot_be_stored_harms_no_other(postgres_url: str) -> None:
    """One whose server refuses it, and one whose caller has gone."""
    async with PostgresStore(postgres_url) as store:
        await put_all(store, "k", 0)
        raw = await connect(Target.parse(postgres_url))
        await raw.execute("ALTER TABLE kvstore_items ADD CHECK (value <> '13')")
        await raw.close()
        puts = [
            asyncio.create_task(store.put((root, "notes"), "k", 10 + at))
            for at, root in enumerate(ROOTS)
        ]
        await asyncio.sleep(0)
        puts[7].cancel()
        outcomes = await asyncio.gather(*puts, return_exceptions=True)
        assert isinstance(outcomes[3], StoreError)
        assert isinstance(outcomes[7], asyncio.CancelledError)
        found = {root: item.value for (root, _), item in (await stored(store)).items()}
        for at, root in enumerate(ROOTS):
            assert found[root] in ([0] if at == 3 else [0, 17] if at == 7 else [10 + at])
        await put_all(store, "k", 50)


@pytest.mark.parametrize("when", ["before", "after"])
async def test_they_are_stored_exactly_once(postgres_url: str, tmp_path: Path, when: When) -> None:
    async with pair_at(postgres_url, tmp_path) as (store, straight, proxy):
        for number in range(3):
            items = await put_all(store, "k", number)
        for number in range(3, 11):
            before, wanted = items, items[0].version + 1
            proxy.cut(1, when)
            items = await put_all(store, "k", number, ttl=100 if number % 2 else None)
            assert {item.version for item in items} == {wanted}
            assert await stored(straight) == {(item.namespace[0], "k"): item for item in items}
            assert [each.created_at for each in items] == [each.created_at for each in before]
        assert proxy.cuts == 8
        assert (await straight.check()).ok


async def test_a_lost_answer_is_settled_root_by_root(postgres_url: str, tmp_path: Path) -> None:
    """Also of a root that somebody holds meanwhile, for which the others do not wait."""
    async with pair_at(postgres_url, tmp_path) as (store, straight, proxy):
        for number in range(3):
            items = await put_all(store, "k", number)
        for number in (3, 4):
            before = items[3].version
            async with locked(postgres_url, ROOTS[3]):
                proxy.cut(1, "after")
                puts = [
                    asyncio.create_task(store.put((root, "notes"), "k", number)) for root in ROOTS
                ]
                free = puts[:3] + puts[4:]
                async with asyncio.timeout(10):
                    await asyncio.gather(*free)
                    await asyncio.gather(*(store.put((root,), "x", 1) for root in ROOTS[:3]))
                assert not puts[3].done()
            items = await asyncio.gather(*puts)
            assert items[3].version > before
            assert items == [await straight.get((root, "notes"), "k") for root in ROOTS]
        assert proxy.cuts == 2
        assert (await straight.check()).ok


async def test_a_call_that_comes_late_does_nothing(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which the network kept, until the connection was given up and all was sent again."""
    sent: list[tuple[Any, ...]] = []
    fetch = Channel.fetch

    async def note(channel: Channel, text: str, *args: Any) -> list[Any]:
        if text == statements.PUT_ROOTS:
            sent.append(args)
        return await fetch(channel, text, *args)

    monkeypatch.setattr(Channel, "fetch", note)
    async with PostgresStore(postgres_url) as store:
        for number in range(3):
            items = await put_all(store, "k", number)
        late = await connect(Target.parse(postgres_url))
        rows = await late.fetch(statements.PUT_ROOTS, *sent[-1])
        version = items[0].version
        assert {(row["number"], row["version"]) for row in rows} == {(sent[-1][-1], version)}
        for args in sent:
            await late.fetch(statements.PUT_ROOTS, *args)
        await late.close()
        assert await stored(store) == {(item.namespace[0], "k"): item for item in items}
        assert (await store.check()).ok


async def test_a_server_that_is_killed_loses_nothing_acknowledged() -> None:
    with Server() as server:
        async with PostgresStore(server.url, busy_timeout=30) as store, store.watch() as changes:
            acknowledged: dict[str, int] = dict.fromkeys(ROOTS, -1)
            versions: dict[str, list[int]] = {root: [] for root in ROOTS}
            is_over = asyncio.Event()
            progress: asyncio.Queue[str] = asyncio.Queue()

            async def work(root: str) -> None:
                number = 0
                while not is_over.is_set():
                    with suppress(StoreAccessError):
                        item = await store.put((root,), "k", number)
                        versions[root].append(item.version)
                        acknowledged[root] = number
                        progress.put_nowait(root)
                    number += 1

            tasks = [asyncio.create_task(work(root)) for root in ROOTS]
            for _ in range(3):
                for _ in range(500):
                    await progress.get()
                await asyncio.to_thread(server.kill)
                await asyncio.to_thread(server.start)
            is_over.set()
            await asyncio.gather(*tasks)
            await asyncio.gather(*(store.put((root,), "end", 0) for root in ROOTS))
            for (root, key), item in (await stored(store)).items():
                if key == "k":
                    assert item.value >= acknowledged[root]
            told: dict[str, list[int]] = {root: [] for root in ROOTS}
            ended: set[str] = set()
            async with asyncio.timeout(30):
                while len(ended) < len(ROOTS):
                    change = await anext(changes)
                    told[change.namespace[0]].append(change.version)
                    if change.key == "end":
                        ended.add(change.namespace[0])
            for root in ROOTS:
                assert versions[root] == sorted(set(versions[root]))
                assert told[root] == sorted(set(told[root]))
                assert set(versions[root]) <= set(told[root])
            assert (await store.check()).ok
