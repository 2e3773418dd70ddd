"""Watches that are killed at any moment and go on after the last change that somebody has read.

`KVSTORE_WATCH_FUZZ_S=60` lets others write for so many seconds, `KVSTORE_WATCH_FUZZ_SEED=7` in
another order.
"""

from __future__ import annotations

import asyncio
import os
import pickle
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random
from typing import Any

import pytest

from .server import reason_to_skip

if reason_to_skip() is not None:
    pytest.skip(str(reason_to_skip()), allow_module_level=True)

from kvstore import Change
from kvstore.postgres import PostgresStore

SECONDS = float(os.environ.get("KVSTORE_WATCH_FUZZ_S", "2"))
SEED = int(os.environ.get("KVSTORE_WATCH_FUZZ_SEED", "1"))
ROOTS = ("a", "b", "c", "d")
LAST = "the last"
PROGRAM = """
import asyncio, pickle, sys
import kvstore

async def main(url, namespace, since):
    async with kvstore.open(url, pool_size=2) as store:
        place = pickle.loads(bytes.fromhex(since)) if since else None
        async with store.watch(tuple(namespace.split()), since=place) as watch:
            print("ready", flush=True)
            async for change in watch:
                print(pickle.dumps(change).hex(), flush=True)

asyncio.run(main(*sys.argv[1:]))
"""
Place = tuple[str, int]  # a root and a version under it


class Watcher:
    """A process that watches, and what was read of what it told."""

    def __init__(self, url: str, namespace: tuple[str, ...], dice: Random) -> None:
        self.roots = namespace or ROOTS
        self.changes: list[Change] = []
        self.kills = 0
        self.is_ready = asyncio.Event()
        self._arguments = [url, " ".join(namespace)]
        self._dice = dice

    async def run(self) -> None:
        """Watch until the last change of each root has come, over many lives."""
        while self._left():
            since = pickle.dumps(self.changes[-1]).hex() if self.changes else ""
            async with program(*self._arguments, since) as process:
                assert await process.stdout.readline() == b"ready\n"
                self.is_ready.set()
                life = self._dice.choice([0, 1, self._dice.randrange(300), 10**6])
                for number in range(10**9):
                    if not self._left():
                        return
                    line = await process.stdout.readline()
                    assert line.endswith(b"\n"), "it has died by itself"
                    self.changes.append(pickle.loads(bytes.fromhex(line.decode())))
                    if number >= life or self._dice.random() < 0.002:
                        break
                process.kill()
                self.kills += 1

    def _left(self) -> set[str]:
        """Return the roots of which the last change has not come."""
        ended = {change.namespace[0] for change in self.changes[-500:] if change.key == LAST}
        return set(self.roots) - ended

    def places(self, root: str) -> list[tuple[int, str, tuple[str, ...], str]]:
        """Return the changes under a root as they came, without the items, which may be newer."""
        return [
            (change.version, change.kind, change.namespace, change.key)
            for change in self.changes
            if change.namespace[0] == root
        ]

    def told(self, root: str, kind: str) -> list[int]:
        """Return the versions of the changes of a kind under a root, as they came."""
        return [
            change.version
            for change in self.changes
            if change.namespace[0] == root and change.kind == kind
        ]


@asynccontextmanager
async def program(*arguments: str) -> AsyncIterator[Any]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", PROGRAM, *arguments),
        stdout=asyncio.subprocess.PIPE,
        limit=2**20,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def write(
    store: PostgresStore, dice: Random, until: float, put: set[Place], deleted: dict[str, int]
) -> None:
    """Write under all roots; note what was acknowledged."""
    loop = asyncio.get_running_loop()
    while loop.time() < until:
        root, key = dice.choice(ROOTS), str(dice.randrange(20))
        what = dice.random()
        if what < 0.5:
            put.add((root, (await store.put((root, "x"), key, key)).version))
        elif what < 0.65:
            is_gone = await store.delete((root, "x"), key)
            deleted[root] += is_gone
        elif what < 0.8:
            items = await store.put_many((root,), {f"{key}-{at}": at for at in range(5)})
            put.update((root, item.version) for item in items)
        elif what < 0.9:
            both = dice.sample(ROOTS, 2)

            async def cross(tx: Any, both: list[str] = both, key: str = key) -> None:
                for each in both:
                    tx.put((each, "cross"), key, key)

            await store.transact(cross, attempts=100)
        else:
            await store.increment((root, "counts"), key)
        if dice.random() < 0.05:
            await asyncio.sleep(dice.random() / 10)


@pytest.mark.slow
async def test_nothing_is_lost_and_nothing_told_twice(postgres_url: str) -> None:
    dice = Random(SEED)
    put: set[Place] = set()
    deleted = dict.fromkeys(ROOTS, 0)
    watchers = [
        Watcher(postgres_url, namespace, Random(dice.random()))
        for namespace in ((), (), ("a",), ("b",))
    ]
    watching = [asyncio.create_task(watcher.run()) for watcher in watchers]
    async with (
        PostgresStore(postgres_url) as one,
        PostgresStore(postgres_url) as two,
        asyncio.timeout(10 * SECONDS + 60),
    ):
        for watcher in watchers:
            await watcher.is_ready.wait()
        until = asyncio.get_running_loop().time() + SECONDS
        await asyncio.gather(
            *(
                write(store, Random(dice.random()), until, put, deleted)
                for store in (one, two)
                for _ in range(3)
            )
        )
        for root in ROOTS:
            put.add((root, (await one.put((root,), LAST, 1)).version))
        await asyncio.gather(*watching)
        last = {root: (await one.get((root,), LAST)) for root in ROOTS}
    assert sum(watcher.kills for watcher in watchers) >= len(watchers)
    for root in ROOTS:
        feeds = [watcher for watcher in watchers if root in watcher.roots]
        every = feeds[0].places(root)
        versions = [version for version, *_ in every]
        assert versions == sorted(set(versions))
        assert {at for place, at in put if place == root} <= set(feeds[0].told(root, "put"))
        assert len(feeds[0].told(root, "delete")) == deleted[root]
        final = last[root]
        assert final is not None
        assert versions[-1] == final.version
        for other in feeds[1:]:
            assert other.places(root) == every
