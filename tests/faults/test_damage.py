"""Damaged and truncated files: an error of ours or the right value, and nothing else."""

from __future__ import annotations

import asyncio
import random
from contextlib import suppress
from pathlib import Path

import pytest

import kvstore
from kvstore.sqlite import driver

NAMESPACE = ("faults",)
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
