"""The change feed: every change, in order, from any process, for as long as it is kept."""

from __future__ import annotations

import asyncio
import gc
import random
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from kvstore import (
    Change,
    InvalidArgumentError,
    SQLiteStore,
    Store,
    StoreClosedError,
    Watch,
    WatchExpiredError,
    WrongLoopError,
)
from kvstore.testing import ManualClock
from tests.operations.conftest import Factory
from tests.waiting import until

NS = ("users", "alice")
HOUR = 3600  # for which changes are kept after somebody has watched


async def take(watch: Watch, number: int) -> list[Change]:
    """Return the next changes; a feed that loses some fails here instead of hanging."""
    async with asyncio.timeout(20):
        return [await anext(watch) for _ in range(number)]


def told(changes: Sequence[Change]) -> list[tuple[str, str]]:
    return [(change.kind, change.key) for change in changes]


async def somebody_waits(store: Store) -> None:
    while not store.backend.bell._listeners:  # noqa: ASYNC110 - this is what is waited for
        await asyncio.sleep(0)


async def nothing_more(store: Store, watch: Watch) -> bool:
    """Whether the next change is one that is made only now."""
    await store.put(NS, "last", 0)
    (change,) = await take(watch, 1)
    return change.key == "last"


async def test_every_way_to_write_is_told(store: Store) -> None:
    async with store.watch() as watch:
        item = await store.put(NS, "a", 1)
        await store.put_many(NS, {"b": 1, "c": 2})
        await store.increment(NS, "a")
        await store.append(NS, "list", 1, 2)
        await store.pop(NS, "list")
        await store.update(NS, "a", lambda value: value + 1)
        await store.transact(lambda tx: [tx.put(NS, "d", 1), tx.delete(NS, "b")])
        await store.delete(NS, "a")
        await store.delete_many(NS, ["c", "absent"])
        await store.remove(NS, "li*")
        changes = await take(watch, 12)
        assert told(changes) == [
            *(("put", key) for key in ("a", "b", "c", "a", "list", "list", "a", "d")),
            *(("delete", key) for key in ("b", "a", "c", "list")),
        ]
        assert changes[0].version == item.version
        assert {change.namespace for change in changes} == {NS}
        assert await nothing_more(store, watch)


async def test_versions_grow_by_one_and_none_is_left_out(store: Store) -> None:
    async with store.watch() as watch:
        for number in range(50):
            await store.put_many(NS, {f"{number}-{each}": each for each in range(50)})
            await store.remove(NS, f"{number}-1*")
        versions = [change.version for change in await take(watch, 50 * (50 + 11))]
        assert versions == list(range(versions[0], versions[0] + len(versions)))


async def test_the_item_of_a_put_is_the_present_one(store: Store) -> None:
    async with store.watch() as watch:
        await store.put(NS, "kept", {"data": b"\x00"})
        await store.put(NS, "changed", 1)
        newest = await store.put(NS, "changed", 2)
        await store.put(NS, "gone", 1)
        await store.delete(NS, "gone")
        kept, first, second, gone, delete = await take(watch, 5)
        assert kept.item is not None
        assert kept.item.value == {"data": b"\x00"}
        assert first.item == second.item == newest
        assert first.version < second.version == newest.version
        assert gone.item is None
        assert delete.item is None


async def test_an_expiry_is_told_at_its_time(store: Store, clock: ManualClock) -> None:
    async with store.watch() as watch:
        await store.put(NS, "brief", 1, ttl=5)
        await store.put(NS, "long", 1, ttl=50)
        assert told(await take(watch, 2)) == [("put", "brief"), ("put", "long")]
        clock.advance(5)
        assert told(await take(watch, 1)) == [("expire", "brief")]
        assert await nothing_more(store, watch)


async def test_a_write_over_an_expired_item_tells_the_expiry_first(
    store: Store, clock: ManualClock
) -> None:
    await store.put(NS, "plain", 1, ttl=5)
    await store.put(NS, "ttl", 1, ttl=5)
    await store.put(NS, "counter", 1, ttl=5)
    async with store.watch() as watch:
        clock.advance(6)
        async with asyncio.TaskGroup() as group:  # before the watch has looked again
            group.create_task(store.put(NS, "plain", 2))
            group.create_task(store.put(NS, "ttl", 2, ttl=9))
            group.create_task(store.increment(NS, "counter"))
        changes = await take(watch, 6)
        for key in ("plain", "ttl", "counter"):
            assert [each.kind for each in changes if each.key == key] == ["expire", "put"]
        versions = [change.version for change in changes]
        assert versions == sorted(set(versions))
        assert await nothing_more(store, watch)


async def test_a_sweep_tells_of_what_expired(store: Store, clock: ManualClock) -> None:
    async with store.watch():
        await store.put_many(NS, {"a": 1, "b": 2}, ttl=5)
        version = (await store.put(NS, "c", 1)).version
    clock.advance(5)
    assert await store.sweep() == 2
    async with store.watch(since=version) as watch:
        assert sorted(told(await take(watch, 2))) == [("expire", "a"), ("expire", "b")]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({}, ["root", "a1", "a2", "b1"]),
        ({"namespace": ("a",)}, ["a1", "a2"]),
        ({"namespace": ("a",), "subtree": False}, ["a1"]),
        ({"namespace": (), "subtree": False}, ["root"]),
        ({"pattern": "*1"}, ["a1", "b1"]),
        ({"namespace": ["a"], "pattern": "a[2-9]"}, ["a2"]),
        ({"namespace": ("ab",)}, []),
    ],
)
async def test_a_watch_looks_only_where_it_was_told_to(
    store: Store, arguments: dict[str, object], expected: list[str]
) -> None:
    async with store.watch(**arguments) as watch, store.watch() as everything:  # type: ignore[arg-type]
        for namespace, key in (((), "root"), (("a",), "a1"), (("a", "x"), "a2"), (("b",), "b1")):
            await store.put(namespace, key, 1)
        assert len(await take(everything, 4)) == 4
        assert [change.key for change in await take(watch, len(expected))] == expected


async def test_a_watch_resumes_from_a_version(store: Store) -> None:
    async with store.watch() as watch:
        for number in range(10):
            await store.put(NS, str(number), number)
        changes = await take(watch, 4)
        assert watch.version == changes[-1].version
    async with store.watch(since=watch.version) as again:
        assert [change.key for change in await take(again, 6)] == [str(n) for n in range(4, 10)]


async def test_without_since_the_past_is_not_told(store: Store) -> None:
    async with store.watch():
        await store.put(NS, "before", 1)
    async with store.watch() as watch:
        assert await nothing_more(store, watch)


async def test_a_watch_may_begin_by_async_for_and_end_by_break(store: Store) -> None:
    tasks = asyncio.all_tasks()

    async def first_key() -> str:
        async for change in store.watch(NS):
            return change.key
        raise AssertionError

    watcher = asyncio.create_task(first_key())
    while not (await store.stats()).changes:  # until the watch has begun
        await store.put(NS, "key", 1)
        await asyncio.sleep(0)
    assert await watcher == "key"
    await until(lambda: asyncio.all_tasks() == tasks)  # a server may be about to be listened to
    gc.collect()
    assert not store.backend.bell.watches
    assert not store.backend.bell._listeners


async def test_a_cancelled_anext_loses_nothing(store: Store) -> None:
    async with store.watch() as watch:
        seen: list[Change] = []
        chance = random.Random(1)
        for number in range(200):
            await store.put(NS, str(number), number)
            waiter = asyncio.ensure_future(anext(watch))
            for _ in range(chance.randrange(6)):
                await asyncio.sleep(0)
            waiter.cancel()
            (result,) = await asyncio.gather(waiter, return_exceptions=True)
            if isinstance(result, Change):
                seen.append(result)
        seen += await take(watch, 200 - len(seen))
        assert [change.key for change in seen] == [str(number) for number in range(200)]


async def test_many_watches_see_the_same(store: Store) -> None:
    async with store.watch() as one, store.watch() as two, store.watch(pattern="1*") as some:
        for number in range(20):
            await store.put(NS, str(number), number)
        assert await take(one, 20) == await take(two, 20)
        assert len(await take(some, 11)) == 11


async def test_closing_the_store_ends_a_watch(factory: Factory) -> None:
    store = await factory().open()
    watch = store.watch()
    waiter = asyncio.ensure_future(anext(watch))
    await somebody_waits(store)
    await store.close()
    with pytest.raises(StoreClosedError):
        await waiter
    with pytest.raises(StopAsyncIteration):
        await anext(watch)


async def test_a_closed_watch_ends(store: Store) -> None:
    watch = store.watch()
    waiter = asyncio.ensure_future(anext(watch))
    await somebody_waits(store)
    await watch.aclose()
    with pytest.raises(StopAsyncIteration):
        await waiter
    assert not store.backend.bell.watches


async def test_two_tasks_cannot_share_a_watch(store: Store) -> None:
    async with store.watch() as watch:
        waiter = asyncio.ensure_future(anext(watch))
        await somebody_waits(store)
        with pytest.raises(RuntimeError, match="one for each task"):
            await anext(watch)
        await store.put(NS, "key", 1)
        assert (await waiter).key == "key"


def test_a_watch_belongs_to_the_loop_of_its_store(factory: Factory) -> None:
    async def open_store() -> Store:
        return await factory().open()

    with asyncio.Runner() as one:
        store = one.run(open_store())
        watch = one.run(_made(store))
        with asyncio.Runner() as other, pytest.raises(WrongLoopError):
            other.run(_next(watch))
        one.run(store.close())


async def _made(store: Store) -> Watch:
    return store.watch()


async def _next(watch: Watch) -> Change:
    return await anext(watch)


async def test_what_is_no_version_is_refused(store: Store) -> None:
    with pytest.raises(InvalidArgumentError, match="since"):
        store.watch(since=-1)
    with pytest.raises(InvalidArgumentError, match="ahead of the store"):
        await anext(store.watch(since=1_000))


async def test_nobody_watches_and_nothing_is_recorded(store: Store) -> None:
    await store.put(NS, "key", 1)
    await store.remove(NS, "*")
    assert (await store.stats()).changes == 0
    with pytest.raises(WatchExpiredError, match="watch from now on"):
        await anext(store.watch(since=0))


async def test_an_empty_store_can_be_watched_from_its_beginning(store: Store) -> None:
    async with store.watch(since=0) as watch:
        assert await nothing_more(store, watch)


async def test_the_history_ends_some_time_after_the_last_watch(
    factory: Factory, clock: ManualClock
) -> None:
    async with factory(clock=clock, sweep_interval=None) as store:
        first = store.watch()
        async with first:
            await store.put(NS, "a", 1)
            (seen,) = await take(first, 1)
        clock.advance(0.6 * HOUR)
        await store.sweep()
        await store.put(NS, "b", 1)
        second = store.watch(since=seen.version)
        async with second:
            assert told(await take(second, 1)) == [("put", "b")]
        for _ in range(3):
            clock.advance(2 * HOUR)
            await store.sweep()
        assert (await store.stats()).changes == 0
        await store.put(NS, "c", 1)
        assert (await store.stats()).changes == 0
        with pytest.raises(WatchExpiredError, match=f"after version {second.version}"):
            await anext(store.watch(since=second.version))


async def test_a_watch_outlives_a_sleep_of_the_machine(
    factory: Factory, clock: ManualClock
) -> None:
    """The clock jumps further than the lease; writes come before the watch has looked again."""
    async with (
        factory(clock=clock, sweep_interval=None) as store,
        store.watch() as watch,
    ):
        for _ in range(5):
            clock.advance(10 * HOUR)
            await store.put(NS, "key", 1)
            await store.sweep()
            await store.put(NS, "key", 2)
            assert told(await take(watch, 2)) == [("put", "key")] * 2


async def test_a_watch_that_is_too_slow_is_told_so(factory: Factory, clock: ManualClock) -> None:
    async with (
        factory(clock=clock, sweep_interval=None) as store,
        store.watch() as watch,
    ):
        await store.put(NS, "a", 1)
        clock.advance(5 * HOUR)
        await store.sweep()
        with pytest.raises(WatchExpiredError, match="no longer kept"):
            await take(watch, 1)
        with pytest.raises(StopAsyncIteration):
            await anext(watch)


async def test_a_change_is_told_within_50_ms_in_the_same_process(sqlite: SQLiteStore) -> None:
    latencies = []
    async with sqlite.watch() as watch:
        for number in range(100):
            waiter = asyncio.ensure_future(anext(watch))
            await somebody_waits(sqlite)
            began = time.perf_counter()
            await sqlite.put(NS, "key", number)
            await waiter
            latencies.append(time.perf_counter() - began)
    assert statistics.median(latencies) < 0.050


CHILD = """
import asyncio, sys, time
import kvstore

async def main(path):
    async with kvstore.open(path) as store:
        print("ready", flush=True)
        for line in sys.stdin:
            await store.put(("child",), line.strip(), time.time())
            print("done", flush=True)

asyncio.run(main(sys.argv[1]))
"""


async def child(*arguments: object) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        *map(str, arguments),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    )


@pytest.mark.slow
async def test_a_change_is_told_within_250_ms_across_processes(sqlite: SQLiteStore) -> None:
    process = await child("-c", CHILD, sqlite.path)
    assert process.stdin is not None
    assert process.stdout is not None
    await process.stdout.readline()
    latencies = []
    async with sqlite.watch() as watch:
        for number in range(20):
            process.stdin.write(f"{number}\n".encode())
            (change,) = await take(watch, 1)
            assert change.key == str(number)
            assert change.item is not None
            latencies.append(time.time() - change.item.value)
    process.stdin.close()
    assert await process.wait() == 0
    assert statistics.median(latencies) < 0.250


CROWD = """
import asyncio, random, sys
import kvstore

async def main(path, name):
    chance = random.Random(name)
    async with kvstore.open(path, sweep_interval=0.05, busy_timeout=60) as store:
        for number in range(150):
            key = str(chance.randrange(30))
            match chance.randrange(5):
                case 0:
                    await store.delete(("n",), key)
                case 1:
                    await store.put_many(("n",), {key: 1, key + "x": 2}, ttl=0.02)
                case 2:
                    await store.remove(("n",), key + "*")
                case 3:
                    await store.increment(("n", "count"), "all")
                case 4:
                    await store.put(("n",), key, {"by": name, "number": number})

asyncio.run(main(sys.argv[1], sys.argv[2]))
"""


@pytest.mark.slow
async def test_a_watch_rebuilds_what_many_processes_write(sqlite: SQLiteStore) -> None:
    """The feed, applied to nothing, is the store."""
    async with sqlite.watch() as watch:
        processes = [await child("-c", CROWD, sqlite.path, name) for name in "abc"]
        done = asyncio.create_task(settle(sqlite, processes))
        seen: list[Change] = []
        mirror: dict[tuple[tuple[str, ...], str], int] = {}
        while (change := (await take(watch, 1))[0]).key != "end":
            seen.append(change)
            if change.kind == "put":
                mirror[change.namespace, change.key] = change.version
            else:
                assert mirror.pop((change.namespace, change.key))
        assert await done == [0, 0, 0]
    versions = [change.version for change in seen]
    assert versions == sorted(set(versions))
    items = {(item.namespace, item.key): item.version async for item in sqlite.scan(("n",))}
    assert mirror == items


async def settle(store: Store, processes: list[asyncio.subprocess.Process]) -> list[int]:
    """Wait for the end of the processes and of all that expires; then write the last change."""
    codes = [await process.wait() for process in processes]
    while [item async for item in store.scan() if item.expires_at is not None]:
        pass
    await store.sweep()
    await store.put((), "end", 1)
    return codes
