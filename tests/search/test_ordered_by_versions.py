"""The order of a large namespace's versions: kept once it is asked for, and then always right."""

from __future__ import annotations

import io
import random
from pathlib import Path
from typing import Any

import pytest

from kvstore import InMemoryStore, KeyValueStore, SearchQuery, SQLiteStore
from kvstore.sqlite import large, reading
from kvstore.sqlite.connection import connect
from kvstore.testing import ManualClock

NS = ("notes",)
OTHER = ("other",)
HAS_ORDER = "SELECT count(*) FROM large_namespaces WHERE until IS NULL"


@pytest.fixture(autouse=True)
def small_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a namespace be large with fewer items than a test would wait for."""
    monkeypatch.setattr(large, "LARGE", 30)
    monkeypatch.setattr(large, "_SLICE", 50)
    monkeypatch.setattr(reading, "_SPARE", 2)
    monkeypatch.setattr(reading, "_TRIED", 10)
    # So few are looked through on the loop's own thread, where nothing is noted
    monkeypatch.setattr("kvstore.sqlite.store.light_look", lambda *_: None)


def kept(path: Path) -> int:
    connection = connect(path, "ro")
    try:
        if not connection.execute("SELECT 1 FROM meta WHERE name = 'large'").fetchone():
            return 0
        return int(connection.execute(HAS_ORDER).fetchone()[0])
    finally:
        connection.close()


async def test_it_finds_what_is_found_without_through_any_history(tmp_path: Path) -> None:
    chance, clock = random.Random(5), ManualClock()
    options: dict[str, Any] = {"clock": clock, "sweep_interval": None}
    path = tmp_path / "store.db"
    async with (
        SQLiteStore(path, **options) as store,
        SQLiteStore(path, read_cache_bytes=0, **options) as other,
        InMemoryStore(**options) as oracle,
    ):
        for turn in range(16):
            writer = (store, other)[turn % 2]
            changed = {chance.choice(["", f"k{chance.randrange(300):03}"]): turn for _ in range(60)}
            for each in (writer, oracle):
                await each.put_many(NS, changed, ttl=5 if turn % 4 == 2 else None)
                await each.put_many((*NS, "below"), changed)
                await each.delete_many(NS, [f"k{turn * 7 + at:03}" for at in range(7)])
                await each.remove(NS, f"k{turn}?5")
                await each.increment(NS, "counter")
                await each.expire(NS, f"k{turn:03}", 3)
                if turn % 3 == 2:
                    await each.sweep()
            if turn == 9:
                file = io.BytesIO()
                await oracle.export_items(file)
                for each in (writer, oracle):
                    file.seek(0)
                    await each.import_items(file)
            clock.advance(2)
            for each in (store, other):
                for asked in (
                    SearchQuery(limit=3),
                    SearchQuery(limit=5, offset=20),
                    SearchQuery(limit=1000),
                    SearchQuery(limit=3, filter={"$not": {"a": 1}}),
                    SearchQuery("1", limit=3),
                    SearchQuery(order_by="-version", limit=3),
                    SearchQuery(limit=4, subtree=True),
                ):
                    found, expected = await each.search(NS, asked), await oracle.search(NS, asked)
                    assert [(item.namespace, item.key, item.value) for item in found] == [
                        (item.namespace, item.key, item.value) for item in expected
                    ], (turn, asked)
                for where in (NS, (*NS, "below")):
                    assert await each.count(where) == await oracle.count(where)
                assert await each.count((), subtree=True) == await oracle.count((), subtree=True)
            assert (await store.check()).ok
    assert kept(path) == 2


async def test_what_is_asked_for_once_costs_nothing(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    async with SQLiteStore(path) as store:
        await store.put_many(NS, {f"k{at:03}": at for at in range(40)})
        await store.put_many(OTHER, {f"k{at:03}": at for at in range(20)})
        await store.search(NS)
        for _ in range(5):
            await store.search(OTHER)
            await store.count(OTHER)
        assert kept(path) == 0
        await store.search(NS)
        assert kept(path) == 1
        assert [item.key for item in await store.search(NS, limit=2)] == ["k039", "k038"]


async def test_slices_that_were_never_finished_are_finished_by_the_next_store(
    tmp_path: Path,
) -> None:
    path = tmp_path / "store.db"
    async with SQLiteStore(path) as store:
        await store.put_many(NS, {f"k{at:03}": at for at in range(200)})
        for _ in range(2):
            await store.search(NS)
        await store.put(NS, "k020", "in the part that is there")
        await store.put(NS, "k150", "in the part that is not")
        await store.delete_many(NS, ["k030", "k160"])
        await store.put(NS, "k0300", 1)
        assert kept(path) == 0
        assert (await store.check()).ok
    with KeyValueStore(SQLiteStore(path)) as facade:
        del facade
    async with SQLiteStore(path) as store:
        for _ in range(6):
            latest = [item.key for item in await store.search(NS, limit=3)]
            assert latest == ["k0300", "k150", "k020"]
        assert kept(path) == 1
        assert await store.count(NS) == 199
        assert (await store.check()).ok


def test_the_sync_facade_has_it_too(tmp_path: Path) -> None:
    from kvstore import SyncStore

    path = tmp_path / "store.db"
    with SyncStore(path) as store:
        store.put_many(NS, {f"k{at:03}": at for at in range(40)})
        for _ in range(3):
            assert store.count(NS) == 40
            assert store.search(NS, limit=1)[0].key == "k039"
        assert kept(path) == 1


async def test_a_store_that_is_read_only_makes_none_and_uses_it(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    async with SQLiteStore(path) as store:
        await store.put_many(NS, {f"k{at:03}": at for at in range(40)})
    for turn in range(2):
        async with SQLiteStore(path, read_only=True) as store:
            for _ in range(4):
                assert (await store.search(NS, limit=1))[0].key == "k039"
                assert await store.count(NS) == 40
        assert kept(path) == turn
        async with SQLiteStore(path) as store:
            for _ in range(2):
                await store.count(NS)


async def test_damage_to_it_is_told(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    async with SQLiteStore(path) as store:
        await store.put_many(NS, {f"k{at:03}": at for at in range(40)})
        for _ in range(2):
            await store.count(NS)
        assert (await store.check()).ok
        connection = connect(path, "rw")
        connection.execute("DELETE FROM large_items WHERE version = 7")
        connection.close()
        (entries, number) = (await store.check()).problems
        assert "1 items are missing" in entries
        assert "said to have 40" in number
