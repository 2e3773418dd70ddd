"""Damaged and truncated files: an error of ours or the right value, and nothing else."""

from __future__ import annotations

import asyncio
import io
import random
from contextlib import suppress
from pathlib import Path

import pytest

import kvstore
from kvstore import IndexConfig, SQLiteStore, SyncStore
from kvstore.sqlite import driver

NAMESPACE = ("faults",)
INDEX = IndexConfig()
ITEMS = {f"key-{n}": {"number": n, "text": "text " * (n % 300)} for n in range(300)}


@pytest.fixture(scope="module")
def intact(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("intact") / "store.db"

    async def make() -> None:
        async with kvstore.open(path) as store:
            await store.put_many(NAMESPACE, ITEMS)

    asyncio.run(make())
    return path.read_bytes()


async def use(path: Path) -> int:
    """Read and write in every way; return how many values came back, all of them right."""
    right = 0
    async with kvstore.open(path) as store:
        for key, value in ITEMS.items():
            try:
                item = await store.get(NAMESPACE, key)
            except kvstore.StoreCorruptError:
                continue
            if item is not None:
                assert item.value == value
                right += 1
        for use_it in (
            store.search(NAMESPACE, filter={"number": {"$gte": 5}}, limit=1000),
            store.keys(()),
            store.count(NAMESPACE, "key-1*"),
            store.list_namespaces(),
            store.get_many(NAMESPACE, list(ITEMS)),
            store.put(NAMESPACE, "key-7", 1),
            store.increment(NAMESPACE, "new"),
            store.remove(NAMESPACE, "key-2*"),
        ):
            with suppress(kvstore.StoreCorruptError):
                await use_it
    return right


@pytest.mark.parametrize("seed", range(60))
async def test_flipped_bits(tmp_path: Path, intact: bytes, seed: int) -> None:
    chance = random.Random(seed)
    damaged = bytearray(intact)
    for _ in range(chance.choice([1, 1, 5, 200])):
        damaged[chance.randrange(len(damaged))] ^= 1 << chance.randrange(8)
    path = tmp_path / "store.db"
    path.write_bytes(damaged)
    with suppress(kvstore.StoreCorruptError, kvstore.SchemaError):
        await use(path)


@pytest.mark.parametrize("tenths", range(10))
async def test_truncated(tmp_path: Path, intact: bytes, tenths: int) -> None:
    path = tmp_path / "store.db"
    truncated = intact[: len(intact) * tenths // 10 + 7]
    path.write_bytes(truncated)
    with pytest.raises((kvstore.StoreCorruptError, kvstore.SchemaError)):
        await use(path)
    assert path.read_bytes() == truncated


async def test_a_flipped_bit_in_a_value_is_named(tmp_path: Path, intact: bytes) -> None:
    path = tmp_path / "store.db"
    path.write_bytes(intact.replace(b'{"number":299,', b'{"number":298,'))
    async with kvstore.open(path) as store:
        with pytest.raises(kvstore.StoreCorruptError, match="'key-299'"):
            await store.get(NAMESPACE, "key-299")
        with pytest.raises(kvstore.StoreCorruptError, match="'key-299'"):
            await store.increment(NAMESPACE, "key-299", field="number")
        with pytest.raises(kvstore.StoreCorruptError, match="'key-299'"):
            [item async for item in store.scan()]
        await store.put(NAMESPACE, "key-299", 1)  # the cure that the message names
        assert await store.get(NAMESPACE, "key-299")


async def test_a_hostile_row_is_an_error_and_no_object(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    async with kvstore.open(path) as store:
        await store.put(NAMESPACE, "a", 1)
    connection = driver.connect(f"file:{path}?mode=rw")
    connection.execute("UPDATE items SET value = X'80049503000000000000004B012E'")
    connection.close()
    async with kvstore.open(path) as store:
        with pytest.raises(kvstore.StoreCorruptError):
            await store.get(NAMESPACE, "a")


# Of each table, what is no number where one belongs, and no bytes where those do
MEDDLED = [
    *("meta.value", "changes.at", "changes.was", "changes.created_at", "items.ttl"),
    *("items.created_at", "sequences.last", "sequences.size", "sequences.delayed"),
    *("sequences.dead", "jobs.position", "jobs.due", "jobs.token", "index_entries.slots"),
]


@pytest.fixture(scope="module")
def varied(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A file with something in every table."""
    path = tmp_path_factory.mktemp("varied") / "store.db"
    with SyncStore(SQLiteStore(path, index=INDEX, history=3600)) as store:
        store.put_many(NAMESPACE, {f"k{n}": f"word {n}" for n in range(5)}, ttl=1000)
        store.put(NAMESPACE, "k1", "another word")
        store.delete(NAMESPACE, "k2")
        store.log(("log",)).append(1, 2, 3)
        for delay in (0, 0, 100):
            store.queue(("queue",)).put("job", delay=delay)
        store.queue(("queue",)).take()
    return path.read_bytes()


@pytest.mark.parametrize("value", ["NULL", "'x'", "1.5", "x'00'"])
@pytest.mark.parametrize("column", MEDDLED)
def test_what_others_have_meddled_with_is_told(
    tmp_path: Path, varied: bytes, column: str, value: str
) -> None:
    """Where a column holds what is never written there, an error of ours says so, if any."""
    path, (table, name) = tmp_path / "store.db", column.split(".")
    path.write_bytes(varied)
    connection = driver.connect(f"file:{path}?mode=rw")
    with suppress(driver.Error):  # a constraint refuses some
        where = "WHERE name NOT IN ('version', 'identity')" if table == "meta" else ""
        connection.execute(f"UPDATE {table} SET {name} = {value} {where}")
    connection.close()
    with (
        suppress(kvstore.StoreCorruptError),
        SyncStore(SQLiteStore(path, index=INDEX, history=3600, sweep_interval=None)) as store,
    ):
        assert isinstance(store.check(), kvstore.Report)
        past = store.at(6)
        for use_it in (
            lambda: store.history(NAMESPACE, "k1"),
            lambda: past.keys(NAMESPACE),
            lambda: store.log(("log",)).tail(),
            lambda: store.log(("log",)).append(4),
            lambda: store.queue(("queue",)).size(),
            lambda: store.export_items(io.BytesIO()),
            lambda: store.put(NAMESPACE, "k3", "a new word"),
            lambda: store.search(NAMESPACE, "word"),
            store.stats,
        ):
            with suppress(kvstore.StoreCorruptError):
                use_it()
