"""Small namespaces are read on the event loop's thread, large ones in another, with one result."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

import kvstore
from kvstore.embeddings import HashingEmbeddings
from kvstore.sqlite import connection, driver, engine, statements

pytestmark = pytest.mark.skipif(
    not statements.READS_LENGTH_ALONE,
    reason="this SQLite reads a value to tell its length, so that all reads go to threads",
)

SMALL, LARGE, LONG = ("small",), ("large",), ("long",)


async def fill(store: kvstore.SQLiteStore) -> None:
    few = {f"é{n:03}": {"n": n, "kind": "ab"[n % 2]} for n in range(statements.FEW)}
    await store.put_many(SMALL, few)
    await store.put_many(LARGE, few)
    await store.put(LARGE, "one more", {"n": 1_000, "kind": "a"})
    await store.put_many(LONG, {"a": {"n": 1, "text": "x" * engine.INLINE_BYTES}, "b": {"n": 2}})


async def look(store: kvstore.SQLiteStore, namespace: tuple[str, ...]) -> list[Any]:
    """Make each kind of read that looks through a namespace."""
    return [
        await store.search(namespace, filter={"kind": "a"}, limit=100),
        await store.search(namespace, limit=3, offset=2),
        await store.keys(namespace, "*7"),
        await store.count(namespace),
        [item async for item in store.scan(namespace, filter={"n": {"$gt": 5}}, subtree=False)],
    ]


@pytest.fixture
def threads(unhurried: None, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Notes the reads that go to a thread."""
    gone: list[str] = []
    submit = engine.Reader.submit

    def note(self: engine.Reader, read: Any, *args: Any, **kwargs: Any) -> Any:
        gone.append(read.__name__)
        return submit(self, read, *args, **kwargs)

    monkeypatch.setattr(engine.Reader, "submit", note)
    return gone


async def test_a_small_namespace_is_read_without_a_thread(
    tmp_path: Path, threads: list[str]
) -> None:
    async with kvstore.SQLiteStore(tmp_path / "store.db", read_cache_bytes=0) as store:
        await fill(store)
        await look(store, SMALL)
        assert threads == []
        for namespace in (LARGE, LONG):
            await look(store, namespace)
            assert threads == ["select", "select", "keys", "count", "page"]
            threads.clear()
        await store.count(SMALL, subtree=True)
        assert threads == ["count"]


async def test_a_page_of_a_large_namespace_is_read_without_a_thread(
    tmp_path: Path, threads: list[str]
) -> None:
    now = 1_000.0
    async with kvstore.SQLiteStore(tmp_path / "store.db", clock=lambda: now) as store:
        await fill(store)
        first = [key async for key in keys_of(store, LARGE)]
        assert await store.keys(LARGE, limit=2) == first[:2]
        assert await store.keys(LARGE, reverse=True, limit=1) == first[-1:]
        assert await store.keys(LARGE, after=first[50], limit=3) == first[51:54]
        assert await store.keys((), subtree=True, reverse=True, limit=1) == [
            f"é{statements.FEW - 1:03}"
        ]
        assert threads == []
        backwards = store.scan(LARGE, subtree=False, reverse=True, batch_size=1)
        assert [(await anext(backwards)).key for _ in range(5)] == first[:-6:-1]
        await anext(store.scan(LARGE, filter={"kind": "a"}, batch_size=10))
        assert threads == []
        await store.keys(LARGE, "*7", limit=1)  # it may pass any number over
        await store.keys(LARGE, limit=statements.FEW + 1)
        await anext(store.scan(LONG, batch_size=1))
        assert threads == ["keys", "keys", "page"]
        threads.clear()
        await store.put(LARGE, "a", 1, ttl=1)
        now += 10
        assert await store.keys(LARGE, limit=1) == first[:1]  # so does what has expired
        assert threads == ["keys"]


async def keys_of(store: kvstore.SQLiteStore, namespace: tuple[str, ...]) -> AsyncIterator[str]:
    async for item in store.scan(namespace, subtree=False, batch_size=20):
        yield item.key


async def test_few_namespaces_and_a_page_of_many_are_listed_without_a_thread(
    tmp_path: Path, threads: list[str]
) -> None:
    now = 1_000.0
    few, many = [("few", f"{n:03}") for n in range(16)], [("many", f"{n:03}") for n in range(17)]
    async with kvstore.SQLiteStore(tmp_path / "store.db", clock=lambda: now) as store:
        for namespace in few + many:
            await store.put(namespace, "k", 1)
            await store.put(namespace, "l", 1, ttl=5)
        await store.put(("few", "gone"), "k", 1, ttl=5)
        now += 10
        assert await store.list_namespaces(("few",)) == few
        assert await store.list_namespaces(("few", ...), suffix=("003",)) == few[3:4]
        assert await store.list_namespaces(limit=5, offset=14) == few[14:] + many[:3]
        assert await store.list_namespaces(("many",), limit=100) == many
        assert await store.list_namespaces(("ma",)) == []
        assert threads == []
        assert await store.list_namespaces(("many",)) == many
        assert await store.list_namespaces((), suffix=("003",), limit=1) == few[3:4]
        assert await store.list_namespaces(max_depth=1) == [("few",), ("many",)]
        assert await store.list_namespaces(limit=2**70, offset=2**70) == []
        long = [("long", f"{at}" * 40_000) for at in range(3)]
        await asyncio.gather(*(store.put(each, "k", 1) for each in long))
        assert await store.list_namespaces(("long",)) == long
        assert threads == ["list_namespaces"] * 5
        threads.clear()
        await store.put_many(SMALL, dict.fromkeys(map(str, range(statements.FEW)), 1), ttl=5)
        now += 10  # so many may be passed over until one is found that is live
        assert await store.list_namespaces(("few",)) == few
        assert threads == ["list_namespaces"]


async def test_what_takes_long_in_a_small_namespace_goes_to_a_thread(
    tmp_path: Path, threads: list[str]
) -> None:
    async with kvstore.SQLiteStore(tmp_path / "store.db", read_cache_bytes=0) as store:
        await fill(store)
        for filter in ({"n": {"$in": list(range(17))}}, {"$or": [{"n": n} for n in range(17)]}):
            assert len(await store.search(SMALL, filter=filter, limit=100)) == 17
            assert threads.pop() == "select"
        await store.search(SMALL, "x" * 17)
        assert threads.pop() == "select"
        for pattern in ("*a*b*c", "?" * 101):
            assert await store.keys(SMALL, pattern) == []
            assert threads.pop() == "keys"
        assert threads == []


async def test_a_crowd_waits_for_the_thread_that_is_at_work(
    tmp_path: Path, threads: list[str]
) -> None:
    """Two threads that read at once would take turns at every row."""
    async with kvstore.SQLiteStore(tmp_path / "store.db", read_cache_bytes=0) as store:
        await fill(store)
        counts = [store.count(namespace) for namespace in (LARGE, SMALL, SMALL)]
        assert await asyncio.gather(*counts) == [129, 128, 128]
        assert threads == ["count"] * 3


async def test_both_ways_give_the_same(
    tmp_path: Path, threads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with kvstore.SQLiteStore(tmp_path / "store.db", read_cache_bytes=0) as store:
        await fill(store)
        here = await look(store, SMALL)
        assert threads == []
        monkeypatch.setattr(engine.light, "INLINE_BYTES", -1)
        assert await look(store, SMALL) == here
        assert len(threads) == 5


async def test_a_damaged_row_is_told_from_either_way(
    tmp_path: Path, threads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "store.db"
    async with kvstore.SQLiteStore(path, read_cache_bytes=0) as store:
        await fill(store)
    raw = connection.connect(path, "rw")
    raw.execute("UPDATE items SET value = ? WHERE key = 'é004'", ('{"kind":"a"}',))
    raw.close()
    kept = []
    async with kvstore.SQLiteStore(path, read_cache_bytes=0) as store:
        for _ in range(2):
            with pytest.raises(kvstore.StoreCorruptError, match="é004") as told:
                await store.search(SMALL, filter={"kind": "a"}, limit=100)
            kept.append(told.value)  # and with it what the read had in hand
            version = (await store.put(SMALL, "é005", {"kind": "b"})).version
            item = await store.get(SMALL, "é005")
            assert item is not None
            assert item.version == version
            (latest,) = await store.search(SMALL, filter={"kind": "b"}, limit=1)
            assert latest.version == version
            monkeypatch.setattr(engine.light, "INLINE_BYTES", -1)
        assert threads == ["select", "select"]


async def test_many_that_look_at_once_leave_the_loop_room(tmp_path: Path) -> None:
    async with kvstore.SQLiteStore(tmp_path / "store.db", read_cache_bytes=0) as store:
        await fill(store)
        turns = 0

        async def count_turns() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        counting = asyncio.create_task(count_turns())
        searches = (store.search(SMALL, filter={"kind": "b"}, limit=5) for _ in range(200))
        found = await asyncio.gather(*searches)
        counting.cancel()
    assert all(items == found[0] for items in found)
    assert turns > 10


async def test_a_few_keys_are_read_without_a_thread(
    tmp_path: Path, threads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with kvstore.SQLiteStore(tmp_path / "store.db", read_cache_bytes=0) as store:
        await fill(store)
        keys = ["é007", "absent", "é001", *(f"é{n:03}" for n in range(20, 30))]
        few = await store.get_many(SMALL, keys)
        assert list(few) == [key for key in keys if key != "absent"]
        assert threads == []
        assert await store.update(SMALL, "é007", lambda value: value | {"n": -7})
        assert await store.get_many(LONG, ["a", "b"]) == {
            key: await store.get(LONG, key) for key in "ab"
        }
        assert threads == ["get_many"]
        many = await store.get_many(
            SMALL, [f"é{n:03}" for n in range(engine.limits.GROUP_READS + 1)]
        )
        assert len(many) == engine.limits.GROUP_READS + 1
        assert threads == ["get_many"] * 2
        monkeypatch.setattr(engine.light, "GROUP_READS", 0)
        assert (await store.get_many(SMALL, keys)).keys() == few.keys()
        assert threads == ["get_many"] * 3


async def test_every_kind_of_read_leaves_a_turn_that_has_taken_long(
    tmp_path: Path, threads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    driver.require_extensions()
    index = kvstore.IndexConfig(HashingEmbeddings(64), fields=["kind"])
    async with kvstore.SQLiteStore(tmp_path / "store.db", index=index, read_cache_bytes=0) as store:
        await fill(store)
        searches: list[Callable[[], Awaitable[Any]]] = [
            lambda: store.search(SMALL, "a", mode="semantic", limit=3),
            lambda: store.get_many(SMALL, ["é001", "é002"]),
            lambda: store.count(SMALL),
        ]
        threads.clear()  # of what looked for items that are to be embedded
        here = [await search() for search in searches]
        assert threads == []
        monkeypatch.setattr(engine.pace, "TURN_S", -1.0)  # over before it began
        assert [await search() for search in searches] == here
        assert threads == ["search", "get_many", "count"]
