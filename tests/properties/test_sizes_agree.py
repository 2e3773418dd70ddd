"""All stores do the same with one item, with two, and with about a thousand at once.

About a thousand lie the bounds of batches, of pages, of the parameters of a statement, and of what
goes another way because it is much. The same random calls go to a store in memory, on a file and
on a server; each answer is compared, and after each call all that the stores hold. What small
numbers come to in any order is tried more thoroughly in `test_stores_agree`.

`KVSTORE_SIZES_SEEDS=500` tries so many scripts of each kind.
"""

from __future__ import annotations

import asyncio
import io
import os
import random
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

import kvstore
from kvstore import IndexConfig, Item, Store
from kvstore.testing import ManualClock

Call = Callable[[Store], Awaitable[Any]]

SEEDS = int(os.environ.get("KVSTORE_SIZES_SEEDS", "1"))
STEPS = 30
SIZES = [1, 2, 999, 1_000, 1_001]
NAMESPACES = [("a",), ("a", "b"), ("a", "b", "c")]  # of one root: another's versions are its own
LOG = ("a", "log")
KEYS = [f"k{number:04}" for number in range(1_500)]
WORDS = ["tea", "green", "pot", "東京都", "v1.2"]
FILTERS: list[dict[str, Any] | None] = [
    None,
    {"n": {"$gte": 5}},
    {"tag": {"$in": ["x", "z"]}},
    {"$not": {"n": {"$lt": 3}}},
]


class Script:
    """Random calls, of which each is the same for every store that it goes to.

    Args:
        seed: what is drawn depends on it alone.
        has_index: search by words, too.
    """

    def __init__(self, seed: int, *, has_index: bool) -> None:
        self._random = random.Random(seed)
        self.clock = ManualClock()
        self._moments: list[datetime] = []
        self._kinds = [
            *(self._put, self._put, self._delete, self._transact, self._append, self._bring),
            *(self._get, self._scan, self._list, self._query, self._sweep),
            *(self._look_back, self._go_back),
        ]
        if has_index:
            self._kinds += [self._rank, self._rank]

    def next(self) -> Call:
        """Return the next call, and let some time pass before it."""
        self._moments.append(self.clock.now)
        self.clock.advance(self._random.choice([0.25, 1, 5]))
        return self._random.choice(self._kinds)()

    def _place(self) -> tuple[str, ...]:
        return self._random.choice(NAMESPACES)

    def _keys(self) -> list[str]:
        return self._random.sample(KEYS, self._random.choice(SIZES))

    def _values(self) -> dict[str, Any]:
        draw = self._random
        return {
            key: {"n": draw.randrange(10), "tag": draw.choice("xyz"), "text": self._text()}
            for key in self._keys()
        }

    def _text(self) -> str:
        return " ".join(self._random.choices(WORDS, k=3))

    def _put(self) -> Call:
        place, values = self._place(), self._values()
        ttl = self._random.choice([None, None, 3, 20])
        return lambda store: store.put_many(place, values, ttl=ttl)

    def _delete(self) -> Call:
        place, keys = self._place(), self._keys()
        if self._random.random() < 0.5:
            return lambda store: store.delete_many(place, keys)
        pattern, subtree = self._random.choice(["k00*", "k?[0-4]*"]), self._random.random() < 0.5
        return lambda store: store.remove(place, pattern, subtree=subtree)

    def _transact(self) -> Call:
        place, values, gone = self._place(), self._values(), self._keys()

        async def work(tx: kvstore.Transaction) -> list[Any]:
            found = [await tx.get(place, key) for key in [*gone[:3], *values][:5]]
            for key, value in values.items():
                await tx.put(place, key, value)
            for key in gone:
                await tx.delete(place, key)
            return [item and item.value for item in found]

        return lambda store: store.transact(work)

    def _append(self) -> Call:
        values = [value["n"] for value in self._values().values()]
        keep = self._random.choice(SIZES)

        async def append(store: Store) -> Any:
            log = store.log(LOG)
            added = await log.append(*values)
            await log.trim(keep)
            return [added, await log.length(), [each.value for each in await log.tail(3)]]

        return append

    def _bring(self) -> Call:
        """Take an export out, and bring it in again over what has become of it."""
        place, gone = self._place(), self._keys()
        on_conflict: Any = self._random.choice(["replace", "skip"])

        async def bring(store: Store) -> Any:
            file = io.BytesIO()
            told = [await store.export_items(file, namespace=place)]
            told.append(await store.delete_many(place, gone))
            file.seek(0)
            told.append(await store.import_items(file, on_conflict=on_conflict))
            return told

        return bring

    def _get(self) -> Call:
        place, keys = self._place(), self._keys()
        return lambda store: store.get_many(place, keys)

    def _scan(self) -> Call:
        place, size = self._place(), self._random.choice(SIZES[1:])
        options: dict[str, Any] = {
            "filter": self._random.choice(FILTERS),
            "subtree": self._random.random() < 0.5,
            "reverse": self._random.random() < 0.5,
        }

        async def scan(store: Store) -> list[Item]:
            return [item async for item in store.scan(place, batch_size=size, **options)]

        return scan

    def _list(self) -> Call:
        place, limit = self._place(), self._random.choice(SIZES)
        reverse, after = self._random.random() < 0.5, self._random.choice([None, *KEYS[::300]])

        async def listed(store: Store) -> Any:
            keys = await store.keys(place, "k*", limit=limit, reverse=reverse, after=after)
            return [keys, await store.count(place, "k?[02468]*", subtree=True)]

        return listed

    def _query(self) -> Call:
        place, limit = self._place(), self._random.choice(SIZES)
        filter = self._random.choice(FILTERS)
        order: Any = self._random.choice([["n", "key"], "-key", ["-expires_at", "key"]])
        return lambda store: store.search(
            place, filter=filter, order_by=order, limit=limit, offset=limit // 2
        )

    def _rank(self) -> Call:
        place, limit = self._place(), self._random.choice(SIZES)
        query, filter = self._text(), self._random.choice(FILTERS)
        return lambda store: store.search(place, query, mode="text", filter=filter, limit=limit)

    def _sweep(self) -> Call:
        self.clock.advance(10)
        return lambda store: store.sweep()

    def _look_back(self) -> Call:
        moment, place = self._random.choice(self._moments), self._place()

        async def look(store: Store) -> list[Item]:
            return [item async for item in store.at(moment).scan(place, batch_size=1_000)]

        return look

    def _go_back(self) -> Call:
        moment, place = self._random.choice(self._moments[-3:]), self._place()
        return lambda store: store.rewind(moment, namespace=place)


def comparable(answer: Any) -> Any:
    """Return an answer without versions, which each store counts by itself."""
    if isinstance(answer, Item):
        return replace(answer, version=0)
    if isinstance(answer, list):
        return [comparable(each) for each in answer]
    if isinstance(answer, dict):
        return {key: comparable(each) for key, each in answer.items()}
    return answer


async def everything(store: Store) -> Any:
    items = [comparable(item) async for item in store.scan(batch_size=1_000)]
    return [items, await store.list_namespaces()]


@pytest.mark.parametrize("seed", range(SEEDS))
@pytest.mark.parametrize("has_index", [False, True], ids=["plain", "words"])
async def test_stores_agree_on_one_and_on_a_thousand(
    postgres_url: str, tmp_path: Path, seed: int, *, has_index: bool
) -> None:
    script = Script(seed, has_index=has_index)
    index = IndexConfig(fields=["text"]) if has_index else None
    urls = ["memory://", str(tmp_path / "store.db"), postgres_url]
    async with AsyncExitStack() as stack:
        stores = [
            await stack.enter_async_context(
                kvstore.open(
                    url, clock=script.clock, sweep_interval=None, history=3_600, index=index
                )
            )
            for url in urls
        ]
        for _ in range(STEPS):
            call = script.next()
            model, *others = [comparable(await call(store)) for store in stores]
            assert others == [model, model], call.__qualname__
            held, *theirs = await asyncio.gather(*map(everything, stores))
            assert theirs == [held, held], call.__qualname__
        for store in stores:
            assert (await store.check()).ok
