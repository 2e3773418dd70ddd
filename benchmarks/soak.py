"""Mixed work for as long as you like, to see that memory stays flat.

`python -m benchmarks.soak --minutes 10` prints, every ten seconds, the process's resident
memory, the size of the file and of its write-ahead log, and the calls so far.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import tempfile
import time
from pathlib import Path

import kvstore
from benchmarks.contenders import optional
from benchmarks.workloads import FILTER, SEED, Namespace, namespace, value

__all__ = ["main"]

TASKS = 100
NAMESPACES = 200
KEYS = 100  # in each namespace; the store stays at about 20,000 items
PRINT_EVERY_S = 10.0


class Soak:
    """A hundred tasks at mixed work, and one that watches the memory."""

    def __init__(self, store: kvstore.Store, path: Path, seconds: float) -> None:
        self.store = store
        self.path = path
        self.begun = time.monotonic()
        self.end = self.begun + seconds
        self.calls = 0

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            for number in range(TASKS):
                tasks.create_task(self.work(random.Random(SEED + number)))
            tasks.create_task(self.watch())

    async def work(self, rng: random.Random) -> None:
        while time.monotonic() < self.end:
            where = namespace(rng.randrange(NAMESPACES))
            await self.call(rng, where, f"k{rng.randrange(KEYS):07}")
            self.calls += 1

    async def call(self, rng: random.Random, where: Namespace, key: str) -> None:
        """Make one call: of 100, 60 are gets, 25 are puts, and 15 are everything else."""
        store, choice = self.store, rng.randrange(100)
        if choice < 60:
            await store.get(where, key)
        elif choice < 85:
            size = 4096 if choice == 84 else 150
            ttl = 5.0 if choice == 83 else None
            await store.put(where, key, value(rng.randrange(1_000_000), size), ttl=ttl)
        elif choice < 88:
            await store.increment(("counters",), key)
        elif choice < 90:
            await store.append(("lists",), key, choice, max_length=10)
        elif choice < 92:
            await store.delete(where, key)
        elif choice < 94:
            await store.put_many(where, {f"temp_{i}": i for i in range(20)})
        elif choice < 96:
            await store.remove(where, "temp_*")
        elif choice < 98:
            await store.search(where, filter=FILTER)
        elif choice < 99:
            await store.list_namespaces(where[:1], limit=10)
        else:
            await store.keys(where, limit=10)

    async def watch(self) -> None:
        resident = optional("psutil").Process().memory_info
        print("seconds  rss MiB  file MiB  log MiB       calls")
        while True:
            now = time.monotonic()
            log = self.path.with_name(self.path.name + "-wal")
            sizes = [path.stat().st_size / 2**20 for path in (self.path, log)]
            row = (now - self.begun, resident().rss / 2**20, *sizes, self.calls)
            print("{:7.0f}  {:7.1f}  {:8.1f}  {:7.1f}  {:10,}".format(*row), flush=True)
            if now >= self.end:
                return
            await asyncio.sleep(min(PRINT_EVERY_S, max(0.0, self.end - now)))


async def soak(minutes: float) -> None:
    with tempfile.TemporaryDirectory(prefix="kvstore-soak-") as folder:
        path = Path(folder) / "soak.db"
        async with kvstore.SQLiteStore(path) as store:
            await Soak(store, path, minutes * 60).run()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    asyncio.run(soak(parser.parse_args().minutes))


if __name__ == "__main__":
    main()
