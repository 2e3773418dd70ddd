"""What safety costs: the checksum of each item, and the change feed.

    python -m benchmarks.overhead [--rounds 15] [--quick]

Each variant is the store itself with one thing taken out or put in, in one process, in turns, on
files of the same content. A figure is the processor time of a call, of all threads of the process
(under `durability="normal"` a put waits for nothing, so this is its time on a machine that has
nothing else to do); the median over the rounds, and so is a ratio, of variants of one round.
Writes `results/overhead.json` and prints the table.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import platform
import statistics
import subprocess
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from time import perf_counter, process_time
from typing import Any
from unittest.mock import patch

import kvstore
from kvstore.sqlite import driver, plain_puts, statements

RESULTS = Path(__file__).parent / "results" / "overhead.json"
NAMESPACE = ("users", "alice", "memories")
VALUE = {"text": "x" * 100, "confidence": 0.9, "source": "chat"}  # about 150 bytes
KEYS = 5_000
TASKS = 100


@contextmanager
def as_it_is() -> Iterator[None]:
    yield


@contextmanager
def without_checksums() -> Iterator[None]:
    with (
        patch.object(plain_puts, "checksum", lambda *_: 0),
        patch("kvstore.sqlite.rows.checksum", lambda *_: 0),
        patch("kvstore.sqlite.reading.checksum", lambda *_: 0),
    ):
        yield


@contextmanager
def without_feed() -> Iterator[None]:
    """A writer that does not even ask whether somebody watches."""
    asked = statements.GET_STATE_OF_FILE
    part = "(SELECT value FROM meta WHERE name = 'watched_until')"
    assert part in asked
    with patch.object(statements, "GET_STATE_OF_FILE", asked.replace(part, "0")):
        yield


@asynccontextmanager
async def nobody(store: kvstore.Store) -> AsyncIterator[None]:
    yield


@asynccontextmanager
async def recorded(store: kvstore.Store) -> AsyncIterator[None]:
    """Somebody has watched within the last hour, and does not now."""
    async with store.watch():
        pass
    yield


@asynccontextmanager
async def watched(store: kvstore.Store) -> AsyncIterator[None]:
    """Somebody in the same process and on the same loop takes every change."""

    async def follow() -> None:
        async for _ in store.watch():
            pass

    task = asyncio.create_task(follow())
    while not store.backend.bell.watches:  # noqa: ASYNC110 - this is what is waited for
        await asyncio.sleep(0)
    yield
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


Patch = Callable[[], Any]
Watching = Callable[[kvstore.Store], Any]
VARIANTS: dict[str, tuple[Patch, Watching]] = {
    "kvstore": (as_it_is, nobody),
    "without checksums": (without_checksums, nobody),
    "without the feed's question": (without_feed, nobody),
    "recorded, nobody reads": (as_it_is, recorded),
    "watched in the same process": (as_it_is, watched),
}


async def puts(store: kvstore.Store, number: int) -> None:
    for n in range(number):
        await store.put(NAMESPACE, str(n % KEYS), VALUE)


async def puts_together(store: kvstore.Store, number: int) -> None:
    async def some(first: int) -> None:
        for n in range(first, number, TASKS):
            await store.put(NAMESPACE, str(n % KEYS), VALUE)

    await asyncio.gather(*map(some, range(TASKS)))


async def gets(store: kvstore.Store, number: int) -> None:
    for n in range(number):
        await store.get(NAMESPACE, str(n % KEYS))


WORK = {"put": puts, f"put, {TASKS} tasks": puts_together, "get": gets}
PROBES = 200


async def latencies() -> dict[str, float]:
    """How long after the beginning of a put its change is there, in the same process."""
    with tempfile.TemporaryDirectory() as folder:
        async with kvstore.open(f"{folder}/store.db") as store, store.watch() as watch:
            times = []
            for n in range(PROBES):
                waiting = asyncio.ensure_future(anext(watch))
                while not store.backend.bell._listeners:  # noqa: ASYNC110
                    await asyncio.sleep(0)
                began = perf_counter()
                await store.put(NAMESPACE, str(n), VALUE)
                await waiting
                times.append((perf_counter() - began) * 1e3)
    times.sort()
    return {"p50_ms": times[PROBES // 2], "p99_ms": times[PROBES * 99 // 100], "max_ms": times[-1]}


async def measure(name: str, number: int) -> dict[str, float]:
    """Time one variant, in microseconds of processor time a call."""
    patched, watching = VARIANTS[name]
    found = {}
    with tempfile.TemporaryDirectory() as folder, patched():
        async with kvstore.open(f"{folder}/store.db", sweep_interval=None) as store:
            await store.put_many(NAMESPACE, {str(n): VALUE for n in range(KEYS)})
            async with watching(store):
                for work, run in WORK.items():
                    await run(store, number // 10)
                    gc.collect()
                    began = process_time()
                    await run(store, number)
                    found[work] = (process_time() - began) / number * 1e6
    return found


def summary(rounds: list[dict[str, dict[str, float]]]) -> dict[str, dict[str, dict[str, float]]]:
    """Medians over the rounds: the time of a call, and its ratio to kvstore's."""
    return {
        name: {
            work: {
                "us": statistics.median(each[name][work] for each in rounds),
                "ratio": statistics.median(
                    each[name][work] / each["kvstore"][work] for each in rounds
                ),
            }
            for work in WORK
        }
        for name in VARIANTS
    }


def table(found: dict[str, dict[str, dict[str, float]]]) -> str:
    """Write the summary as a table."""
    lines = ["| variant | " + " | ".join(WORK) + " |", "|---" * (len(WORK) + 1) + "|"]
    for name, works in found.items():
        cells = [f"{each['us']:.1f} us ({each['ratio']:.2f}x)" for each in works.values()]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--quick", action="store_true", help="prints, and writes nothing")
    asked = parser.parse_args()
    number = 1_000 if asked.quick else 5_000
    rounds = []
    for turn in range(3 if asked.quick else asked.rounds):
        names = list(VARIANTS)
        names = names[turn % len(names) :] + names[: turn % len(names)]
        rounds.append({name: asyncio.run(measure(name, number)) for name in names})
    found = summary(rounds)
    feed = asyncio.run(latencies())
    print(table(found))
    print(f"\nlatency of a change in the same process: {feed}")
    if not asked.quick:
        commit = subprocess.run(
            ["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False
        )
        written = {
            "commit": commit.stdout.strip() or "none",
            "machine": f"{platform.machine()}, {platform.system()}",
            "python": platform.python_version(),
            "sqlite": ".".join(map(str, driver.VERSION)),
            "rounds": len(rounds),
            "calls_a_round": number,
            "variants": found,
            "feed_latency": feed,
        }
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(json.dumps(written, indent=2) + "\n")


if __name__ == "__main__":
    main()
