"""Ratios that hold on a busy machine: processor time, in many short rounds that take turns.

    python -m benchmarks.paired [--quick]

`benchmarks.run` measures what a user waits for, and needs a machine of its own for it. Here, a
round is some hundred calls, each contender's in turn; what counts is the least time of a round, by
the processor and with all threads of the process. A wait costs nothing then, which favours who hops
to threads. Writes `results/paired.json` and prints the table.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import random
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import orjson

from benchmarks.contenders import DiskCache, KVStore, LangGraph, Raw
from benchmarks.run import circumstances
from benchmarks.workloads import SEED
from kvstore import KeyValueStore

ITEMS = 1_000
CALLS = 200  # of a round, and at least one wave
ROUNDS = 60
NS = ("users", "ann")
KEYS = [f"key-{at:05}" for at in range(ITEMS)]

# work, tasks, contender, factor: at most so many times its time, or at least so many times as fast
BARS: tuple[tuple[str, int, str, float], ...] = (
    ("get", 1, "raw", 0.5),
    ("get", 100, "raw", 1.2),
    ("get", 1, "langgraph", 60),
    ("get", 100, "langgraph", 1.6),
    ("put", 1, "raw", 2.6),
    ("put", 100, "langgraph", 1.35),
    ("put", 1000, "langgraph", 1.1),
    ("retrieve", 1, "diskcache", 1),
)

Round = Callable[[], Awaitable[int]]


class Works:
    """The rounds of each work and contender."""

    def __init__(self, ours: KVStore, raw: Raw, peer: LangGraph, disk: DiskCache) -> None:
        self._random = random.Random(SEED)
        self._numbers = itertools.count(10**6)
        self._ours, self._raw, self._peer, self._disk = ours, raw, peer, disk
        self._facade = KeyValueStore(ours.folder / "facade.db")

    def _key(self) -> str:
        return KEYS[self._random.randrange(ITEMS)]

    def _value(self) -> dict[str, Any]:
        """Return another value each time: SQLite writes no page that stays as it was."""
        return {"user": "ann", "text": "x" * 100, "score": next(self._numbers), "tags": ["a", "b"]}

    async def load(self) -> None:
        """Fill all stores."""
        mapping = {key: self._value() for key in KEYS}
        for each in (self._ours, self._peer):
            await each.put_many(NS, mapping)
        self._raw.put_many(NS, mapping)
        for key, value in mapping.items():
            self._facade.insert(key, value)
            await self._disk.put(NS, key, value)

    def close(self) -> None:
        """Close what is not the callers'."""
        self._facade.close()

    def rounds(self, work: str, tasks: int) -> dict[str, Round]:
        """Return a round of a work for each contender that it is about."""
        if work == "retrieve":
            return {"kvstore": self._retrieve, "diskcache": self._disk_get}
        stores: dict[str, Any] = {"kvstore": self._ours, "langgraph": self._peer}
        found: dict[str, Round] = {
            name: self._waves(store, work, tasks) for name, store in stores.items()
        }
        return {**found, "raw": self._raw_waves(work, tasks)}

    def _waves(self, store: Any, work: str, tasks: int) -> Round:
        call = getattr(store, work)

        def one() -> Awaitable[object]:
            more = (self._value(),) if work == "put" else ()
            return call(NS, self._key(), *more)  # type: ignore[no-any-return]

        async def go() -> int:
            if tasks == 1:
                for _ in range(CALLS):
                    await one()
                return CALLS
            waves = max(1, CALLS // tasks)
            for _ in range(waves):
                await asyncio.gather(*[one() for _ in range(tasks)])
            return waves * tasks

        return go

    def _raw_waves(self, work: str, tasks: int) -> Round:
        raw = self._raw

        async def go() -> int:
            number = max(CALLS, tasks)
            for at in range(number):
                if work == "get":
                    raw.get(NS, self._key())
                    continue
                if tasks > 1 and at % tasks == 0:
                    raw.begin()
                raw.put(NS, self._key(), self._value())
                if tasks > 1 and at % tasks == tasks - 1:
                    raw.commit()
            return number

        return go

    async def _retrieve(self) -> int:
        for _ in range(CALLS):
            self._facade.retrieve(self._key())
        return CALLS

    async def _disk_get(self) -> int:
        get = self._disk.cache.get
        for _ in range(CALLS):
            get("/".join((*NS, self._key())))
        return CALLS


async def measure(rounds: int) -> dict[str, dict[str, dict[str, float]]]:
    """Return microseconds a call, the least and the lower quartile, by work and contender."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    with tempfile.TemporaryDirectory(prefix="kvstore-bench-") as scratch:
        kinds = (KVStore, Raw, LangGraph, DiskCache)
        opened: list[Any] = []
        for kind in kinds:
            folder = Path(scratch, kind.name)
            folder.mkdir()
            opened.append(kind(folder))
            await opened[-1].open()
        works = Works(*opened)
        await works.load()
        for work, tasks in dict.fromkeys((work, tasks) for work, tasks, _, _ in BARS):
            calls = works.rounds(work, tasks)
            times: dict[str, list[float]] = {name: [] for name in calls}
            for _ in range(rounds):
                for name, call in calls.items():
                    began = time.process_time()
                    number = await call()
                    times[name].append((time.process_time() - began) / number * 1e6)
            found[f"{work}, {tasks} at once"] = {
                name: {"least": min(each), "quartile": statistics.quantiles(each, n=4)[0]}
                for name, each in times.items()
            }
        works.close()
        for each in opened:
            await each.close()
    return found


def table(found: dict[str, dict[str, dict[str, float]]]) -> str:
    """Hold what was measured against the bars."""
    lines = ["| bar | limit | least | lower quartile |", "|---|--:|--:|--:|"]
    for work, tasks, other, factor in BARS:
        row = found[f"{work}, {tasks} at once"]
        ratios = [row["kvstore"][which] / row[other][which] for which in ("least", "quartile")]
        is_limit = other in ("raw", "diskcache")
        limit = f"at most {factor:g}x its time" if is_limit else f"{factor:g}x as fast"
        shown = [f"{ratio if is_limit else 1 / ratio:.2f}x" for ratio in ratios]
        lines.append(f"| {work}, {tasks} at once, by {other} | {limit} | {shown[0]} | {shown[1]} |")
    lines += ["", "| µs of processor time | kvstore | raw | langgraph | diskcache |"]
    lines.append("|---|--:|--:|--:|--:|")
    for name, row in found.items():
        cells = [
            f"{row[each]['least']:.1f}" if each in row else "-"
            for each in ("kvstore", "raw", "langgraph", "diskcache")
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Measure, write the results and print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.paired", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few rounds")
    quick = parser.parse_args().quick
    found = asyncio.run(measure(6 if quick else ROUNDS))
    print(table(found))
    if not quick:
        folder = Path(__file__).parent
        result = {**circumstances(folder), "us": found}
        path = folder / "results" / "paired.json"
        path.write_bytes(orjson.dumps(result, option=orjson.OPT_INDENT_2) + b"\n")


if __name__ == "__main__":
    main()
