"""The large store by itself: opening, listing, removing, scanning.

As a program, `python -m benchmarks.core FILE`, it scans a store and prints its own memory.
"""

from __future__ import annotations

import asyncio
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import orjson

from benchmarks.contenders import KVStore, Raw, optional
from benchmarks.workloads import namespace, value

__all__ = ["measure"]

TEMPORARY = 1000  # keys that one wildcard remove takes away


async def measure(ours: KVStore, raw: Raw, rounds: int) -> dict[str, Any]:
    """Return the medians of every figure; both contenders are open, and stay so."""
    opening = []
    for _ in range(rounds):
        await ours.close()
        opening.append(await _timed(ours.open))

    listing = {}
    for prefix in (namespace(7), namespace(7)[:1], ()):
        times, found = [], []
        for _ in range(rounds):
            start = time.perf_counter()
            found = await ours.store.list_namespaces(prefix)
            times.append((time.perf_counter() - start) * 1e3)
        listing[str(len(found))] = statistics.median(times)

    return {
        "open_ms": statistics.median(opening),
        "open_worst_ms": max(opening),
        "list_namespaces_ms": listing,
        "remove_ms": await _removes(ours, raw, rounds),
        "scan": _scan_in_child(ours.folder / "kvstore.db"),
    }


async def _removes(ours: KVStore, raw: Raw, rounds: int) -> dict[str, float]:
    """Time a wildcard remove, deleting the same keys by name, and raw SQL for both."""
    where = namespace(7)
    temporary = {f"temp_{i:05}": value(i, 150) for i in range(TEMPORARY)}
    rows = [("/".join(where) + "/", key) for key in temporary]

    async def raw_wildcard() -> None:
        assert raw.remove(where, "temp_*") == TEMPORARY

    async def raw_keys() -> None:
        raw.begin()
        raw.connection.executemany("DELETE FROM items WHERE namespace = ? AND key = ?", rows)
        raw.commit()

    async def our_wildcard() -> None:
        assert await ours.store.remove(where, "temp_*") == TEMPORARY

    async def our_keys() -> None:
        assert await ours.store.delete_many(where, list(temporary)) == TEMPORARY

    ways: dict[str, Callable[[], Awaitable[None]]] = {
        "remove('temp_*')": our_wildcard,
        "delete_many of the same keys": our_keys,
        "raw SQL, DELETE with GLOB": raw_wildcard,
        "raw SQL, DELETE key by key": raw_keys,
    }
    times: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(rounds):
        for way, delete in ways.items():
            if way.startswith("raw"):
                raw.put_many(where, temporary)
            else:
                await ours.store.put_many(where, temporary)
            times[way].append(await _timed(delete))
    return {way: statistics.median(each) for way, each in times.items()}


async def _timed(call: Callable[[], Awaitable[None]]) -> float:
    start = time.perf_counter()
    await call()
    return (time.perf_counter() - start) * 1e3


def _scan_in_child(path: Path) -> dict[str, Any]:
    child = subprocess.run(
        [sys.executable, "-m", "benchmarks.core", str(path)],
        capture_output=True,
        check=True,
        cwd=Path(__file__).parents[1],
    )
    result: dict[str, Any] = orjson.loads(child.stdout)
    return result


async def _scan(path: str) -> dict[str, Any]:
    """Read every item, and watch the process's resident memory meanwhile."""
    import kvstore

    resident = optional("psutil").Process().memory_info
    count = 0
    start = time.perf_counter()
    async with kvstore.SQLiteStore(path) as store:
        opened = (time.perf_counter() - start) * 1e3
        before = peak = resident().rss
        start = time.perf_counter()
        async for _ in store.scan():
            count += 1
            if count % 10_000 == 0:
                peak = max(peak, resident().rss)
        seconds = time.perf_counter() - start
    return {
        "first_open_ms": opened,
        "items": count,
        "seconds": seconds,
        "us": seconds / count * 1e6,
        "rss_before_mib": before / 2**20,
        "rss_peak_mib": peak / 2**20,
    }


if __name__ == "__main__":
    sys.stdout.buffer.write(orjson.dumps(asyncio.run(_scan(sys.argv[1]))))
