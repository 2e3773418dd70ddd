"""What `InMemoryStore` does in pages or slices: the time of all of them grows as the items do."""

import io
import time
from collections.abc import Awaitable, Callable
from typing import Final

import pytest

from kvstore import IndexConfig, InMemoryStore
from kvstore.testing import ManualClock

FEW, MANY = 2_000, 16_000
MOST: Final = 3 * MANY / FEW  # where each page looks at all items, it is eight times as much


async def exported(number: int, text: str) -> io.BytesIO:
    file = io.BytesIO()
    async with InMemoryStore() as source:
        await source.put_many(("a",), {str(n): f"{text} {n}" for n in range(number)})
        await source.export_items(file)
    file.seek(0)
    return file


def embed(texts: list[str]) -> list[list[float]]:
    return [[1.0, float(len(text))] for text in texts]


async def count_then(number: int) -> float:
    async with InMemoryStore(history=60) as store:
        await store.put_many(("a",), dict.fromkeys(map(str, range(number)), 1))
        then = store.at((await store.stats()).version)
        await store.delete_many(("a",), map(str, range(0, number, 2)))
        await store.put(("a",), "new", 1)
        began = time.process_time()
        assert await then.count(("a",)) == number
        return time.process_time() - began


async def import_all(number: int) -> float:
    file = await exported(number, "text")
    async with InMemoryStore(index=IndexConfig(embed, dimensions=2)) as store:
        began = time.process_time()
        assert await store.import_items(file) == number
        spent = time.process_time() - began
        assert (await store.stats()).indexed == number
        return spent


async def forget_changes(number: int) -> float:
    clock = ManualClock()
    async with InMemoryStore(history=60, clock=clock, sweep_interval=None) as store:
        for _ in range(number):
            await store.increment(("a",), "one")
        clock.advance(120)
        await store.increment(("a",), "one")
        began = time.process_time()
        await store.sweep()
        spent = time.process_time() - began
        assert (await store.stats()).past == 1
        assert [change.version for change in await store.history(("a",), "one")] == [
            number + 1,
            number,
        ]
        return spent


@pytest.mark.parametrize("work", [count_then, import_all, forget_changes])
async def test_the_time_grows_as_the_items_do(work: Callable[[int], Awaitable[float]]) -> None:
    few = max(0.005, min([await work(FEW) for _ in range(3)]))
    assert await work(MANY) < MOST * few


async def test_what_is_imported_anew_between_two_slices_is_indexed_as_it_then_is() -> None:
    first, second = await exported(300, "early"), await exported(200, "late")

    async def embed_later(texts: list[str]) -> list[list[float]]:
        nonlocal second
        file, second = second, io.BytesIO()
        if file.getbuffer().nbytes:
            await store.import_items(file, on_conflict="replace")
        return embed(texts)

    index = IndexConfig(embed_later, dimensions=2)
    async with InMemoryStore(index=index) as store:
        await store.import_items(first)
        assert (await store.check()).waiting == ()
        assert (await store.stats()).indexed == 300
        assert len(await store.search(("a",), "late", mode="text", limit=300)) == 200
        assert len(await store.search(("a",), "late", mode="semantic", limit=300)) == 300
