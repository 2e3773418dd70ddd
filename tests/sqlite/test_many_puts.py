"""A unit of thousands of puts is written in slices, and is one unit all the same."""

from __future__ import annotations

import gc
from pathlib import Path

import pytest

import kvstore
from kvstore import SQLiteStore, SyncStore
from kvstore.operations import Put
from kvstore.sqlite import driver

NS = ("many",)
MANY = {f"k{number:05}": number for number in range(5_000)}


async def test_it_answers_in_order_over_items_of_any_kind(tmp_path: Path) -> None:
    async with SQLiteStore(tmp_path / "a.db") as store:
        await store.put(NS, "k00007", "x" * 100_000)
        await store.put(NS, "k03000", 1, ttl=60)
        before = await store.put(NS, "k04999", 1)
        items = await store.put_many(NS, MANY)
        assert [(item.key, item.value) for item in items] == list(MANY.items())
        assert [item.version for item in items] == list(
            range(before.version + 1, before.version + 1 + len(MANY))
        )
        assert items[-1].created_at == before.created_at
        assert items[3_000].expires_at is None
        assert await store.get_many(NS, MANY) == {item.key: item for item in items}
        again = await store.put_many(NS, MANY)
        assert {item.version for item in again}.isdisjoint(item.version for item in items)


async def test_it_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    async with SQLiteStore(path, busy_timeout=0.05) as store:
        await store.put(NS, "a", 1)
        other = driver.connect(f"file:{path}")
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(kvstore.StoreBusyError):
            await store.put_many(NS, MANY)
        other.execute("ROLLBACK")
        assert await store.count(NS) == 1
        other.execute(
            "CREATE TRIGGER refuse BEFORE INSERT ON items WHEN NEW.key = 'k04500' "
            "BEGIN SELECT RAISE(ABORT, 'no'); END"
        )
        with pytest.raises(kvstore.StoreError):  # when most are in
            await store.put_many(NS, MANY)
        assert await store.count(NS) == 1
        other.execute("DROP TRIGGER refuse")
        other.close()
        assert len(await store.put_many(NS, MANY)) == len(MANY)
        assert await store.count(NS) == len(MANY) + 1


def test_sync_code_has_it_too(tmp_path: Path) -> None:
    with SyncStore(tmp_path / "a.db") as store:
        items = store.put_many(NS, MANY)
        assert [item.value for item in items] == list(MANY.values())
        assert store.count(NS) == len(MANY)


async def test_no_operation_outlives_it(tmp_path: Path) -> None:
    async with SQLiteStore(tmp_path / "a.db") as store:
        before = sum(type(each) is Put for each in gc.get_objects())
        assert len(await store.put_many(NS, MANY)) == len(MANY)
        assert sum(type(each) is Put for each in gc.get_objects()) < before + 10
