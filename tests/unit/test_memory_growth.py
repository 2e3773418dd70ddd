"""What `InMemoryStore` does in pages or slices: the steps of all of them grow as the items do."""

import io
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from kvstore import IndexConfig, InMemoryStore
from kvstore.testing import ManualClock

FEW, MANY = 1_000, 8_000


class Steps:
    """The calls of functions, in the body of a `with`."""

    def __init__(self) -> None:
        self.number = 0

    def count(self, _: object, event: str, argument: Any) -> None:
        """Count one, as a profiler."""
        self.number += event.endswith("call")


@contextmanager
def counted() -> Iterator[Steps]:
    steps = Steps()
    sys.setprofile(steps.count)
    try:
        yield steps
    finally:
        sys.setprofile(None)


async def exported(number: int, text: str) -> io.BytesIO:
    file = io.BytesIO()
    async with InMemoryStore() as source:
        await source.put_many(("a",), {str(n): f"{text} {n}" for n in range(number)})
        await source.export_items(file)
    file.seek(0)
    return file


def embed(texts: list[str]) -> list[list[float]]:
    return [[1.0, float(len(text))] for text in texts]


async def count_then(number: int) -> int:
    async with InMemoryStore(history=60) as store:
        await store.put_many(("a",), dict.fromkeys(map(str, range(number)), 1))
        then = store.at((await store.stats()).version)
        await store.delete_many(("a",), map(str, range(0, number, 2)))
        await store.put(("a",), "new", 1)
        with counted() as steps:
            assert await then.count(("a",)) == number
        return steps.number


async def test_the_past_is_counted_in_steps_that_grow_as_the_items_do() -> None:
    """Where each page looked at all items, there were five times as many steps for each."""
    assert await count_then(MANY) / MANY < 1.5 * await count_then(FEW) / FEW


async def test_an_import_with_a_model_is_indexed_whole() -> None:
    file = await exported(MANY, "text")
    async with InMemoryStore(index=IndexConfig(embed, dimensions=2)) as store:
        assert await store.import_items(file) == MANY
        assert (await store.stats()).indexed == MANY


async def test_many_old_changes_of_one_item_are_forgotten() -> None:
    clock = ManualClock()
    async with InMemoryStore(history=60, clock=clock, sweep_interval=None) as store:
        for _ in range(FEW):
            await store.increment(("a",), "one")
        clock.advance(120)
        await store.increment(("a",), "one")
        await store.sweep()
        assert (await store.stats()).past == 1
        kept = [change.version for change in await store.history(("a",), "one")]
        assert kept == [FEW + 1, FEW]


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
